"""Forearms and hands that lie beside the hips or on the body; background, drawn into air only.

Axes and directions are those of a raster: slices, rows down to the table, columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from engine.synthesis.elsewhere import REGIONS, Elsewhere
from engine.synthesis.raster import Raster, linear_weights
from engine.synthesis.surroundings import BODY_HU, SURVEY_MM

STOCK = 3
"""Arms that are made once and then lie in ever other ways."""
LENGTH_MM = 600.0
BELOW_MM = 10.0
"""Air under the fingertips in the stock."""
SLAB = 32
BEND_ON, BEND_BESIDE = 2, 6
"""Slices of the survey over which an arm's course is smoothed, each way."""
SHARE = 0.3
MOST_AWAY_MM = 230.0
"""From the midline to an arm on the body, at the elbow."""
NO_BODY_MM = 1e4


@dataclass(frozen=True)
class Arm:
    """An arm at rest.

    Attributes:
        number: which one of the stock.
        side: -1 or 1, where along x.
        on: whether it lies on the body; beside it otherwise.
        fingertips_mm: level of the fingertips.
        hand_mm: distance of the hand from the midline, where it lies on the body.
        slant: by how much it lies further to the side with each mm towards the elbow, there.
        height_mm: by how much its middle lies above the lowest place, where it lies beside the body.
        gap_mm: between its skin and the body's.
        twist_deg: turn about its length; 0 is the palm up.
        size: as a factor, across and along.
        offset_hu: by how much it is brighter than in the stock.
    """

    number: int
    side: int
    on: bool
    fingertips_mm: float
    hand_mm: float
    slant: float
    height_mm: float
    gap_mm: float
    twist_deg: float
    size: tuple[float, float]
    offset_hu: float


def draw_arms(rng: np.random.Generator) -> tuple[Arm, ...]:
    """Draw arms: none in 70 % of the scans, one or two in the others.

    Fingertips reach the middle of the thigh; hands that lie on the body are found from there to the navel.
    """
    if rng.random() >= SHARE:
        return ()
    sides = (-1, 1) if rng.random() < 0.6 else (int(rng.choice([-1, 1])),)
    alike, number, size = rng.random() < 0.7, int(rng.integers(STOCK)), rng.uniform(0.85, 1.12, 2)
    on, tips, offset = rng.random() < 0.45, rng.normal(260, 50), rng.uniform(-12, 8)
    found = []
    for side in sides:
        lies_on = bool(on if alike else rng.random() < 0.45)
        palm = 180 if lies_on else float(rng.choice([0, 90, 180], p=[0.15, 0.45, 0.4]))
        found.append(
            Arm(
                number=number,
                side=side,
                on=lies_on,
                fingertips_mm=float(tips + rng.normal(0, 20) + lies_on * rng.uniform(0, 220)),
                hand_mm=float(rng.uniform(0, 130)),
                slant=float(rng.uniform(0.1, 0.7)),
                height_mm=float(rng.uniform(0, 50)),
                gap_mm=float(rng.uniform(0, 8)),
                twist_deg=float(palm + rng.normal(0, 15)),
                size=(float(size[0]), float(size[1])),
                offset_hu=float(offset),
            )
        )
    return tuple(found)


def arm_image(arms: tuple[Arm, ...], survey: Raster, places: Raster) -> torch.Tensor:
    """HU of the arms, float32 [z, y, x]; air elsewhere, and anything inside the body.

    Args:
        arms: the draw.
        survey: HU of whole slices, coarse or fine.
        places: the scan.
    """
    image = torch.full(places.values.shape, -1000.0, device=places.values.device)
    coarse = survey.coarse(SURVEY_MM)
    for arm in arms:
        model = arm_stock(str(image.device))[arm.number]
        _draw(image, places, arm, model, _course(arm, model, coarse))
    return image


@cache
def arm_stock(device: str) -> tuple[Raster, ...]:
    """Arms from the fingertips up, HU; the middle of the forearm at x = y = 0, the palm up. Made once a process."""
    region = REGIONS["arm"]
    whole = type(region)(
        region.body, 0, (-BELOW_MM, -BELOW_MM), (LENGTH_MM, LENGTH_MM), region.top_mm, region.fat, region.spacing_mm
    )
    made = (Elsewhere(device).drawn("arm", whole, np.random.default_rng(seed)) for seed in range(STOCK))
    return tuple(
        Raster(
            person.hu,
            (region.spacing_mm,) * 3,
            (-BELOW_MM, float(person.grid.affine[1, 3]), float(person.grid.affine[0, 3])),
        )
        for person in made
    )


@dataclass(frozen=True, eq=False)
class Course:
    """Where the middle of an arm runs: levels, x and y, each [n], in mm."""

    z: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor


