"""A scanner looks at a posed person: surroundings, slices, streaks, kernel, noise, calibration, field of view.

The scanner's own axes are those of the grid it reconstructs: slices, rows down to the table, columns. For a prone
patient "down" is the front of the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import VolumeError
from engine.synthesis.arms import Arm, arm_image, draw_arms
from engine.synthesis.artefacts import (
    BeamHardening,
    MetalStreaks,
    beam_hardening,
    draw_beam_hardening,
    draw_metal_streaks,
    metal_streaks,
)
from engine.synthesis.noise import Kernel, Noise, add_noise, draw_kernel, draw_noise
from engine.synthesis.physics import Response, blurred, calibrated, draw_response, round_view
from engine.synthesis.raster import Lengths, Raster
from engine.synthesis.rendering import PosedPerson
from engine.synthesis.slices import Slices, slicing
from engine.synthesis.surroundings import (
    Line,
    Sheet,
    Table,
    draw_lines,
    draw_sheets,
    draw_table,
    in_air,
    line_image,
    sheet_image,
    table_image,
    table_top_mm,
)
from engine.volume import FloatArray, Grid

SURVEY_MM: Lengths = (12.0, 8.0, 8.0)
SURVEY_HALF_MM = (260.0, 330.0)
"""Half of the space across (rows, columns) in which the body is looked for."""
BODY_STEP_MM = 2.0
"""Planes of the body that are averaged into slices lie at most this far apart."""
METAL_MM: Lengths = (3.0, 2.5, 2.5)
METAL_HALF_MM = np.array([140.0, 220.0])
LEAST_COSINE = 0.7


@dataclass(frozen=True, eq=False)
class Scanner:
    """Everything drawn of a scan but the person.

    Attributes:
        kernel: family of reconstruction.
        response: blur, calibration, stored range.
        noise: its strength and grain.
        hardening: bands between bones.
        streaks: what metal does.
        table: None for none in the field of view.
        sheets: clothes and blankets.
        lines: lines on the body.
        arms: arms and hands beside or on it.
        view_mm: y and x of the centre of the round field of view about the body's middle, and its radius.
        prone: whether the patient lies on the front.
        seed: of noise and folds.
    """

    kernel: Kernel
    response: Response
    noise: Noise
    hardening: BeamHardening
    streaks: MetalStreaks
    table: Table | None
    sheets: tuple[Sheet, ...]
    lines: tuple[Line, ...]
    arms: tuple[Arm, ...]
    view_mm: tuple[float, float, float]
    prone: bool
    seed: int


def draw_scanner(rng: np.random.Generator, slices: Slices, pixel_mm: float) -> Scanner:
    """Draw a scanner for some slices; a tenth of the patients lies prone, a quarter of the views cuts the skin."""
    kernel = draw_kernel(rng)
    low, high = float(slices.places_mm[0]), float(slices.places_mm[-1])
    narrow = rng.random() < 0.25
    return Scanner(
        kernel=kernel,
        response=draw_response(rng, kernel),
        noise=draw_noise(rng, kernel, slices.thickness_mm, pixel_mm),
        hardening=draw_beam_hardening(rng),
        streaks=draw_metal_streaks(rng),
        table=draw_table(rng) if rng.random() < 0.85 else None,
        sheets=draw_sheets(rng, low, high),
        lines=draw_lines(rng),
        view_mm=(
            float(rng.normal(0, 12)),
            float(rng.normal(0, 30 if narrow else 10)),
            float(rng.uniform(160, 210) if narrow else rng.uniform(225, 300)),
        ),
        prone=bool(rng.random() < 0.1),
        seed=int(rng.integers(2**31)),
        arms=draw_arms(rng),
    )


@dataclass(frozen=True, eq=False)
class Frame:
    """The scanner's axes for a grid: unit vectors [3 (slices, rows, columns), 3 (x, y, z)], rows towards the table."""

    axes: FloatArray

    def raster(self, values: torch.Tensor, grid: Grid) -> Raster:
        """Values on a grid as the scanner sees them."""
        first = self.axes @ grid.affine[:3, 3]
        steps = np.diag(self.axes @ grid.affine[:3, :3])
        return Raster(
            values,
            (float(steps[0]), float(steps[1]), float(steps[2])),
            (float(first[0]), float(first[1]), float(first[2])),
        )

    def grid(self, low_mm: FloatArray, high_mm: FloatArray, spacing_mm: Lengths) -> Grid:
        """A grid along the axes between two corners (slices, rows, columns), mm."""
        count = np.maximum(1, np.ceil((high_mm - low_mm) / np.array(spacing_mm))).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = self.axes.T * np.array(spacing_mm)
        affine[:3, 3] = self.axes.T @ (low_mm + np.array(spacing_mm) / 2)
        return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def frame_of(grid: Grid, prone: bool) -> Frame:
    """The scanner's axes for a grid.

    Raises:
        VolumeError: its slices are not axial.
    """
    wanted = np.array([[0.0, 0.0, 1.0], [0.0, -1.0 if prone else 1.0, 0.0], [1.0, 0.0, 0.0]])
    axes = (grid.affine[:3, :3] / np.array(grid.spacing_mm)).T
    cosines = (axes * wanted).sum(axis=1)
    if np.abs(cosines).min() < LEAST_COSINE:
        reason = "the slices of its grid are not axial"
        raise VolumeError("synthetic scan", reason, "Turn the grid in the slice plane only")
    return Frame(axes * np.sign(cosines)[:, None])


