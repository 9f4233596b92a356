"""Preparing an anatomy, on bodies simple enough to know every distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.synthesis.anatomy import FAR_MM, REACH_MM, Anatomy, Joints, prepare, upright_grid
from engine.synthesis.tissues import tissue_table

SPACING_MM = 2.0
SHAPE = (24, 52, 52)
AXIS = (np.arange(52) - 25.5) * SPACING_MM
Z = (np.arange(24) - 11.5) * SPACING_MM
JOINTS = Joints(np.zeros((2, 3)), np.zeros((2, 3)))
ONE, TWO = 1, 3
FAT = tissue_table().code("intermuscular_fat")
FEMUR = tissue_table().code("femur")
Codes = NDArray[np.uint8]


def prepared(codes: Codes) -> Anatomy:
    first_mm = (float(AXIS[0]), float(AXIS[0]), float(Z[0]))
    return prepare("simple", "nobody", codes, upright_grid(SHAPE, SPACING_MM, first_mm), JOINTS)


def disc(radius_mm: float) -> NDArray[np.bool_]:
    return np.broadcast_to(np.hypot(AXIS[:, None], AXIS) < radius_mm, SHAPE)


def two_muscles() -> Codes:
    """A round leg of 40 mm with a block of 40 x 40 mm, of which each muscle has one half in x."""
    codes = np.where(disc(40), FAT, 0).astype(np.uint8)
    codes[:, 16:36, 16:26] = ONE
    codes[:, 16:36, 26:36] = TWO
    return codes


@pytest.fixture(scope="module")
def simple() -> Anatomy:
    return prepared(two_muscles())


def test_the_grid_says_where_each_voxel_lies() -> None:
    grid = upright_grid((3, 4, 5), 1.5, (-10.0, 20.0, 30.0))
    np.testing.assert_allclose(grid.to_patient(np.array([0, 0, 0])), [-10, 20, 30])
    np.testing.assert_allclose(grid.to_patient(np.array([2, 3, 4])), [-4, 24.5, 33])


def test_a_distance_is_negative_inside_and_that_to_the_border(simple: Anatomy) -> None:
    middle = (12, 26)
    near = np.abs(AXIS) < 6  # deeper inside another border is as near
    np.testing.assert_array_equal(simple.first[middle][near], np.where(AXIS[near] < 0, ONE, TWO))
    np.testing.assert_allclose(simple.first_mm[middle][near], -np.abs(AXIS[near]), atol=0.3)
    np.testing.assert_array_equal(simple.second[middle][near], np.where(AXIS[near] < 0, TWO, ONE))
    np.testing.assert_allclose(simple.second_mm[middle][near], np.abs(AXIS[near]), atol=0.3)


def test_a_distance_outside_is_that_to_the_border(simple: Anatomy) -> None:
    outside = (AXIS > 20) & (AXIS < 20 + REACH_MM)
    line = simple.first_mm[12, 26, outside]
    np.testing.assert_allclose(line, AXIS[outside] - 20, atol=0.3)
    assert (simple.first[12, 26, outside] == TWO).all()


def test_far_from_all_muscles_there_is_none(simple: Anatomy) -> None:
    beyond = np.maximum(np.abs(AXIS) - 20, 0)
    along = np.broadcast_to(np.maximum(beyond[:, None], beyond), SHAPE)
    far = along > REACH_MM + 2 * SPACING_MM
    assert far.any() and (simple.first[far] == 0).all() and (simple.first_mm[far] == FAR_MM).all()
    away = np.broadcast_to(np.hypot(beyond[:, None], beyond), SHAPE)
    assert (simple.first[away < REACH_MM] > 0).all()


def test_bone_is_no_end_of_a_muscle() -> None:
    codes = two_muscles()
    codes[:, 16:36, 16:36] = ONE
    codes[:, 22:30, 22:30] = FEMUR
    beside = (12, 26, 21)
    assert prepared(codes).first_mm[beside] < -7, "the border is 11 mm away, the bone 1 mm"
    codes[codes == FEMUR] = FAT
    assert prepared(codes).first_mm[beside] > -1.5


def test_outside_is_measured_from_the_fascia(simple: Anatomy) -> None:
    radius = np.broadcast_to(np.hypot(AXIS[:, None], AXIS), SHAPE)
    assert (simple.outside_mm[radius < 40] == 0).all()
    outside = radius > 42
    np.testing.assert_allclose(simple.outside_mm[outside], radius[outside] - 40, atol=SPACING_MM)


def test_skin_and_fat_outside_the_fascia_are_taken_off(simple: Anatomy) -> None:
    table = tissue_table()
    dressed = two_muscles()
    dressed[disc(50) & ~disc(40)] = table.code("skin")
    dressed[disc(47) & ~disc(40)] = table.code("subcutaneous_fat")
    bare = prepared(dressed)
    np.testing.assert_array_equal(bare.codes, simple.codes)
    np.testing.assert_array_equal(bare.outside_mm, simple.outside_mm)


def test_fat_enclosed_by_the_fascia_is_between_muscles() -> None:
    codes = two_muscles()
    codes[:, 12:14, 24:28] = tissue_table().code("subcutaneous_fat")
    np.testing.assert_array_equal(prepared(codes).codes, two_muscles())


def test_gas_inside_the_body_is_not_outside_the_fascia() -> None:
    codes = two_muscles()
    codes[10:14, 12:14, 24:28] = 0
    anatomy = prepared(codes)
    assert (anatomy.codes[10:14, 12:14, 24:28] == 0).all()
    assert (anatomy.outside_mm[10:14, 12:14, 24:28] == 0).all()


def test_the_back_is_the_hindmost_row(simple: Anatomy) -> None:
    codes = two_muscles()
    codes[:, 40:] = 0
    assert prepared(codes).back_mm == AXIS[39]
    assert simple.back_mm == AXIS[AXIS < 40].max()


def test_nothing_is_farther_than_far() -> None:
    codes = np.zeros((2, 2, 120), dtype=np.uint8)
    codes[:, :, :2] = ONE
    anatomy = prepare("long", "", codes, upright_grid((2, 2, 120), SPACING_MM, (0.0, 0.0, 0.0)), JOINTS)
    assert anatomy.outside_mm.max() == FAR_MM
    assert anatomy.outside_mm[0, 0, 20] == pytest.approx(18.5 * SPACING_MM, abs=SPACING_MM / 2)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_first_is_never_farther_than_the_second(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.zeros((10, 12, 12), dtype=np.uint8)
    codes[1:-1, 1:-1, 1:-1] = FAT
    for code in (ONE, TWO, 5, 7, FEMUR):
        z, y, x = (slice(start, start + int(rng.integers(2, 6))) for start in rng.integers(1, 6, 3).tolist())
        codes[z, y, x] = code
    if not tissue_table().muscles[codes].any():
        return
    anatomy = prepare("random", "", codes, upright_grid((10, 12, 12), SPACING_MM, (0.0, 0.0, 0.0)), JOINTS)
    assert (anatomy.first_mm <= anatomy.second_mm).all()
    assert ((anatomy.first != anatomy.second) | (anatomy.first == 0)).all()
    for nearest, distance in ((anatomy.first, anatomy.first_mm), (anatomy.second, anatomy.second_mm)):
        np.testing.assert_array_equal(nearest == 0, distance == FAR_MM)
        assert set(np.unique(nearest)) <= {0, *codes[tissue_table().muscles[codes]]}


def test_codes_that_do_not_fit_their_grid_are_refused() -> None:
    grid = upright_grid((24, 52, 51), SPACING_MM, (0.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="anatomy odd"):
        prepare("odd", "", two_muscles(), grid, JOINTS)


def test_a_body_without_muscle_is_refused() -> None:
    with pytest.raises(VolumeError, match="hold no muscle"):
        prepared(np.where(disc(40), FEMUR, 0).astype(np.uint8))
