from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flat_model import TISSUES

from engine.errors import ModelError
from engine.label_table import label_table, read_label_table
from engine.labels import LabelSet, Side, Structure, thigh29

MIXED = LabelSet(
    "mixed",
    (
        replace(TISSUES.structures[0], paired=True),
        TISSUES.structures[1],
        replace(TISSUES.structures[2], paired=True),
    ),
    femur="bone",
)


@pytest.mark.parametrize("label_set", [TISSUES, MIXED, thigh29()], ids=lambda label_set: str(label_set.name))
def test_what_is_written_is_read(label_set: LabelSet, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(label_table(label_set), encoding="utf-8")
    assert read_label_table(path, label_set.name) == label_set


def test_numbers_follow_each_other_and_an_unpaired_structure_has_one() -> None:
    assert [(each.number, each.structure.key, each.side) for each in MIXED.segments] == [
        (1, "fat", Side.RIGHT),
        (2, "fat", Side.LEFT),
        (3, "muscle", None),
        (4, "bone", Side.RIGHT),
        (5, "bone", Side.LEFT),
    ]
    assert (MIXED.numbers_on(Side.RIGHT), MIXED.numbers_on(Side.LEFT)) == ((0, 1, 3, 4), (0, 2, 3, 5))
    assert [each.display for each in MIXED.segments[1:3]] == ["Fat, left", "Muscle"]


def test_a_set_without_sides_is_numbered_by_its_values() -> None:
    assert [(each.number, each.side) for each in TISSUES.segments] == [(1, None), (2, None), (3, None)]
    assert not TISSUES.has_sides


def test_a_set_of_pairs_has_odd_numbers_on_the_right() -> None:
    for segment in thigh29().segments:
        assert segment.number == 2 * segment.structure.value - (segment.side is Side.RIGHT)


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table["structures"]
    return rows


def _same_code(table: dict[str, Any]) -> None:
    _rows(table)[1]["codes"] = _rows(table)[0]["codes"]


def _many(table: dict[str, Any]) -> None:
    first = _rows(table)[0]
    table["structures"] = [
        {
            **first,
            "value": number,
            "key": f"k{number}",
            "codes": [{"scheme": "99X", "value": str(number), "meaning": "m"}],
        }
        for number in range(1, 257)
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: _rows(table)[0].update(value=2), r"values are \[2, 2, 3\]"),
        (lambda table: _rows(table)[1].update(key="fat"), "the key fat stands there twice"),
        (_same_code, "go by the code 99TISSUES FAT"),
        (lambda table: _rows(table)[0].update(codes=[]), "structures.0.codes"),
        (lambda table: _rows(table)[0]["codes"][0].update(value="12345678901234567"), "structures.0.codes.0.value"),
        (lambda table: _rows(table)[0]["codes"][0].update(meaning="a\\b"), "structures.0.codes.0.meaning"),
        (lambda table: _rows(table)[0].update(display="Fettgewebe, größer"), "structures.0.display"),
        (lambda table: _rows(table)[0].update(paired=True), "fat is paired, but sides are not told"),
        (lambda table: table.update(sides={"by": "femora"}), "name one structure as `femur`"),
        (lambda table: table.update(sides={"by": "femora", "femur": "bone"}), "told by bone, which is no paired"),
        (lambda table: table.update(sides={"by": "liver"}), "sides.by"),
        (lambda table: table.update(least_volume_ml=-1), "least_volume_ml"),
        (lambda table: table.update(surprise=1), "surprise"),
        (_many, "256 segments"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(
    change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path
) -> None:
    table = json.loads(label_table(TISSUES))
    change(table)
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ModelError, match=reason) as refused:
        read_label_table(path, "tissues3")
    assert refused.value.remedy


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_label_table(tmp_path / "labels.json", "none")


def test_a_structure_without_a_side_has_no_second_number() -> None:
    assert Structure(1, "spine", "Spine", "bone", paired=False).sides == (None,)
