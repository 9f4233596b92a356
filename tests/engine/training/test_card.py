"""The model card says what was found, names by rule what failed, and leaves out nothing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers.sample_judgement import judgement

from engine.networks import UnetrShape
from engine.preprocessing import Preprocessing
from engine.training.card import (
    LIMITS,
    CardWords,
    StructureScore,
    TrainingRun,
    failures,
    judgement_csv,
    judgement_json,
    load_words,
    model_card,
    read_judgement,
    training_statement,
)
from engine.training.errors import TrainingError

RUN = TrainingRun(
    network=UnetrShape(16, 256, 1024, 8),
    preprocessing=Preprocessing(-160, 240, 1.0, (2.5, 2.0, 2.0), (96, 96, 96)),
    parameters=13_400_000,
    preset="compact",
    steps=12_000,
    hours=7.25,
    machine="two CPU cores",
)


@pytest.fixture(scope="module")
def words() -> CardWords:
    return load_words("compact")


def test_the_card_tells_use_training_attribution_and_accuracy(words: CardWords) -> None:
    card = model_card(words, "1.0.0", RUN, judgement())
    assert card.startswith(
        "# Model card: compact 1.0.0\n\n**For research, not for diagnosis.** Trained on synthetic CT"
    )
    for told in (
        words.data_in_full,
        "BodyParts3D, (c) The Database Center for Life Science, licensed under CC Attribution-Share Alike 2.1 Japan",
        "12000 steps, 7.2 h on two CPU cores",
        "feature 16, hidden 256, MLP 1024, 8 heads",
        "2.5 x 2 x 2 mm",
        "mean Dice 0.926",
        "| routine | hip to knee, 3 mm | 4 | 0.930 | 0.95 |",
        "| abdomen | no thigh in it | 2 | - | - |",
        "| Sartorius | anterior | 0.840 | 0.410 | 0.90 | 1.01 | 0.980 | 32 |",
        "| Multifidus | else | - | - | - | - | - | 0 |",
        "every structure on its right side",
        "- Two scans of a head: nothing.",
        "On patients all of this is unknown.",
    ):
        assert told in card, told
    assert all(row.display in card for row in judgement().structures)
    assert all(rule in card for rule in (*words.label_rules, *words.limits))


def test_what_failed_is_named_by_rule(words: CardWords) -> None:
    assert dict(failures(judgement())) == {
        "mean Dice below 0.85": ["Sartorius"],
        "Dice below 0.60 in at least one scan": ["Sartorius"],
        "predicted volume more than 10 % off the true one on average": ["Psoas"],
        "no figure at all: shown by none of the scans": ["Multifidus"],
    }
    good = tuple(row for row in judgement().structures if row.key not in ("sartorius", "psoas", "multifidus"))
    flawless = replace(judgement(), structures=good)
    assert failures(flawless) == []
    assert "No structure is beyond a limit of this card" in model_card(words, "1", RUN, flawless)


def test_a_kind_of_scan_that_failed_is_named() -> None:
    found = judgement()
    thick = replace(found.scan_types[0], name="thick", dice_mean=0.8)
    named = dict(failures(replace(found, scan_types=(*found.scan_types, thick))))
    assert named["kinds of scan with a mean Dice below 0.85"] == ["thick"]


def test_wrong_sides_are_told(words: CardWords) -> None:
    found = judgement()
    card = model_card(words, "1", RUN, replace(found, totals=replace(found.totals, wrong_sides=3)))
    assert "3 on the wrong side" in card


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 50), st.floats(0, 3), st.floats(-1, 1))
def test_each_limit_is_a_limit_of_its_own(mean: float, least: float, assd: float, ratio: float, r: float) -> None:
    row = StructureScore("femur", "Femur", "bone", mean, least, assd, ratio, r, 4)
    named = {rule for rule, _ in failures(replace(judgement(), structures=(row,)))}
    beyond = (mean < 0.85, least < 0.6, assd > 2, not 0.9 <= ratio <= 1.1, r < 0.9, False)
    assert named == {limit.words for limit, is_beyond in zip(LIMITS, beyond, strict=True) if is_beyond}


def test_the_statement_has_room_in_every_result(words: CardWords) -> None:
    statement = training_statement(words, RUN, judgement())
    assert statement == (
        "Trained on synthetic CT only, drawn from one anatomy adapted from BodyParts3D and one built from tables, "
        "never on a patient: a UNETR, 12000 steps on two CPU cores. On 16 synthetic scans that it had not seen its "
        "mean Dice is 0.93 and its mean surface distance 0.9 mm; on patients both are unknown."
    )
    whole = f"{words.intended_use}. {statement} {words.attribution}"
    assert len(whole) <= 1024 and whole.isascii() and whole.isprintable()
    assert "not judged" in training_statement(words, RUN, None)


def test_the_tables_hold_what_was_judged(tmp_path: Path) -> None:
    rows = list(csv.DictReader(judgement_csv(judgement()).splitlines()))
    assert len(rows) == 29
    assert (rows[0]["key"], rows[0]["dice_mean"], rows[0]["n"]) == ("sartorius", "0.8400", "32")
    assert rows[26]["dice_mean"] == ""
    path = tmp_path / "judgement.json"
    path.write_text(judgement_json(judgement()), encoding="utf-8")
    assert read_judgement(path) == judgement()
    assert json.loads(path.read_text(encoding="utf-8"))["totals"]["scans"] == 16


@pytest.mark.parametrize("content", [None, "", "{}", '{"structures": 3}'])
def test_what_is_no_judgement_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "judgement.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"judgement\.json"):
        read_judgement(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [('name = "x"', "Field required"), ("name = ", "cannot be read"), ("surprise = 1", "words .*: .*: ")],
)
def test_words_that_leave_something_out_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "words.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=reason):
        load_words(str(path))


def test_unknown_words_are_refused() -> None:
    with pytest.raises(TrainingError, match="nobody"):
        load_words("nobody")
