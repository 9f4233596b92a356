"""Persons of other regions: all background, what a region must hold, the same draw twice."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes, label

from engine.synthesis.anatomy import upright_grid
from engine.synthesis.elsewhere import REGIONS, Elsewhere
from engine.synthesis.person import Person
from engine.synthesis.pose import draw_pose
from engine.synthesis.regions import AIR_INSIDE, OUTSIDE, draw_pieces, pieces
from engine.synthesis.rendering import PosedPerson, segments_of
from engine.synthesis.tissues import CODES, tissue_table

NAMES = list(REGIONS)
BODIES = ("upper", "legs", "arm")
HELD = {
    "head": ("bone", "brain", "white_matter", "liquor", "other_muscle"),
    "neck": ("bone", "vertebra", "artery", "cartilage", "other_muscle"),
    "chest": ("bone", "lung", "heart", "vertebra", "cartilage", "other_muscle"),
    "abdomen": ("bone", "liver", "spleen", "kidney", "vertebra", "bowel", "other_muscle"),
    "lower legs": ("tibia", "fibula", "calf_muscle", "marrow"),
    "arm": ("bone", "other_muscle", "other_spongy"),
}


@cache
def person(name: str, seed: int = 4) -> Person:
    """A person on coarse voxels, because there is little time."""
    return Elsewhere().drawn(name, replace(REGIONS[name], spacing_mm=4.0), np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_it_is_a_structure(name: str) -> None:
    codes = person(name).codes
    assert (codes > 0).any()
    assert not segments_of(codes).any()


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_what_belongs_there_and_tissues_only(name: str) -> None:
    table = tissue_table()
    codes = person(name).codes.numpy()
    for key in (*HELD[name], "skin", "subcutaneous_fat"):
        assert (codes == table.code(key)).any(), key
    assert set(np.unique(codes)) <= {0, *table.codes.values()}


@pytest.mark.parametrize("name", NAMES)
def test_attenuation_is_that_of_the_tissues(name: str) -> None:
    table, here = tissue_table(), person(name)
    assert torch.isfinite(here.hu).all()
    assert float(here.hu[here.codes == 0].max()) < -900
    fat = here.hu[here.codes == table.code("subcutaneous_fat")]
    assert -135 < float(fat.mean()) < -75
    for key in ("bone", "tibia"):
        bone = here.hu[here.codes == table.code(key)]
        assert not len(bone) or float(bone.mean()) > 300


@pytest.mark.parametrize("name", NAMES)
def test_air_surrounds_the_body_on_all_sides_but_above_and_below(name: str) -> None:
    codes = person(name).codes.numpy()
    for axis in (1, 2):
        assert not codes.take([0, -1], axis=axis).any()
    body, _ = label(codes > 0)
    sizes = np.sort(np.bincount(body.ravel())[1:])
    assert sizes[-2:].sum() > 0.9 * sizes.sum()


@pytest.mark.parametrize("name", ["head", "arm"])
def test_the_same_draw_gives_the_same_voxels_and_another_gives_others(name: str) -> None:
    first = person(name)
    again = Elsewhere().drawn(name, replace(REGIONS[name], spacing_mm=4.0), np.random.default_rng(4))
    assert torch.equal(first.codes, again.codes) and torch.equal(first.hu, again.hu)
    other = person(name, seed=5)
    assert other.hu.shape != first.hu.shape or not torch.equal(other.hu, first.hu)


def test_a_region_is_drawn_where_none_is_asked_for() -> None:
    assert sum(region.share for region in REGIONS.values()) == pytest.approx(1)
    here = Elsewhere().person(np.random.default_rng(10))
    assert here.anatomy.name in REGIONS


@pytest.mark.parametrize("name", ["head", "lower legs"])
def test_it_lies_in_the_scanner_as_any_person_does(name: str) -> None:
    here = person(name)
    posed = PosedPerson(here, draw_pose(np.random.default_rng(1)))
    left, front = (float(edge) for edge in here.grid.affine[:2, 3])
    extent = [length * 4.0 for length in here.grid.shape]
    shape = (int(extent[0] / 8), int(extent[1] / 8), int(extent[2] / 8))
    grid = upright_grid(shape, 8.0, (left, front, 0.0))
    hu = posed.attenuation(grid)
    assert not segments_of(posed.codes(grid)).any()
    assert 0.05 < float((hu > -300).float().mean()) < 0.9


def test_levels_begin_at_nought() -> None:
    assert person("abdomen").grid.affine[2, 3] == 0


def test_the_skull_closes_round_the_brain() -> None:
    table = tissue_table()
    codes = person("head").codes.numpy()
    brain = np.isin(codes, [table.code("brain"), table.code("white_matter")])
    skull = np.isin(codes, [table.code("bone"), table.code("other_spongy")])
    levels = np.flatnonzero(brain.any(axis=(1, 2)))
    for level in levels[levels.size * 2 // 3 :]:
        assert not (brain[level] & ~binary_fill_holes(skull[level])).any()


def test_the_chest_has_two_lungs() -> None:
    lungs = (person("chest").codes == tissue_table().code("lung")).numpy()
    x = np.nonzero(lungs)[2]
    middle = lungs.shape[2] // 2
    right, left = (x < middle).sum(), (x > middle).sum()
    assert 0.4 < left / right < 2.0


@pytest.mark.parametrize("body", BODIES)
def test_every_part_of_the_table_is_of_a_known_tissue(body: str) -> None:
    known = {tissue.key for tissue in tissue_table().tissues if not tissue.structure}
    own = {OUTSIDE, AIR_INSIDE, "stomach"}
    for piece in pieces(body):
        assert {piece.tissue, piece.inside, *piece.over} <= known | own, piece.name
        assert 0 < piece.chance <= 1


@pytest.mark.parametrize("body", BODIES)
def test_a_sided_part_is_drawn_on_both_sides(body: str) -> None:
    placed = draw_pieces(body, np.random.default_rng(3), fat_mm=10.0, apart_mm=80.0 * (body == "legs"))
    for piece in pieces(body):
        sides = [each.side for each in placed if each.piece is piece]
        assert sides in ([], [-1, 1] if piece.sided else [0])
    for each in placed:
        low, high = each.bounds_mm()
        if each.side and body == "legs":
            assert each.side * (low[0] + high[0]) > 0


def test_there_are_codes_enough() -> None:
    assert max(tissue_table().codes.values()) < CODES
