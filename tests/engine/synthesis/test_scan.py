"""Synthetic scans: repeatable, true to their labels, the same patient however the grid lies."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import VolumeError
from engine.fitness import find_thighs
from engine.labels import thigh29
from engine.synthesis import ScanRecipe, SyntheticScan, synthesise, thigh_grid
from engine.synthesis.tissue import CONTEXT, FIRST_CONTEXT, context_code
from engine.volume import Grid

SHAPE, SPACING_MM = (62, 86, 108), (10.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def scan() -> SyntheticScan:
    return synthesise(ScanRecipe(5, thigh_grid(SHAPE, SPACING_MM)))


def test_the_same_recipe_gives_the_same_voxels(scan: SyntheticScan) -> None:
    again = synthesise(ScanRecipe(5, thigh_grid(SHAPE, SPACING_MM)))
    np.testing.assert_array_equal(again.volume.hu, scan.volume.hu)
    np.testing.assert_array_equal(again.truth.labels, scan.truth.labels)


def test_another_seed_gives_another_patient(scan: SyntheticScan) -> None:
    other = synthesise(ScanRecipe(6, thigh_grid(SHAPE, SPACING_MM)))
    assert (other.truth.labels != scan.truth.labels).mean() > 0.01


def test_every_structure_is_there_on_both_sides(scan: SyntheticScan) -> None:
    assert set(np.unique(scan.truth.labels)) == {0, *(segment.number for segment in thigh29().segments)}


def test_left_lies_at_positive_x(scan: SyntheticScan) -> None:
    voxels = np.argwhere(scan.truth.labels > 0)
    numbers = scan.truth.labels[tuple(voxels.T)]
    x = scan.truth.grid.to_patient(voxels.astype(np.float64))[:, 0]
    right, left = x[numbers % 2 == 1], x[numbers % 2 == 0]
    assert right.mean() < -40 and left.mean() > 40
    assert right.max() < 30 and left.min() > -30  # the deformation moves the midline, but not far


def test_muscle_bone_fat_and_air_have_their_attenuation(scan: SyntheticScan) -> None:
    hu, labels = scan.volume.hu, scan.truth.labels
    femur = thigh29().structure("femur").value
    bone = (labels == 2 * femur) | (labels == 2 * femur - 1)
    muscle = (labels > 0) & (labels < 2 * thigh29().structure("femur").value - 1)
    assert 0 < np.median(hu[muscle]) < 90
    assert np.percentile(hu[bone], 90) > 400
    assert np.median(hu[:, 0]) < -950


def test_the_thighs_are_found(scan: SyntheticScan) -> None:
    assert find_thighs(scan.volume).length_mm > 150


def test_a_reversed_and_turned_grid_shows_the_same_patient() -> None:
    upright = thigh_grid(SHAPE, SPACING_MM)
    turn = np.radians(15)
    affine = upright.affine.copy()
    middle = upright.to_patient((np.array(SHAPE) - 1) / 2)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = rotation @ affine[:3, :3] @ np.diag([-1, 1, 1])
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    straight = synthesise(ScanRecipe(8, upright)).truth
    turned = synthesise(ScanRecipe(8, Grid(SHAPE, affine))).truth
    for number in (5, 6, 55, 56):  # large ones: a thin muscle is sampled too coarsely here
        ours, theirs = (
            t.grid.to_patient(np.argwhere(t.labels == number).astype(np.float64)).mean(axis=0)
            for t in (straight, turned)
        )
        np.testing.assert_allclose(ours, theirs, atol=2.0)


def test_a_grid_whose_slices_are_not_axial_is_refused() -> None:
    affine = thigh_grid(SHAPE, SPACING_MM).affine.copy()
    affine[2, 1] = 1.0
    with pytest.raises(VolumeError, match="not axial"):
        synthesise(ScanRecipe(1, Grid(SHAPE, affine)))


def test_context_codes_stand_behind_the_segments() -> None:
    assert len(thigh29().segments) < FIRST_CONTEXT
    codes = [context_code(tissue.name) for tissue in CONTEXT]
    assert codes == sorted(set(codes)) and codes[-1] < 256