def scan_image(posed: PosedPerson, grid: Grid, slices: Slices, scanner: Scanner) -> torch.Tensor:
    """The scan on a grid, float32 HU [slice, row, column].

    Args:
        posed: the person.
        grid: axial; its planes are the slices, or lie anywhere between them: then the scan is interpolated, as a
            network's grid has it.
        slices: of the scan.
        scanner: the draw.

    Raises:
        VolumeError: the slices of the grid are not axial.
    """
    frame = frame_of(grid, scanner.prone)
    generator = torch.Generator(posed.person.hu.device).manual_seed(scanner.seed)
    raster = frame.raster(torch.empty(grid.shape, device=posed.person.hu.device), grid)
    survey = _survey(posed, frame, raster)
    hu, between = _averaged(posed, grid, frame, slices)
    hu = in_air(hu, _around(scanner, survey, raster, generator))
    hu = beam_hardening(raster.filled(hu), survey, scanner.hardening)
    metal = _metal(posed, frame, raster)
    if metal is not None:
        hu = metal_streaks(raster.filled(hu), metal, survey, scanner.streaks, generator)
    hu = blurred(raster.filled(hu), scanner.response)
    hu = add_noise(raster.filled(hu), survey, scanner.noise, generator, between)
    hu = calibrated(hu, scanner.response)
    middle_y, middle_x, radius = scanner.view_mm
    hu = round_view(raster.filled(hu), (middle_y, middle_x), radius, scanner.response.outside_hu)
    return hu.clamp_(*scanner.response.stored_hu)


def in_view(grid: Grid, scanner: Scanner, device: torch.device) -> torch.Tensor:
    """What lies within the round field of view, bool [row, column]: outside it nothing is seen and nothing is true."""
    flat = Grid((1, *grid.shape[1:]), grid.affine)
    raster = frame_of(grid, scanner.prone).raster(torch.ones(flat.shape, device=device), flat)
    y, x, radius = scanner.view_mm
    return round_view(raster, (y, x), radius, 0.0)[0] > 0


