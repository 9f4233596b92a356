"""Metal, and a field of view that cuts the body."""

from __future__ import annotations

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.fitness_checks.scan import scan_flags
from engine.flags import Flag
from engine.volume import Grid, UnevenPlanes, Volume

GRID = plain_grid((30, 100, 120), (4.0, 3.0, 3.0))
CIRCLE_MM = 148.0


def body(middle_mm: float = 180.0, radius_mm: float = 90.0, grid: Grid = GRID) -> np.ndarray:
    """A cylinder of muscle in air with a little noise."""
    points = grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))
    hu = np.where(np.hypot(points[..., 0] - middle_mm, points[..., 1] - 150.0) < radius_mm, 40, -1000)
    return (hu + np.random.default_rng(2).integers(-9, 10, hu.shape)).astype(np.int16)


def found(hu: np.ndarray, grid: Grid = GRID) -> dict[str, Flag]:
    return {flag.code: flag for flag in scan_flags(Volume(hu, grid)) if flag is not None}


def padded(hu: np.ndarray) -> np.ndarray:
    """The same in a round field of view."""
    rows, columns = np.indices(GRID.shape[1:]) * 3.0
    outside = np.hypot(rows - 148.5, columns - 178.5) > CIRCLE_MM
    return np.where(outside, np.int16(-1024), hu)


def test_a_body_in_the_middle_of_the_field_of_view_raises_nothing() -> None:
    assert found(body()) == {}
    assert found(padded(body())) == {}


def test_metal_is_told_with_its_volume_and_its_slices() -> None:
    hu = body()
    hu[10:16, 50:54, 60:64] = 3071
    flag = found(hu)["metal"]
    assert flag.number == pytest.approx(6 * 4 * 4 * 0.036)
    assert "over 6 slices" in flag.words


def test_metal_counts_with_the_volume_of_its_own_slices() -> None:
    hu = body()
    hu[10:16, 50:54, 60:64] = 3071
    kept = np.r_[0:10, 10:16:2, 16:30]
    affine = GRID.affine.copy()
    affine[:3, 0] *= 29.0 / (len(kept) - 1)
    grid = Grid((len(kept), *GRID.shape[1:]), affine, UnevenPlanes(0, kept * (len(kept) - 1) / 29.0))
    assert found(hu[kept], grid)["metal"].number == pytest.approx(5.5 * 4 * 4 * 0.036)


@pytest.mark.parametrize("where", ["beside the body", "dense bone", "two voxels"])
def test_what_is_no_metal_in_the_body(where: str) -> None:
    hu = body()
    if where == "beside the body":
        hu[10:16, 50:54, 2:4] = 3071
    if where == "dense bone":
        hu[10:16, 50:54, 60:64] = 2000
    if where == "two voxels":
        hu[10, 50, 60:62] = 3071
    assert found(hu) == {}


@pytest.mark.parametrize("middle_mm", [70.0, 290.0])
def test_a_side_that_the_images_do_not_show_is_told(middle_mm: float) -> None:
    flag = found(body(middle_mm))["field_cut"]
    assert flag.number == pytest.approx(120.0)


def test_a_body_that_a_round_field_of_view_cuts_is_told() -> None:
    assert set(found(padded(body(middle_mm=130.0, radius_mm=110.0)))) == {"field_cut"}


def test_air_raises_nothing() -> None:
    assert found(np.full(GRID.shape, -1000, dtype=np.int16)) == {}
