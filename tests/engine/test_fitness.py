from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from engine.fitness import NotThighs, find_thighs
from engine.labels import thigh29
from engine.resample import PATIENT_AXES
from engine.synthesis.scan import ScanRecipe, synthesise, thigh_grid
from engine.volume import Grid, Volume

Legs = Callable[[Grid], Volume]
REAL_SERIES = (
    "ge-head-tilt18-variable-spacing",
    "ge-lightspeed-3-slices",
    "philips-localizer",
    "philips-phantom-tilt16",
    "siemens-abdomen-j2k-20-slices",
)


def upright_grid(levels: int = 40) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES * (6.0, 1.6, 1.6)
    affine[:3, 3] = (-190.0, -100.0, -500.0)
    return Grid((levels, 125, 240), affine)


def circle(grid: Grid, x_mm: float, y_mm: float, radius_mm: float) -> np.ndarray:
    x, y, _ = np.moveaxis(grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)), -1, 0)
    return np.asarray(np.hypot(x - x_mm, y - y_mm) < radius_mm)


@pytest.mark.parametrize("seed", [11, 12])
def test_synthetic_scans_are_thighs(seed: int) -> None:
    scan = synthesise(ScanRecipe(seed, thigh_grid((78, 130, 170), (7.0, 3.0, 3.0))))
    span = find_thighs(scan.volume)
    assert span.length_mm > 200
    assert -40 < span.lowest_mm < 150 < span.highest_mm < 480
    assert span.pelvis_above
    assert span.knee_mm is not None and not span.knee_below, "the scan ends in the joint"
    numbers = [2 * thigh29().structure("ilium").value - side for side in (0, 1)]
    levels = np.flatnonzero(np.isin(scan.truth.labels, numbers).any((1, 2)))
    assert span.hip_mm == pytest.approx(scan.volume.grid.affine[2] @ (levels[0], 0, 0, 1), abs=45)


def test_two_legs_are_thighs_and_the_span_is_theirs(legs: Legs) -> None:
    span = find_thighs(legs(upright_grid()))
    assert (span.lowest_mm, span.highest_mm) == pytest.approx((-500, -266), abs=7)


def with_joints(grid: Grid, legs: Legs, hip_levels: int, knee_levels: int) -> Volume:
    """Two legs; hip bones between the femora in the highest levels, condyles in the lowest."""
    hu = legs(grid).hu.copy()
    middle = circle(grid, 0, 0, 100) & (np.indices(grid.shape)[0] >= grid.shape[0] - hip_levels)
    hu[middle & (hu < -150)] = 40
    hu[middle & circle(grid, 0, 20, 15)] = 220  # spongy: less dense than a shaft
    knees = np.indices(grid.shape)[0] < knee_levels
    for x_mm in (-90, 90):
        hu[knees & circle(grid, x_mm, 0, 35) & ~circle(grid, x_mm, 0, 30)] = 600
        hu[knees & circle(grid, x_mm, 0, 30)] = 150
    return Volume(hu, grid)


