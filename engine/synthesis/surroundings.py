"""What lies around the body: the table with its mattress, clothes, blankets and straps, and lines.

All of it is drawn into air only. "Down" is towards the table, along +y of a raster: for a prone patient a raster of
patient coordinates has a negative spacing there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from engine.synthesis.raster import Raster, linear_weights

BODY_HU = -400.0
FULL_HU = 800.0
"""A voxel this far above air has no air left in it."""
SURVEY_MM = (12.0, 6.0, 6.0)
REACH_MM = 16.0
"""SD of the blur from which the distance to the body is told, good up to twice that."""
PRESSED_MM = 3.0
"""What is left of the mattress where the body presses most."""


@dataclass(frozen=True)
class Table:
    """A table: a top on which the mattress lies, a floor below it, and a light core between.

    Attributes:
        half_width_mm: from the middle to the edge.
        middle_mm: x of the middle.
        sag_mm: by how much the top lies deeper in the middle than at the edges.
        depth_mm: from the top to the floor in the middle.
        floor_power: how the floor rises to the edges: 2 round, 8 nearly flat.
        skin_mm: thickness of top and floor.
        skin_hu: what they attenuate.
        second_mm: distance of a second skin under the top; 0 for none.
        core_hu: what lies between top and floor.
        mattress_mm: thickness of the mattress; 0 for none.
        mattress_hu: what it attenuates.
    """

    half_width_mm: float
    middle_mm: float
    sag_mm: float
    depth_mm: float
    floor_power: float
    skin_mm: float
    skin_hu: float
    second_mm: float
    core_hu: float
    mattress_mm: float
    mattress_hu: float


def draw_table(rng: np.random.Generator) -> Table:
    """Draw a table.

    Measured (Siemens mCT): 430 mm wide, 60 mm of sag, mattress of 25 mm at -945 HU, top of two skins 6 mm apart and
    floor 45 mm below, peaks of 150 to 490 HU, core of -910 HU. Flat ones are those of radiotherapy.
    """
    flat = rng.random() < 0.25
    return Table(
        half_width_mm=float(rng.uniform(195, 270)),
        middle_mm=float(rng.normal(0, 12)),
        sag_mm=0.0 if flat else float(rng.uniform(15, 75)),
        depth_mm=float(rng.uniform(18, 75)),
        floor_power=float(rng.choice([2.0, 4.0, 8.0])),
        skin_mm=float(rng.uniform(0.8, 3.0)),
        skin_hu=float(rng.uniform(-600, 500)),
        second_mm=float(rng.uniform(4, 9)) if rng.random() < 0.25 else 0.0,
        core_hu=float(rng.uniform(-975, -850)),
        mattress_mm=float(rng.uniform(8, 40)) if rng.random() < 0.75 else 0.0,
        mattress_hu=float(rng.uniform(-970, -860)),
    )


def table_top_mm(survey: Raster, table: Table) -> float:
    """Height (y) of the edges of the table's top, so that the body of whole slices just rests on it.

    Args:
        survey: HU of whole slices, coarse or fine; all of the patient that there is.
        table: the draw.
    """
    coarse = survey.coarse(SURVEY_MM)
    _, y, x = coarse.axes_mm
    body = (coarse.values > BODY_HU).any(0)
    lowest = torch.where(body, y[:, None], -math.inf).amax(0)
    under = (x - table.middle_mm).abs() < table.half_width_mm
    gap = (lowest - _sag(table, x))[under & lowest.isfinite()]
    return (float(gap.max()) if len(gap) else float(y.max())) + PRESSED_MM + abs(coarse.spacing_mm[1]) / 2


def table_image(table: Table, top_mm: float, places: Raster) -> torch.Tensor:
    """HU of the table in every axial plane, float32 [y, x]; air elsewhere.

    Args:
        table: the draw.
        top_mm: height of the edges of its top.
        places: the scan; only its rows and columns count.
    """
    _, y, x = places.axes_mm
    inside = ((x - table.middle_mm) / table.half_width_mm).clamp(-1, 1)
    top = top_mm + _sag(table, x)
    shape = (1 - inside.abs() ** table.floor_power).clamp(min=0)
    floor = top + table.skin_mm + (table.depth_mm * shape).clamp(min=table.skin_mm)
    pressed = top - table.mattress_mm
    bands = [
        (pressed, top, table.mattress_hu),
        (top + table.skin_mm, floor - table.skin_mm, table.core_hu),
        (top, top + table.skin_mm, table.skin_hu),
        (floor - table.skin_mm, floor, table.skin_hu),
    ]
    if table.second_mm:
        bands.append((top + table.second_mm, top + table.second_mm + table.skin_mm, table.skin_hu))
    pixel = abs(places.spacing_mm[1])
    image = torch.zeros(len(y), len(x), device=y.device)
    for low, high, hu in bands:
        covered = torch.minimum(y[:, None] + pixel / 2, high) - torch.maximum(y[:, None] - pixel / 2, low)
        image += covered.clamp_(min=0) * ((hu + 1000) / pixel)
    return image * ((x - table.middle_mm).abs() < table.half_width_mm) - 1000


@dataclass(frozen=True)
class Sheet:
    """A layer around the body: clothes, a blanket, a strap.

    Attributes:
        away_mm: from the skin.
        thickness_mm: of the layer.
        hu: what it attenuates.
        sway_mm: by how much its distance varies.
        fold_mm: over what length.
        from_mm: lowest z.
        to_mm: highest z.
    """

    away_mm: float
    thickness_mm: float
    hu: float
    sway_mm: float
    fold_mm: float
    from_mm: float = -math.inf
    to_mm: float = math.inf


def draw_sheets(rng: np.random.Generator, low_mm: float, high_mm: float) -> tuple[Sheet, ...]:
    """Draw clothes (60 %), blankets of one to four layers (50 %), a strap around the legs (15 %) in a range of z, mm.

    Measured (Siemens mCT, blanket and gown): layers 2 to 12 mm apart, half of the voxels above -885 HU, 1 % above -30.
    """
    sheets = []
    if rng.random() < 0.6:
        sheets.append(Sheet(rng.uniform(0.5, 4), rng.uniform(0.3, 1.2), rng.uniform(-800, -350), 2.0, 40.0))
    away = rng.uniform(3, 18)
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.5 else 0):
        layer = Sheet(away, rng.uniform(0.4, 1.5), rng.uniform(-850, -300), rng.uniform(1, 5), rng.uniform(25, 90))
        sheets.append(layer)
        away += rng.uniform(2, 8)
    if rng.random() < 0.15:
        start, width = rng.uniform(low_mm, high_mm), rng.uniform(40, 110)
        strap = Sheet(rng.uniform(1, 5), rng.uniform(1.5, 4), rng.uniform(-700, -50), 1.0, 60.0, start, start + width)
        sheets.append(strap)
    return tuple(sheets)


def sheet_image(sheets: tuple[Sheet, ...], survey: Raster, places: Raster, generator: torch.Generator) -> torch.Tensor:
    """HU of the layers, float32 [z, y, x]; air elsewhere, and anything inside the body.

    Args:
        sheets: the layers.
        survey: HU of whole slices, coarse or fine, without the table.
        places: the scan.
        generator: source of the folds.

    What lies under the body is pressed flat: no layer is seen below its back.
    """
    z, y, _ = places.axes_mm
    body = (survey.values > BODY_HU).any(2).any(0)
    back_mm = float(torch.where(body, survey.axes_mm[1], -math.inf).max())
    distance = skin_distance(survey)
    away = distance.at(places)
    pixel = max(map(abs, places.spacing_mm[1:]))
    image = torch.full_like(away, -1000.0)
    for sheet in sheets:
        folds = distance.filled(_folds(distance, sheet.fold_mm, generator)).at(places)
        offset = folds.mul_(-sheet.sway_mm).add_(away).sub_(sheet.away_mm).abs_()
        half = (sheet.thickness_mm + pixel) / 2
        covered = offset.neg_().add_(half).clamp_(0, min(sheet.thickness_mm, pixel)).mul_((sheet.hu + 1000) / pixel)
        image += covered * ((z >= sheet.from_mm) & (z <= sheet.to_mm))[:, None, None]
    return image.masked_fill_((y > back_mm - PRESSED_MM)[:, None], -1000.0)


def skin_distance(survey: Raster) -> Raster:
    """About how far from the skin each place outside the body is, mm, coarse; negative inside.

    The distance from a plane whose blur gives the same value: true near skin, and up to `REACH_MM` twice; gas inside
    the body counts as body.
    """
    coarse = survey.coarse(SURVEY_MM)
    body = ((coarse.values - BODY_HU) / 200 + 0.5).clamp(0, 1)
    enclosed = body
    for axis in (1, 2):
        before = body.cummax(axis).values
        behind = body.flip(axis).cummax(axis).values.flip(axis)
        both = torch.minimum(before, behind)
        enclosed = both if axis == 1 else torch.maximum(body, torch.minimum(enclosed, both))
    blurred = enclosed
    for axis, step in ((1, abs(coarse.spacing_mm[1])), (2, abs(coarse.spacing_mm[2]))):
        places = coarse.axes_mm[axis]
        lag = (places[:, None] - places[None, :]) / REACH_MM
        gauss = torch.exp(-0.5 * lag.square()) * (step / REACH_MM / math.sqrt(2 * math.pi))
        blurred = torch.tensordot(blurred.movedim(axis, 2), gauss, dims=1).movedim(2, axis)
    return coarse.filled(-REACH_MM * torch.special.ndtri(blurred.clamp(1e-4, 1 - 1e-4)))


@dataclass(frozen=True)
class Line:
    """A tube that lies on the body along z: an infusion, a catheter, a cable.

    Attributes:
        x_mm: where it starts.
        drift: by how much x changes with z, mm per mm.
        away_mm: from the skin to its middle.
        radius_mm: of the tube.
        hu: what it attenuates; the lumen of an infusion is water.
    """

    x_mm: float
    drift: float
    away_mm: float
    radius_mm: float
    hu: float


def draw_lines(rng: np.random.Generator) -> tuple[Line, ...]:
    """Draw lines on the body: none in 80 % of the scans, up to three in the others."""
    count = int(rng.integers(1, 4)) if rng.random() < 0.2 else 0
    return tuple(
        Line(rng.uniform(-180, 180), rng.uniform(-0.15, 0.15), rng.uniform(2, 12), rng.uniform(1, 3.5), hu)
        for hu in rng.uniform(-100, 400, count)
    )


def line_image(lines: tuple[Line, ...], survey: Raster, places: Raster) -> torch.Tensor:
    """HU of the lines, float32 [z, y, x]; air elsewhere.

    Args:
        lines: the draw.
        survey: HU of whole slices, coarse or fine.
        places: the scan.
    """
    coarse = survey.coarse(SURVEY_MM)
    front = _front(coarse)
    z, y, x = places.axes_mm
    weights = linear_weights(coarse.axes_mm[0], z)
    image = torch.full((len(z), len(y), len(x)), -1000.0, device=z.device)
    pixel = max(map(abs, places.spacing_mm[1:]))
    for line in lines:
        middle_x = line.x_mm + line.drift * z
        column = ((middle_x - coarse.first_mm[2]) / coarse.spacing_mm[2]).round().long().clamp(0, front.shape[1] - 1)
        heights = weights @ front[:, column]
        middle_y = heights.diagonal() - line.away_mm
        near = (x >= middle_x.min() - 8) & (x <= middle_x.max() + 8)
        if not bool(near.any()):
            continue
        across = torch.hypot(y[None, :, None] - middle_y[:, None, None], x[None, None, near] - middle_x[:, None, None])
        covered = ((line.radius_mm - across) / pixel + 0.5).clamp_(0, 1)
        image[:, :, near] += covered * (line.hu + 1000)
    return image


def in_air(hu: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    """HU of the body with what lies around it, [z, y, x]; `around` may lack axes in front."""
    air = (hu + 1000).mul_(-1 / FULL_HU).add_(1).clamp_(0, 1)
    return air.mul_(around + 1000).add_(hu)


def _sag(table: Table, x: torch.Tensor) -> torch.Tensor:
    inside = ((x - table.middle_mm) / table.half_width_mm).clamp(-1, 1)
    return table.sag_mm * (1 - inside.square())


def _folds(like: Raster, length_mm: float, generator: torch.Generator) -> torch.Tensor:
    """A smooth field in -1..1 on the places of a coarse raster."""
    counts = [
        max(2, math.ceil(size * abs(step) / length_mm) + 1)
        for size, step in zip(like.values.shape, like.spacing_mm, strict=True)
    ]
    knots = torch.randn(counts, generator=generator, device=generator.device)
    shape = list(like.values.shape)
    return functional.interpolate(knots[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0].clamp(
        -1, 1
    )


def _front(coarse: Raster) -> torch.Tensor:
    """Height of the body's front in each column of each slice, mm [z, x]; far below where there is none."""
    _, y, _ = coarse.axes_mm
    body = coarse.values > BODY_HU
    height = torch.where(body, y[None, :, None], math.inf).amin(1)
    return torch.where(height.isfinite(), height, 1e4)