def _survey(posed: PosedPerson, frame: Frame, raster: Raster) -> Raster:
    """A coarse look at whole slices."""
    z = raster.axes_mm[0]
    centre = frame.axes @ posed.pose.shift_mm
    low = np.array([float(z.min()) - SURVEY_MM[0] / 2, *(centre[1:] - SURVEY_HALF_MM)])
    high = np.array([float(z.max()) + SURVEY_MM[0] / 2, *(centre[1:] + SURVEY_HALF_MM)])
    grid = frame.grid(low, high, SURVEY_MM)
    return frame.raster(posed.attenuation(grid), grid)


def _averaged(posed: PosedPerson, grid: Grid, frame: Frame, slices: Slices) -> tuple[torch.Tensor, torch.Tensor]:
    """The body averaged into slices, HU on the grid, and the root of the covariance of the noise of its planes."""
    step = float(frame.axes[0] @ grid.affine[:3, 0])
    bottom = float(frame.axes[0] @ grid.affine[:3, 3])
    wanted = bottom + step * np.arange(grid.shape[0])
    gaps = np.diff(slices.places_mm)
    reach = slices.thickness_mm + (float(gaps.max()) if len(gaps) else 0.0)
    near = slices.places_mm[(slices.places_mm > wanted.min() - reach) & (slices.places_mm < wanted.max() + reach)]
    used = Slices(slices.thickness_mm, near if len(near) else slices.places_mm)
    fine = min(BODY_STEP_MM, max(slices.thickness_mm / 2, 0.5), abs(step))
    low, high = used.places_mm[0] - slices.thickness_mm, used.places_mm[-1] + slices.thickness_mm
    low, high = max(low, wanted.min() - reach), min(high, wanted.max() + reach)
    count = max(2, int(np.ceil((high - low) / fine)) + 1)
    planes_mm = np.linspace(low, high, count)
    affine = grid.affine.copy()
    affine[:3, 0] = frame.axes[0] * (planes_mm[1] - planes_mm[0])
    affine[:3, 3] += frame.axes[0] * (planes_mm[0] - bottom)
    planes = posed.attenuation(Grid((count, *grid.shape[1:]), affine))
    z, target = (torch.from_numpy(each.astype(np.float32)).to(planes.device) for each in (planes_mm, wanted))
    how = slicing(used, z, target)
    return how.averaged(planes), how.between


def _around(scanner: Scanner, survey: Raster, raster: Raster, generator: torch.Generator) -> torch.Tensor:
    """What lies around the body, HU, [z, y, x] or [y, x]; air elsewhere."""
    around = torch.full(raster.values.shape, -1000.0, device=survey.values.device)
    if scanner.arms:
        around = torch.maximum(around, arm_image(scanner.arms, survey, raster))
    if scanner.sheets:
        around = torch.maximum(around, sheet_image(scanner.sheets, survey, raster, generator))
    if scanner.lines:
        around = torch.maximum(around, line_image(scanner.lines, survey, raster))
    if scanner.table is not None:
        top = table_top_mm(survey, scanner.table)
        around = torch.maximum(around, table_image(scanner.table, top, raster))
    return around


def _metal(posed: PosedPerson, frame: Frame, raster: Raster) -> Raster | None:
    """The share of metal around the scan, or None where there is none."""
    if posed.person.metal is None:
        return None
    z = raster.axes_mm[0]
    centre = frame.axes @ posed.pose.shift_mm
    low = np.array([float(z.min()) - 6.0, *(centre[1:] - METAL_HALF_MM)])
    high = np.array([float(z.max()) + 6.0, *(centre[1:] + METAL_HALF_MM)])
    grid = frame.grid(low, high, METAL_MM)
    share = posed.sampled(posed.person.metal, grid)
    held = torch.nonzero(share > 0.02)
    if not len(held):
        return None
    first, last = held.amin(0).tolist(), (held.amax(0) + 1).tolist()
    box = share[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    whole = frame.raster(share, grid)
    start = [f + s * i for f, s, i in zip(whole.first_mm, whole.spacing_mm, first, strict=True)]
    return Raster(box.contiguous(), whole.spacing_mm, (start[0], start[1], start[2]))
