"""The table of tissues: every code once, and what each means to the truth."""

from __future__ import annotations

import numpy as np
import pytest

from engine.labels import Side, thigh29
from engine.synthesis.tissues import AIR, CODES, FIRST_CONTEXT, SIDES, Tissue, tissue_table

TISSUES = tissue_table().tissues
TISSUE = pytest.mark.parametrize("tissue", TISSUES, ids=lambda tissue: tissue.key)


def test_no_code_has_two_meanings() -> None:
    found: dict[int, str] = {}
    for tissue in TISSUES:
        for side in SIDES if tissue.sided else SIDES[:1]:
            code = tissue_table().code(tissue.key, side)
            assert code not in found, f"{tissue.key} and {found[code]}"
            found[code] = tissue.key
    assert AIR not in found and max(found) < CODES


def test_the_structures_are_those_of_the_label_set() -> None:
    assert [tissue.key for tissue in TISSUES if tissue.structure] == [each.key for each in thigh29().structures]


def test_structures_are_numbered_as_in_every_result() -> None:
    table = tissue_table()
    for segment in thigh29().segments:
        assert segment.side is not None and table.code(segment.structure.key, segment.side) == segment.number
        assert table.truth[segment.number] == segment.number


@TISSUE
def test_context_stands_behind_the_segments(tissue: Tissue) -> None:
    codes = {tissue_table().code(tissue.key, side) for side in SIDES}
    assert len(codes) == 1 + tissue.sided
    assert (min(codes) >= FIRST_CONTEXT > len(thigh29().segments)) != tissue.structure


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("inside", "bone"), [("femur_spongy", "femur"), ("femur_marrow", "femur"), ("ilium_spongy", "ilium")]
)
def test_the_inside_of_a_bone_is_the_bone_to_the_truth(inside: str, bone: str, side: Side) -> None:
    table = tissue_table()
    assert table.truth[table.code(inside, side)] == table.code(bone, side)


def test_all_else_is_background_to_the_truth() -> None:
    table = tissue_table()
    known = {table.code(tissue.key, side) for tissue in TISSUES for side in SIDES if tissue.part_of}
    assert set(np.flatnonzero(table.truth).tolist()) == known
    assert {tissue.key for tissue in TISSUES if tissue.part_of and not tissue.structure} == {
        "femur_spongy",
        "femur_marrow",
        "ilium_spongy",
    }


def test_mirrored_is_its_own_inverse() -> None:
    mirrored = tissue_table().mirrored
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(CODES))


@TISSUE
def test_mirrored_swaps_sides(tissue: Tissue) -> None:
    table = tissue_table()
    right, left = (table.code(tissue.key, side) for side in SIDES)
    assert table.mirrored[right] == left and table.mirrored[left] == right
    assert (right != left) == tissue.sided


def test_the_truth_of_the_mirror_image_is_the_mirror_image_of_the_truth() -> None:
    table = tissue_table()
    np.testing.assert_array_equal(table.truth[table.mirrored], table.mirrored[table.truth])


def test_muscles_are_the_structures_but_bones() -> None:
    table = tissue_table()
    bones = {table.code(key, side) for key in ("femur", "ilium") for side in SIDES}
    assert set(np.flatnonzero(table.muscles).tolist()) == set(range(1, 59)) - bones


def test_is_one_of_means_both_sides() -> None:
    table = tissue_table()
    found = np.flatnonzero(table.is_one_of("artery", "bladder")).tolist()
    assert found == sorted({table.code("artery", side) for side in SIDES} | {table.code("bladder")})
    with pytest.raises(KeyError):
        table.is_one_of("gill")


@TISSUE
def test_attenuation_is_that_of_a_body(tissue: Tissue) -> None:
    assert -900 < tissue.hu_mean < 2500  # lung to tooth
    assert 0 < tissue.hu_sd_between <= 300 and 0 < tissue.hu_sd_texture <= 200


def test_fat_is_darker_than_muscle_and_bone_brighter() -> None:
    mean = {tissue.key: tissue.hu_mean for tissue in TISSUES}
    bones = {tissue.key for tissue in TISSUES if tissue.key.endswith("_spongy")} | {"femur", "ilium", "sacrum"}
    fat = {"subcutaneous_fat", "intermuscular_fat", "visceral_fat"}
    muscles = {each.key for each in thigh29().structures} - {"femur", "ilium"}
    assert max(mean[key] for key in fat) < -80 < 30 < min(mean[key] for key in muscles)
    assert max(mean[key] for key in muscles) < 60 < 120 < min(mean[key] for key in bones)
