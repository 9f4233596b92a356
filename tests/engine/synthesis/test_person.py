"""Persons: every one has all structures, and is what was drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.labels import Side
from engine.synthesis.anatomy import Anatomy
from engine.synthesis.person import STREAK_HU, Person, PersonDraw, Sculptor, draw_person
from engine.synthesis.tissues import AIR_HU, CODES, SIDES, tissue_table

TABLE = tissue_table()
FAT, SKIN, BETWEEN = (TABLE.code(key) for key in ("subcutaneous_fat", "skin", "intermuscular_fat"))
NOTHING = np.zeros(CODES, dtype=np.float32)
PLAIN = replace(
    draw_person(np.random.default_rng(4)),
    growth=NOTHING,
    sway_mm=np.zeros((CODES, 2), dtype=np.float32),
    gap_mm=(-20.0, 0.0),
    fat_mm=(10.0, 1.0, 1.0),
    skin_mm=4.0,
    texture_hu=NOTHING,
    infiltration=NOTHING,
)
"""A person with the anatomy's own muscles, each of them of one attenuation."""


@pytest.fixture(scope="module")
def plain(sculptor: Sculptor) -> Person:
    return sculptor.person(PLAIN)


def volumes(codes: torch.Tensor) -> NDArray[np.int64]:
    """Voxels of each code."""
    return np.bincount(codes.numpy().ravel(), minlength=CODES)


def grown(code: int, share: float) -> PersonDraw:
    growth = NOTHING.copy()
    growth[code] = share
    return replace(PLAIN, growth=growth)


def levels_mm(anatomy: Anatomy) -> NDArray[np.float64]:
    return np.asarray(anatomy.grid.affine[2, 3] + anatomy.grid.spacing_mm[0] * np.arange(anatomy.grid.shape[0]))


def test_the_same_draw_gives_the_same_voxels(sculptor: Sculptor, person: Person) -> None:
    again = sculptor.person(draw_person(np.random.default_rng(1)))
    assert torch.equal(again.codes, person.codes) and torch.equal(again.hu, person.hu)


def test_a_person_without_growth_has_the_muscles_of_the_anatomy(plain: Person, built_in: Anatomy) -> None:
    before, after = volumes(torch.from_numpy(built_in.codes)), volumes(plain.codes)
    np.testing.assert_allclose(after[TABLE.muscles], before[TABLE.muscles], rtol=0.12)


def test_a_muscle_that_shrinks_leaves_fat(sculptor: Sculptor, plain: Person) -> None:
    code = TABLE.code("vastus_lateralis", Side.LEFT)
    shrunk = sculptor.person(grown(code, -0.4))
    before, after = plain.codes == code, shrunk.codes == code
    assert after.sum() < 0.75 * before.sum()
    assert not (after & ~before).any()
    assert (shrunk.codes[before & ~after] == BETWEEN).all()
    assert torch.equal(shrunk.codes[~before], plain.codes[~before])


def test_a_muscle_that_grows_takes_from_muscles_and_fat_only(sculptor: Sculptor, plain: Person) -> None:
    code = TABLE.code("vastus_medialis", Side.RIGHT)
    large = sculptor.person(grown(code, 0.25))
    gained = (large.codes == code) & (plain.codes != code)
    assert gained.sum() > 0.1 * (plain.codes == code).sum()
    taken = np.unique(plain.codes[gained].numpy())
    assert (TABLE.muscles[taken] | TABLE.is_one_of("intermuscular_fat", "visceral_fat")[taken]).all()
    assert TABLE.muscles[taken].any(), "a neighbour gives way"


@pytest.mark.parametrize("seed", range(10))
def test_all_structures_survive_and_nothing_grows_into_bone_or_vessel(
    sculptor: Sculptor, built_in: Anatomy, seed: int
) -> None:
    codes = sculptor.person(draw_person(np.random.default_rng(seed))).codes
    found_ml = np.bincount(TABLE.truth[codes.numpy().ravel()], minlength=59) * built_in.grid.voxel_volume_mm3 / 1000
    assert found_ml[1:59].min() > 2
    soft = TABLE.muscles | TABLE.is_one_of("intermuscular_fat", "visceral_fat")
    soft[0] = True
    firm = torch.from_numpy(~soft)[torch.from_numpy(built_in.codes).int()]
    assert torch.equal(codes[firm], torch.from_numpy(built_in.codes)[firm])


def test_a_gap_between_neighbours_is_fat(sculptor: Sculptor, plain: Person) -> None:
    codes = sculptor.person(replace(PLAIN, gap_mm=(2.0, 0.0))).codes
    changed = codes != plain.codes
    assert changed.sum() > 0.03 * volumes(plain.codes)[TABLE.muscles].sum()
    assert (codes[changed] == BETWEEN).all()


def test_its_border_sways(sculptor: Sculptor, plain: Person) -> None:
    sway = np.where(TABLE.muscles, 1.5, 0)[:, None].repeat(2, axis=1).astype(np.float32)
    codes = sculptor.person(replace(PLAIN, sway_mm=sway)).codes
    share = float((codes != plain.codes).sum()) / int(volumes(plain.codes)[TABLE.muscles].sum())
    assert 0.02 < share < 0.3


