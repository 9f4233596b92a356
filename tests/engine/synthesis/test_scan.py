"""Synthetic scans: repeatable, true to their labels, the same patient however the grid lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.fitness import find_thighs
from engine.labels import thigh29
from engine.synthesis import ScanRecipe, SyntheticScan, scan, synthesise, thigh_grid
from engine.synthesis.builtin import BuiltIn
from engine.synthesis.scan import ANY, HIGHEST_MM, LOWEST_MM, ROUTINE, Conditions, sculptor_of
from engine.synthesis.scanning import Scanner, draw_scanner
from engine.synthesis.slices import Slices
from engine.volume import FloatArray, Grid

SHAPE, SPACING_MM = (62, 86, 108), (10.0, 4.0, 4.0)
SMALL = thigh_grid((78, 50, 64), (8.0, 8.0, 8.0))
LARGE = (5, 6, 11, 12, 27, 28, 55, 56)
"""Vastus lateralis, adductor magnus, gluteus maximus, femur: a thin muscle is sampled too coarsely here."""
QUIET = replace(ROUTINE, noise_sd_hu=0.0, table=False)
NOISY = replace(QUIET, noise_sd_hu=20.0)


@pytest.fixture(scope="module")
def whole() -> SyntheticScan:
    return synthesise(ScanRecipe(5, thigh_grid(SHAPE, SPACING_MM)))


@pytest.fixture(scope="module")
def quiet() -> SyntheticScan:
    """Of the same patient, coarse, without noise and without a table."""
    return synthesise(ScanRecipe(5, SMALL, QUIET))


@pytest.fixture(scope="module")
def noisy() -> SyntheticScan:
    return under(NOISY)


def under(conditions: Conditions, seed: int = 5) -> SyntheticScan:
    return synthesise(ScanRecipe(seed, SMALL, conditions))


def places_mm(grid: Grid) -> FloatArray:
    return grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


def volumes_ml(scan: SyntheticScan) -> NDArray[np.float64]:
    return np.bincount(scan.truth.labels.ravel(), minlength=59) * scan.truth.grid.voxel_volume_mm3 / 1000


def centres_mm(scan: SyntheticScan) -> FloatArray:
    grid, labels = scan.truth.grid, scan.truth.labels
    return np.stack([grid.to_patient(np.argwhere(labels == number).astype(float)).mean(axis=0) for number in LARGE])


def test_thigh_grid_covers_hips_and_knees() -> None:
    grid = thigh_grid((63, 40, 50), (10.0, 5.0, 6.0))
    ends = grid.to_patient(np.array([[0, 0, 0], [62, 39, 49]]))
    np.testing.assert_allclose(ends.mean(axis=0), [0, 0, (LOWEST_MM + HIGHEST_MM) / 2])
    np.testing.assert_allclose(ends[1] - ends[0], [49 * 6, 39 * 5, 62 * 10])
    assert ends[0, 2] == LOWEST_MM and ends[1, 2] == HIGHEST_MM


def test_the_same_recipe_gives_the_same_voxels(noisy: SyntheticScan) -> None:
    again = under(NOISY)
    np.testing.assert_array_equal(again.volume.hu, noisy.volume.hu)
    np.testing.assert_array_equal(again.truth.labels, noisy.truth.labels)


def test_another_seed_gives_another_patient(quiet: SyntheticScan) -> None:
    assert (under(QUIET, 6).truth.labels != quiet.truth.labels).mean() > 0.01


def test_the_same_seed_is_the_same_patient_on_another_grid(whole: SyntheticScan, quiet: SyntheticScan) -> None:
    np.testing.assert_allclose(volumes_ml(whole)[list(LARGE)], volumes_ml(quiet)[list(LARGE)], rtol=0.06)
    away = np.abs(centres_mm(whole) - centres_mm(quiet))
    assert away[:, :2].max() < 2 and away[:, 2].max() < 4, "slices are 10 and 8 mm apart"


def test_two_grids_of_one_patient_make_one_series(quiet: SyntheticScan) -> None:
    """As a series whose spacing changes on the way: every voxel of a part is that of the whole."""
    affine = SMALL.affine.copy()
    affine[:3, 3] = SMALL.to_patient(np.array([30.0, 0.0, 0.0]))
    affine[2, 0] *= 2
    part = synthesise(ScanRecipe(5, Grid((20, *SMALL.shape[1:]), affine), replace(QUIET, thickness_mm=8.0)))
    expected = quiet.volume.hu[30:70:2].astype(np.float64)
    same = part.truth.labels == quiet.truth.labels[30:70:2]
    assert same.mean() > 0.99
    away = np.abs(part.volume.hu.astype(np.float64) - expected)[1:-1]
    assert away.mean() < 20 and np.median(away[expected[1:-1] > -300]) < 15


def test_every_structure_is_there_on_both_sides(whole: SyntheticScan) -> None:
    assert set(np.unique(whole.truth.labels)) == {0, *(segment.number for segment in thigh29().segments)}


def test_left_lies_at_positive_x(whole: SyntheticScan) -> None:
    labels = whole.truth.labels
    x = places_mm(whole.truth.grid)[..., 0]
    right, left = x[labels % 2 == 1], x[(labels % 2 == 0) & (labels > 0)]
    assert right.mean() < -40 and left.mean() > 40
    assert (right > 30).mean() < 0.01 and (left < -30).mean() < 0.01, "the midline moves, but not far"
    for value in range(1, 30):
        assert x[labels == 2 * value - 1].mean() < 0 < x[labels == 2 * value].mean()


def test_muscle_bone_fat_and_air_have_their_attenuation(whole: SyntheticScan) -> None:
    hu, labels = whole.volume.hu, whole.truth.labels
    femur = thigh29().structure("femur").value
    muscle = (labels > 0) & (labels < 2 * femur - 1)
    bone = (labels == 2 * femur) | (labels == 2 * femur - 1)
    assert 0 < np.median(hu[muscle]) < 90
    assert np.percentile(hu[bone], 90) > 400
    assert np.median(hu[:, 0]) < -950
    fat = (labels == 0) & (hu > -150) & (hu < -50)
    assert fat.mean() > 0.02 and -125 < np.median(hu[fat]) < -75


def test_the_thighs_are_found(whole: SyntheticScan) -> None:
    assert find_thighs(whole.volume).length_mm > 150
    other = synthesise(ScanRecipe(7, thigh_grid((62, 72, 108), (10.0, 4.0, 4.0))))
    assert find_thighs(other.volume).length_mm > 150


def test_a_reversed_and_turned_grid_shows_the_same_patient(quiet: SyntheticScan) -> None:
    turn = np.radians(15)
    affine = SMALL.affine.copy()
    middle = (np.array(SMALL.shape) - 1) / 2
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = rotation @ affine[:3, :3] @ np.diag([-1, 1, 1])
    affine[:3, 3] = SMALL.to_patient(middle) - affine[:3, :3] @ middle
    turned = synthesise(ScanRecipe(5, Grid(SMALL.shape, affine), QUIET))
    away = np.abs(centres_mm(turned) - centres_mm(quiet))
    assert away[:, :2].max() < 2 and away[:, 2].max() < 4
    femora = [2 * thigh29().structure("femur").value - offset for offset in (1, 0)]
    means = [scan.volume.hu[np.isin(scan.truth.labels, femora)].mean() for scan in (quiet, turned)]
    assert means[0] > 250 and means[1] == pytest.approx(means[0], rel=0.1)


def test_less_than_half_a_millilitre_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    affine = thigh_grid((1, 100, 128), (1.0, 4.0, 4.0)).affine.copy()
    affine[2, 3] = 250.0
    grid = Grid((1, 100, 128), affine)
    seen = synthesise(ScanRecipe(9, grid)).truth.labels
    monkeypatch.setattr(scan, "remove_specks", lambda labels, *_: labels)
    raw = synthesise(ScanRecipe(9, grid)).truth.labels
    volume_ml = np.bincount(raw.ravel(), minlength=59) * grid.voxel_volume_mm3 / 1000
    specks = (volume_ml > 0) & (volume_ml < thigh29().least_volume_ml)
    assert specks.any() and (~specks[1:] & (volume_ml[1:] > 0)).any()
    np.testing.assert_array_equal(seen, np.where(specks[raw], 0, raw))


@pytest.mark.parametrize(
    "axes", [[[0, 0, 8], [8, 0, 0], [0, -8, 0]], [[8, 0, 0], [0, 0, 8], [0, -8, 0]]], ids=["coronal", "sagittal"]
)
def test_a_grid_whose_slices_are_not_axial_is_refused(axes: list[list[float]]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = axes
    with pytest.raises(VolumeError, match="not axial"):
        synthesise(ScanRecipe(1, Grid((5, 5, 5), affine)))


def test_an_anatomy_is_prepared_once_for_equal_sources() -> None:
    assert sculptor_of(BuiltIn(), "cpu") is sculptor_of(scan.BUILT_IN, "cpu")


def test_noise_is_what_was_asked(quiet: SyntheticScan, noisy: SyntheticScan) -> None:
    np.testing.assert_array_equal(noisy.truth.labels, quiet.truth.labels)
    body = quiet.truth.labels > 0
    change = noisy.volume.hu[body].astype(np.float64) - quiet.volume.hu[body]
    assert change.std() == pytest.approx(20, rel=0.25)


def test_thick_slices_blur_along_the_body(quiet: SyntheticScan) -> None:
    thick = under(replace(QUIET, thickness_mm=30.0))
    steps = [np.abs(np.diff(each.volume.hu.astype(np.float64), axis=0)).mean() for each in (quiet, thick)]
    assert steps[1] < 0.8 * steps[0]


def part_of_thighs(front_mm: float) -> Grid:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = 10.0, 6.0, 6.0
    affine[:, 3] = (-240.0, front_mm, 200.0, 1.0)
    return Grid((3, 60, 81), affine)


def lying(seed: int, table: bool, prone: bool = False) -> tuple[NDArray[np.float64], FloatArray]:
    """A short piece of the thighs with what lies under it: HU, and how far below the middle each voxel lies."""
    grid = part_of_thighs(-220.0 if prone else -140.0)
    scan = synthesise(ScanRecipe(seed, grid, replace(QUIET, table=table, prone=prone)))
    return scan.volume.hu.astype(np.float64), places_mm(grid)[..., 1] * (-1 if prone else 1)


def test_a_table_is_there_if_asked_and_none_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_table(rng: np.random.Generator, slices: Slices, pixel_mm: float) -> Scanner:
        return replace(draw_scanner(rng, slices, pixel_mm), table=None)

    bare, down = lying(0, table=False)
    assert (bare[down > down[bare > -300].max() + 8] < -980).all()
    monkeypatch.setattr(scan, "draw_scanner", without_table)
    change = lying(0, table=True)[0] - bare
    added = down[change > 20]
    assert len(added) > 100 and added.mean() > np.median(down[bare > -300]) + 30


def test_a_prone_patient_lies_on_the_front() -> None:
    bare, down = lying(0, table=False, prone=True)
    change = lying(0, table=True, prone=True)[0] - bare
    added = down[change > 40]
    assert len(added) > 50 and added.mean() > np.median(down[bare > -300]) + 30


def test_an_implant_is_there_if_asked(quiet: SyntheticScan) -> None:
    metal = under(replace(QUIET, implant=True))
    dense = metal.volume.hu.astype(np.int32) - quiet.volume.hu > 700
    assert dense.any()
    femora = [2 * thigh29().structure("femur").value - offset for offset in (1, 0)]
    for number in femora:
        assert volumes_ml(metal)[number] > 0.7 * volumes_ml(quiet)[number]
    assert np.isin(metal.truth.labels[dense], [*femora, 57, 58]).any(), "metal in a bone is the bone"
    assert (metal.truth.labels == quiet.truth.labels).mean() > 0.99, "the same patient"


def test_outside_the_view_all_is_background(quiet: SyntheticScan) -> None:
    cut = under(replace(QUIET, whole_view=False))
    outside = (cut.volume.hu == cut.volume.hu.min()).all(axis=0)
    assert not cut.truth.labels[:, outside].any() and quiet.truth.labels[:, outside].any()
    away = np.hypot(*np.moveaxis(places_mm(SMALL)[0, ..., :2], -1, 0))
    assert 0.02 < outside.mean() < 0.98 and away[outside].min() > away[~outside].mean()


def test_any_conditions_are_drawn_from_the_seed() -> None:
    first, again = (under(ANY, 12) for _ in range(2))
    np.testing.assert_array_equal(first.volume.hu, again.volume.hu)
    np.testing.assert_array_equal(first.truth.labels, again.truth.labels)


def test_the_truth_fits_the_volume(whole: SyntheticScan) -> None:
    fields: tuple[Any, ...] = (whole.volume.hu.dtype, whole.truth.labels.dtype, whole.truth.label_set.name)
    assert fields == (np.int16, np.uint8, "thigh29")
    assert whole.volume.grid is whole.truth.grid