@pytest.mark.parametrize(
    ("hip_levels", "knee_levels", "joints", "feet_first"),
    [
        (0, 0, (False, False), False),
        (20, 0, (True, False), True),
        (20, 12, (True, True), False),
        (5, 12, (False, True), True),
    ],
)
def test_what_the_bones_show_of_hips_and_knees(
    hip_levels: int, knee_levels: int, joints: tuple[bool, bool], feet_first: bool, legs: Legs
) -> None:
    grid = upright_grid(64)
    volume = with_joints(grid, legs, hip_levels, knee_levels)
    if feet_first:  # the same patient, the lowest level stored last
        turned = grid.affine @ np.array([[-1, 0, 0, 63], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
        volume = Volume(volume.hu[::-1].copy(), Grid(grid.shape, turned))
    span = find_thighs(volume)
    assert (span.pelvis_above, span.knee_below) == joints
    assert span.pelvis_mm == pytest.approx(max(hip_levels - 1, 0) * 6, abs=7)
    assert span.below_condyles_mm == pytest.approx(max(knee_levels - 1, 0) * 6, abs=7)
    assert span.covered_mm <= span.top_mm - span.bottom_mm
    assert (span.hip_mm is None, span.knee_mm is None) == (hip_levels == 0, knee_levels == 0)


@pytest.mark.parametrize("trouble", ["noise", "metal and streaks", "table", "feet first", "merged thighs"])
def test_what_must_not_break_it(trouble: str, legs: Legs) -> None:
    grid = upright_grid()
    volume = legs(grid)
    hu = volume.hu.astype(np.float64)
    if trouble == "noise":
        hu += np.random.default_rng(1).normal(0, 70, hu.shape)
    if trouble == "metal and streaks":
        nail = circle(grid, -90, 0, 8)
        nail[:15] = False
        hu[nail] = 3071
        hu[20:26, 61:63, 20:110] = 900  # a bright streak through the femur
        hu[20:26, 66:70, 20:110] = -700
    if trouble == "table":
        hu[:, 114:117] = 500
    if trouble == "feet first":
        affine = np.diag([-1.0, 1.0, -1.0, 1.0]) @ grid.affine
        grid = Grid(grid.shape, affine)
    if trouble == "merged thighs":
        hu[(hu < -900) & circle(grid, 0, 0, 60)] = -100
    assert find_thighs(Volume(np.clip(hu, -1024, 3071).astype(np.int16), grid)).length_mm >= 180


Rods = tuple[tuple[float, float, float, int], ...]  # x and y of the middle in mm, radius in mm, HU
OTHER_THINGS: dict[str, Rods] = {
    "one leg": ((90, 0, 75, 40), (90, 0, 15, 1000)),
    "lower legs": tuple(rod for x in (-90, 90) for rod in ((x, 0, 55, 40), (x, -20, 18, 900), (x - 30, 10, 9, 1000))),
    "abdomen with arms": (
        *((0, 0, 90, 40), (0, 50, 20, 400)),
        *((-140, 0, 40, 40), (-140, 0, 11, 900), (140, 0, 40, 40), (140, 0, 11, 900)),
    ),
    "head": ((0, 0, 85, 1200), (0, 0, 77, 35)),
    "water phantom": ((0, 0, 90, 0),),
    "rods in air": ((-60, 0, 15, 1000), (60, 0, 15, 1000)),
}


@pytest.mark.parametrize("what", OTHER_THINGS)
def test_what_is_refused(what: str) -> None:
    grid = upright_grid()
    hu = np.full(grid.shape, -1000, dtype=np.int16)
    for x_mm, y_mm, radius_mm, value in OTHER_THINGS[what]:
        hu[circle(grid, x_mm, y_mm, radius_mm)] = value
    with pytest.raises(NotThighs, match="thigh bones with muscle"):
        find_thighs(Volume(hu, grid))


def test_a_short_scan_says_how_short_it_is(legs: Legs) -> None:
    with pytest.raises(NotThighs, match="only 12 cm of the body"):
        find_thighs(legs(upright_grid(20)))


def test_an_empty_scan_is_refused() -> None:
    grid = upright_grid()
    with pytest.raises(NotThighs, match="nothing but air"):
        find_thighs(Volume(np.full(grid.shape, -1000, dtype=np.int16), grid))


@pytest.mark.parametrize("series", REAL_SERIES)
def test_real_scans_of_other_regions_are_refused(series: str, shared_data: Path) -> None:
    slices = [
        pydicom.dcmread(path) for path in sorted((shared_data / "dicom" / series).iterdir()) if path.suffix != ".txt"
    ]
    hu = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
    first, last = (np.array(one.ImagePositionPatient, dtype=float) for one in (slices[0], slices[-1]))
    along, down = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(slices) - 1) if len(slices) > 1 else np.cross(along, down)
    affine[:3, 1] = down * float(slices[0].PixelSpacing[0])
    affine[:3, 2] = along * float(slices[0].PixelSpacing[1])
    affine[:3, 3] = first
    grid = Grid((len(hu), int(slices[0].Rows), int(slices[0].Columns)), affine)
    with pytest.raises(NotThighs):
        find_thighs(Volume(np.clip(hu, -1024, 3071).astype(np.int16), grid))
