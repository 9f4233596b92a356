from __future__ import annotations

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.fitness import ThighSpan
from engine.fitness_checks import Acquisition, coverage_flags
from engine.fitness_checks.acquisition import acquisition_flags
from engine.flags import Flag
from engine.volume import Grid

GRID = plain_grid((10, 20, 20), (3.0, 1.0, 1.0))
PRONE = Grid(GRID.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ GRID.affine)


def found(acquisition: Acquisition, grid: Grid = GRID) -> dict[str, Flag]:
    return {flag.code: flag for flag in acquisition_flags(acquisition, grid) if flag is not None}


@pytest.mark.parametrize(
    ("acquisition", "grid", "expected"),
    [
        (Acquisition("HFS"), GRID, {}),
        (Acquisition("FFS"), GRID, {}),
        (Acquisition("HFP"), PRONE, {"not_supine": 180.0}),
        (Acquisition("HFS"), PRONE, {"position_conflict": 180.0}),
        (Acquisition("FFDR"), GRID, {"not_supine": 90.0, "position_conflict": 90.0}),
        (Acquisition(None), GRID, {}),
        (Acquisition(None), PRONE, {"not_supine": 180.0}),
        (Acquisition("HFS", erect=True), GRID, {"not_supine": None}),
        (Acquisition("SOMEHOW"), GRID, {}),
        (Acquisition("HFS", thickness_mm=5.0), GRID, {}),
        (Acquisition("HFS", thickness_mm=7.5), GRID, {"thick_slices": 7.5}),
        (Acquisition("HFS"), plain_grid((4, 4, 4), (8.0, 1.0, 1.0)), {"thick_slices": 8.0}),
        (Acquisition("HFS", contrast=True), GRID, {"contrast_medium": None}),
        (Acquisition("HFS", sharp_kernel=True), GRID, {"sharp_kernel": None}),
        (Acquisition("HFS", age_years=30.0), GRID, {}),
        (Acquisition("HFS", population_years=(50.0, 120.0)), GRID, {}),
        (Acquisition("HFS", age_years=60.0, population_years=(50.0, 120.0)), GRID, {}),
        (Acquisition("HFS", age_years=30.0, population_years=(50.0, 120.0)), GRID, {"age_outside": 30.0}),
    ],
)
def test_how_the_scan_was_made(acquisition: Acquisition, grid: Grid, expected: dict[str, float | None]) -> None:
    flags = found(acquisition, grid)
    assert {code: flag.number for code, flag in flags.items()} == pytest.approx(expected)


def test_upright_images_show_no_position() -> None:
    affine = np.array([[0.0, 0, 1, 0], [3, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # coronal
    assert found(Acquisition(None), Grid((10, 20, 20), affine)) == {}


@pytest.mark.parametrize(
    ("hip_mm", "knee_mm", "expected"),
    [(300.0, 100.0, set()), (None, 100.0, {"hip_missing"}), (380.0, None, {"hip_missing", "knee_missing"})],
)
def test_what_is_missing_is_known_before_segmentation(
    hip_mm: float | None, knee_mm: float | None, expected: set[str]
) -> None:
    span = ThighSpan(120.0, 280.0, 0.0, 400.0, hip_mm, knee_mm)
    flags = coverage_flags(span)
    assert {flag.code for flag in flags} == expected
    assert all(flag.number == span.covered_mm for flag in flags)