def _course(arm: Arm, model: Raster, coarse: Raster) -> Course:
    """An arm's way along the body so that it touches it at the most."""
    z, y, x = coarse.axes_mm
    body = coarse.values > BODY_HU
    inwards, outwards, up, down = _reaches(arm, model, z)
    step_y, step_x = (abs(step) / 2 for step in coarse.spacing_mm[1:])
    back = torch.where(body.any(2), y, -math.inf).amax() if bool(body.any()) else y.amax()
    lowest = back + step_y - down
    if arm.on:
        away = (arm.hand_mm + arm.slant * (z - arm.fingertips_mm).clamp(min=0)).clamp(max=MOST_AWAY_MM)
        aside = arm.side * x - away[:, None]
        under = body & ((aside > -inwards[:, None] - step_x) & (aside < outwards[:, None] + step_x))[:, None, :]
        front = torch.where(under, y[None, :, None], NO_BODY_MM).amin((1, 2)) - step_y - down - arm.gap_mm
        return Course(z, arm.side * away, -_eased(-torch.minimum(front, lowest), BEND_ON))
    middle_y = lowest - arm.height_mm
    height = y - middle_y[:, None]
    level = (height > -up[:, None] - step_y) & (height < down[:, None] + step_y)
    beside = torch.where(body & level[:, :, None], arm.side * x, -NO_BODY_MM).amax((1, 2))
    anywhere = torch.where(body.any(1), arm.side * x, 0.0).amax(1)
    beside = torch.where(beside > -NO_BODY_MM, beside, anywhere)
    return Course(z, arm.side * _eased(beside + step_x + inwards + arm.gap_mm, BEND_BESIDE), middle_y)


def _reaches(arm: Arm, model: Raster, levels_mm: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """How far the arm reaches from its middle at some levels: towards the body's middle, away from it, up, down."""
    turn = math.radians(arm.twist_deg)
    _, y, x = model.axes_mm
    there = model.values > BODY_HU
    outwards = -math.cos(turn) * x + math.sin(turn) * y[:, None]
    down = math.sin(turn) * x + math.cos(turn) * y[:, None]
    local = (levels_mm - arm.fingertips_mm) / arm.size[1]
    weights = linear_weights(model.axes_mm[0], local)
    return tuple(
        weights @ torch.where(there, reach, 0.0).amax((1, 2)) * arm.size[0]
        for reach in (-outwards, outwards, -down, down)
    )


def _eased(wanted: torch.Tensor, bend: int) -> torch.Tensor:
    """A smooth course that is nowhere less than wanted."""
    width = 2 * bend + 1
    most = functional.max_pool1d(functional.pad(wanted[None], (2 * bend, 2 * bend), mode="replicate"), width, 1)
    return functional.avg_pool1d(most, width, 1)[0]


def _draw(image: torch.Tensor, places: Raster, arm: Arm, model: Raster, course: Course) -> None:
    """Draw an arm into an image, in place, a few slices at a time."""
    z, y, x = places.axes_mm
    weights = linear_weights(course.z, z)
    middle_x, middle_y = weights @ course.x, weights @ course.y
    reach = arm.size[0] * max(abs(edge) for axis in model.axes_mm[1:] for edge in (float(axis[0]), float(axis[-1])))
    reach *= math.sqrt(2)
    turn = math.radians(arm.twist_deg)
    for start in range(0, len(z), SLAB):
        part = slice(start, start + SLAB)
        local_z = (z[part] - arm.fingertips_mm) / arm.size[1]
        if float(local_z.max()) < -BELOW_MM:
            continue
        rows, columns = (
            _within(axis, float(middle[part].min()) - reach, float(middle[part].max()) + reach)
            for axis, middle in ((y, middle_y), (x, middle_x))
        )
        if rows.stop <= rows.start or columns.stop <= columns.start:
            continue
        across = (x[columns] - middle_x[part, None])[:, None, :] / arm.size[0]
        down = (y[rows] - middle_y[part, None])[:, :, None] / arm.size[0]
        outwards = arm.side * across  # the stock's arms are right ones at rest on the left: hence the sign of x
        model_x = math.sin(turn) * down - math.cos(turn) * outwards
        model_y = math.sin(turn) * outwards + math.cos(turn) * down
        where = torch.stack([model_x, model_y, local_z[:, None, None].expand_as(model_x)], -1)
        hu = _sampled(model, where)
        hu = torch.where(hu > BODY_HU, hu + arm.offset_hu, hu)
        box = image[part, rows, columns]
        torch.maximum(box, hu, out=box)


def _sampled(model: Raster, where: torch.Tensor) -> torch.Tensor:
    """Values of a model at places (x, y, z) in its own space, by linear interpolation."""
    device = where.device
    first = torch.tensor(model.first_mm[::-1], device=device)
    extent = torch.tensor(
        [s * (n - 1) for s, n in zip(model.spacing_mm, model.values.shape, strict=True)][::-1], device=device
    )
    at = (where - first) * (2 / extent) - 1
    values = model.values[None, None]
    return functional.grid_sample(values, at[None], padding_mode="border", align_corners=True)[0, 0]


def _within(axis: torch.Tensor, low: float, high: float) -> slice:
    """The places of an axis, rising or falling, between two values."""
    found = torch.nonzero((axis >= low) & (axis <= high)).flatten()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
