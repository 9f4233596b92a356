from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_io.facts import facts_of, stored
from dicom_io.kernels import OwnKernels, Sharpness, sharpness_of
from dicom_io.select import RULES, ContrastPolicy, SelectionRules, SeriesFacts, refusal_of, same_scan, select
from dicom_io.series import SeriesRef
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.volume import Volume

RULES_HERE = SelectionRules(not_descriptions=("*scout*", "*dose*"), not_image_types=("MPR*", "MIP*"))
THIGHS = SeriesFacts(
    series_uid="1.1",
    modality="CT",
    sop_classes=("CT Image Storage",),
    body_part="THIGH",
    description="Thighs 2.0 B30f",
    image_type=("AXIAL", "ORIGINAL", "PRIMARY"),
    maker="SIEMENS",
    kernels=("B30f",),
    contrast=False,
    frame_of_reference="1.9",
    acquisitions=("2",),
    slices=200,
    oblique_deg=0.0,
    spacing_mm=2.0,
    low_mm=0.0,
    high_mm=398.0,
)

# What a series is refused for, and what is changed about one that is taken.
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("secondary_capture", {"sop_classes": ("Secondary Capture Image Storage",), "modality": "CT", "slices": 1}, {}),
    ("not_ct", {"modality": "MR"}, {}),
    ("not_ct", {"modality": ""}, {}),
    ("localizer", {"image_type": ("LOCALIZER", "ORIGINAL", "PRIMARY"), "slices": 2}, {}),
    ("projection", {"image_type": ("DERIVED", "MIP", "SECONDARY")}, {}),
    ("projection", {"image_type": ("DERIVED", "MPR", "SECONDARY")}, {}),
    ("excluded_description", {"description": "Lateral SCOUT"}, {}),
    ("excluded_description", {"protocol": "Dose page"}, {}),
    ("other_description", {"description": "Chest"}, {"descriptions": ("*thigh*", "*leg*")}),
    ("other_body_part", {"body_part": "CHEST"}, {"body_parts": ("*THIGH*", "LEG")}),
    ("too_few_slices", {"slices": 49}, {}),
    ("not_axial", {"oblique_deg": 90.0}, {}),
    ("short_coverage", {"high_mm": 197.0}, {}),
    ("sparse_slices", {"spacing_mm": 12.0}, {}),
    ("contrast_given", {"contrast": True}, {"contrast": ContrastPolicy.ONLY_NONE}),
]
TAKEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"body_part": "CHEST"}, {}),  # body part tags lie
    ({"body_part": ""}, {"body_parts": ("LEG",)}),
    ({"protocol": "Upper Legs"}, {"descriptions": ("*leg*",)}),
    ({"contrast": True}, {}),
    ({"oblique_deg": None, "spacing_mm": None, "low_mm": None, "high_mm": None}, {}),
    ({"oblique_deg": 18.5}, {}),
]


@pytest.mark.parametrize(("code", "changes", "rules"), REFUSED)
def test_what_refuses_a_series_by_itself(code: str, changes: dict[str, Any], rules: dict[str, Any]) -> None:
    refused = refusal_of(replace(THIGHS, **changes), replace(RULES_HERE, **rules))
    assert refused is not None and not refused.selected
    assert refused.code == code and len(refused.reason) > 20 and refused.by


def test_every_rule_is_tried() -> None:
    assert {code for code, *_ in REFUSED} == {code for code, *_ in RULES}


@pytest.mark.parametrize(("changes", "rules"), TAKEN)
def test_what_refuses_nothing(changes: dict[str, Any], rules: dict[str, Any]) -> None:
    assert refusal_of(replace(THIGHS, **changes), replace(RULES_HERE, **rules)) is None


# What is better about the other series of the same scan, and the words for it.
BETTER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("covers more", {"low_mm": 100.0}, {}),
    ("softer kernel", {"kernels": ("B70f",), "spacing_mm": 1.0}, {}),
    ("softer kernel", {"kernels": ("X99",)}, {}),
    ("original images", {"image_type": ("AXIAL", "DERIVED", "SECONDARY"), "spacing_mm": 1.0}, {}),
    ("distance of the slices", {"spacing_mm": 5.0}, {}),
    ("distance of the slices", {"spacing_mm": 0.4}, {"thin_floor_mm": 2.0}),
    ("without contrast", {"contrast": True, "acquisitions": ("3",)}, {"contrast": ContrastPolicy.PREFER_NONE}),
    ("they are alike", {}, {}),
]


@pytest.mark.parametrize(("words", "changes", "rules"), BETTER)
def test_one_series_of_a_scan_is_preferred(words: str, changes: dict[str, Any], rules: dict[str, Any]) -> None:
    worse = replace(THIGHS, series_uid="1.2", **changes)
    decided = select([worse, THIGHS], replace(RULES_HERE, **rules))
    assert decided["1.1"].selected
    loser = decided["1.2"]
    assert (loser.code, loser.winner_uid) == ("not_selected", "1.1")
    assert words in loser.reason and loser.reason.endswith("series 1.1")