@pytest.mark.parametrize("fat_mm", [4.0, 24.0])
def test_fat_is_as_thick_as_drawn(sculptor: Sculptor, built_in: Anatomy, fat_mm: float) -> None:
    drawn = [replace(PLAIN, seed=seed, fat_mm=(fat_mm, 1.5, 0.5)) for seed in range(4)]  # it varies along the body
    fat = np.mean([sculptor.person(draw).codes.numpy() == FAT for draw in drawn], axis=0)
    for low, high, factor in ((160, 240, 1.0), (400, 600, 1.5), (-60, 20, 0.5)):
        part = slice(*np.searchsorted(levels_mm(built_in), (low, high)))
        outside = built_in.outside_mm[part].astype(np.float32)
        near = (outside > 0) & (outside < 60)
        depth = np.rint(outside[near] / 2).astype(int)
        share = np.bincount(depth, fat[part][near])[1:] / np.bincount(depth)[1:]
        assert 2 * share.sum() == pytest.approx(fat_mm * factor, rel=0.25, abs=1.5)


def test_skin_lies_between_fat_and_air(plain: Person) -> None:
    codes = plain.codes
    assert (codes == SKIN).any()
    for axis in (1, 2):
        one, other = codes.narrow(axis, 0, codes.shape[axis] - 1), codes.narrow(axis, 1, codes.shape[axis] - 1)
        beside = ((one == FAT) & (other == 0)) | ((one == 0) & (other == FAT))
        assert beside.sum() < 0.001 * (codes == SKIN).sum()


def test_each_tissue_attenuates_what_was_drawn(plain: Person) -> None:
    expected = torch.from_numpy(PLAIN.hu)[plain.codes.int()]
    other = (plain.hu - expected).abs() > 1e-3
    assert other.float().mean() < 1e-5, "a streak in a million is there even where none was drawn"
    assert PLAIN.hu[0] == AIR_HU


def test_texture_is_as_strong_as_drawn(sculptor: Sculptor, plain: Person) -> None:
    texture = np.linspace(2, 20, CODES).astype(np.float32)
    textured = sculptor.person(replace(PLAIN, texture_hu=np.where(np.arange(CODES) > 0, texture, 0)))
    change = textured.hu - plain.hu
    for key in ("vastus_lateralis", "gluteus_maximus", "femur", "subcutaneous_fat"):
        code = TABLE.code(key)
        values = change[plain.codes == code]
        assert float(values.std()) == pytest.approx(texture[code], rel=0.1)
        assert abs(float(values.mean())) < 0.1 * texture[code]
    assert (change[plain.codes == 0] == 0).all()


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_fatty_streaks_take_the_share_that_was_drawn(sculptor: Sculptor, plain: Person, share: float) -> None:
    draw = replace(PLAIN, infiltration=np.where(TABLE.muscles, share, 0).astype(np.float32))
    streaked = sculptor.person(draw)
    assert torch.equal(streaked.codes, plain.codes)
    muscle = torch.from_numpy(TABLE.muscles)[plain.codes.int()]
    fatty = ((streaked.hu - plain.hu) / (STREAK_HU - plain.hu))[muscle]
    assert float(fatty.mean()) == pytest.approx(share, rel=0.25)
    assert float(fatty.min()) >= 0 and float(fatty.max()) == pytest.approx(1)
    assert torch.equal(streaked.hu[~muscle], plain.hu[~muscle])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_what_is_drawn_is_possible(seed: int) -> None:
    draw = draw_person(np.random.default_rng(seed))
    muscles = TABLE.muscles
    for only_muscles in (draw.growth, draw.infiltration, draw.sway_mm):
        assert not only_muscles[~muscles].any()
    assert draw.infiltration.min() >= 0 and 0 < draw.infiltration.max() <= 0.45
    assert (np.abs(draw.growth) < 1).all()
    assert 2.5 <= draw.fat_mm[0] <= 38 and 1.2 <= draw.skin_mm <= 2.6
    assert draw.hu[0] == AIR_HU and (draw.texture_hu[0], draw.texture_hu.min()) == (0, 0)
    bone = [draw.hu[TABLE.code("femur", side)] for side in SIDES]
    assert bone[0] == bone[1] > 400
    assert -40 < draw.hu[muscles].mean() < 80


def test_draws_follow_from_the_generator() -> None:
    one, same, other = (draw_person(np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.growth, same.growth)
    assert (one.seed, one.fat_mm, one.gap_mm) == (same.seed, same.fat_mm, same.gap_mm)
    assert one.seed != other.seed


def test_muscles_shrink_with_age_and_no_two_patients_are_alike() -> None:
    draws = [draw_person(np.random.default_rng(seed)) for seed in range(200)]
    means = np.array([draw.growth[TABLE.muscles].mean() for draw in draws])
    assert -0.14 < means.mean() < -0.05 and 0.05 < means.std() < 0.12
    fat = np.log([draw.fat_mm[0] for draw in draws])
    assert fat.std() > 0.6
    right, left = (np.array([draw.growth[TABLE.code("rectus_femoris", side)] for draw in draws]) for side in SIDES)
    assert np.corrcoef(right, left)[0, 1] > 0.6