def test_the_order_of_the_preferences_is_the_settings() -> None:
    thin_and_sharp = replace(THIGHS, series_uid="1.2", kernels=("B70f",), spacing_mm=1.0)
    assert select([THIGHS, thin_and_sharp], RULES_HERE)["1.1"].selected
    assert select([THIGHS, thin_and_sharp], replace(RULES_HERE, prefer=("thin", "soft")))["1.2"].selected


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"kernels": ("B70f",), "spacing_mm": 1.0, "low_mm": 1.0}, True),
        ({"acquisitions": ()}, True),
        ({"low_mm": 150.0}, True),
        ({"frame_of_reference": "1.10"}, False),
        ({"frame_of_reference": ""}, False),
        ({"contrast": True}, False),
        ({"acquisitions": ("3",)}, False),
        ({"low_mm": 500.0, "high_mm": 900.0}, False),
        ({"low_mm": None}, False),
    ],
)
def test_what_shows_the_same_scan(changes: dict[str, Any], same: bool) -> None:
    other = replace(THIGHS, series_uid="1.2", **changes)
    assert same_scan(THIGHS, other, RULES_HERE) is same is same_scan(other, THIGHS, RULES_HERE)
    assert sum(each.selected for each in select([THIGHS, other], RULES_HERE).values()) == (1 if same else 2)


series = st.builds(
    replace,
    st.just(THIGHS),
    kernels=st.sampled_from([("B30f",), ("B70f",), ()]),
    contrast=st.booleans(),
    spacing_mm=st.sampled_from([0.6, 1.0, 2.0, 5.0, None]),
    low_mm=st.sampled_from([0.0, 100.0, 500.0]),
    high_mm=st.sampled_from([400.0, 900.0]),
    slices=st.sampled_from([10, 100, 200]),
)


@settings(max_examples=40)
@given(st.lists(series, min_size=1, max_size=6), st.sampled_from(ContrastPolicy), st.randoms())
def test_no_decision_depends_on_the_order(study: list[SeriesFacts], contrast: ContrastPolicy, random: Any) -> None:
    study = [replace(each, series_uid=f"1.{number}") for number, each in enumerate(study)]
    rules = replace(RULES_HERE, contrast=contrast)
    decided = select(study, rules)
    random.shuffle(study)
    assert select(study, rules) == decided
    assert set(decided) == {each.series_uid for each in study}
    for each in decided.values():
        assert each.winner_uid is None or decided[each.winner_uid].selected


@pytest.mark.parametrize(
    ("maker", "kernels", "sharpness"),
    [
        ("SIEMENS", ("B30f",), Sharpness.SOFT),
        ("SIEMENS", ("Br40d", "3"), Sharpness.SOFT),
        ("Siemens Healthineers", ("Br64f",), Sharpness.SHARP),
        ("SIEMENS", ("I70f", "3"), Sharpness.SHARP),
        ("GE MEDICAL SYSTEMS", ("STANDARD",), Sharpness.SOFT),
        ("GE MEDICAL SYSTEMS", ("BONEPLUS",), Sharpness.SHARP),
        ("GE MEDICAL SYSTEMS", ("LUNG",), Sharpness.SHARP),
        ("Philips", ("B",), Sharpness.SOFT),
        ("Philips", ("YA",), Sharpness.SHARP),
        ("TOSHIBA", ("FC08",), Sharpness.SOFT),
        ("Canon Medical Systems", ("FC81",), Sharpness.SHARP),
        ("Nobody", ("B30f",), Sharpness.UNKNOWN),
        ("SIEMENS", (), Sharpness.UNKNOWN),
    ],
)
def test_kernels_of_the_makers(maker: str, kernels: tuple[str, ...], sharpness: Sharpness) -> None:
    assert sharpness_of(maker, kernels) is sharpness


def test_a_site_knows_its_kernels_better() -> None:
    own = OwnKernels(soft=("b70*",), sharp=("house-*",))
    assert sharpness_of("SIEMENS", ("B70f",), own) is Sharpness.SOFT
    assert sharpness_of("Nobody", ("HOUSE-1",), own) is Sharpness.SHARP


def test_the_facts_of_a_series_do_not_depend_on_the_order_of_its_files(tmp_path: Path) -> None:
    grid = patient_grid((6, 8, 8), (4.0, 2.0, 2.0), "FFS")

    ref = write_series(Volume(np.zeros(grid.shape, dtype=np.int16), grid), tmp_path, SyntheticStudy(seed=3))
    facts = facts_of(ref)
    assert facts == facts_of(SeriesRef(ref.study_uid, ref.series_uid, ref.files[::-1]))
    assert (facts.slices, facts.spacing_mm, facts.oblique_deg, facts.coverage_mm) == (6, 4.0, 0.0, 24.0)
    assert not {"patient", "name", "birth"} & {word for key in stored(facts) for word in key.split("_")}


def test_a_damaged_file_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.dcm"
    path.write_bytes(b"no DICOM")
    facts = facts_of(SeriesRef("1.2", "1.2.3", (path,)))
    assert facts == SeriesFacts("1.2.3")
    assert refusal_of(facts, RULES_HERE) is not None
