from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from dicom_io.guard import QUIETLY
from dicom_io.patient import HEIGHT_LIMITS_M, WEIGHT_LIMITS_KG, PatientAttributes, patient_attributes
from engine.flags import FLAG_KINDS

NAME = "Doe^Jane"


def headers(*slices: dict[str, Any]) -> tuple[FileDataset, ...]:
    """Headers that state these attributes."""
    made = []
    for stated in slices:
        header = FileDataset("", Dataset())
        header.PatientName = NAME
        with QUIETLY:
            for keyword, value in stated.items():
                setattr(header, keyword, value)
        made.append(header)
    return tuple(made)


def of(*slices: dict[str, Any]) -> PatientAttributes:
    return patient_attributes(headers(*slices))


def codes(found: PatientAttributes) -> list[str]:
    """The codes of the flags, each of which is well formed and names nobody."""
    for flag in found.flags:
        assert flag.unit == FLAG_KINDS[flag.code].unit
        assert "Doe" not in flag.words and "19500102" not in flag.words and flag.words
    return [flag.code for flag in found.flags]


def test_what_is_plausible_is_carried() -> None:
    stated = {"PatientSize": "1.72", "PatientWeight": "68.5", "PatientSex": "F", "PatientAge": "071Y"}
    assert of(stated, stated) == PatientAttributes(1.72, 68.5, "F", 71.0)


def test_what_is_not_stated_is_not_known() -> None:
    empty = {"PatientSize": None, "PatientWeight": "", "PatientSex": "", "PatientAge": "", "PatientBirthDate": ""}
    assert of({}) == of(empty) == PatientAttributes(None, None, None, None)


@pytest.mark.parametrize("stated", ["172", "0", "5.8", "68", "-1.7", "17.2"])
def test_a_height_that_is_none_is_withheld_and_told(stated: str) -> None:
    found = of({"PatientSize": stated, "PatientWeight": "70"})
    assert (found.height_m, found.weight_kg, codes(found)) == (None, 70.0, ["height_implausible"])
    assert found.flags[0].number == float(stated)
    assert stated in found.flags[0].words


@pytest.mark.parametrize("stated", ["0", "70000", "-70", "999"])
def test_a_weight_that_is_none_is_withheld_and_told(stated: str) -> None:
    found = of({"PatientSize": "1.7", "PatientWeight": stated})
    assert (found.height_m, found.weight_kg, codes(found)) == (1.7, None, ["weight_implausible"])
    assert found.flags[0].number == float(stated)


@given(st.floats(0.01, 3000))
def test_no_height_is_ever_converted(height: float) -> None:
    stated = f"{height:.6g}"
    found = of({"PatientSize": stated})
    inside = HEIGHT_LIMITS_M[0] <= float(stated) <= HEIGHT_LIMITS_M[1]
    assert found.height_m == (float(stated) if inside else None)
    assert bool(found.flags) != inside


def test_the_limits_hold_apart_the_units_that_are_mixed_up() -> None:
    low, high = HEIGHT_LIMITS_M
    assert all(not low <= height <= high for height in (30, 280, 12, 110, 3, 9.2))  # cm, inches, feet
    assert WEIGHT_LIMITS_KG[1] < 2 * 1000 * WEIGHT_LIMITS_KG[0]  # the lightest in grams is no weight in kilograms


@pytest.mark.parametrize(
    ("keyword", "two", "code"),
    [
        ("PatientSize", ("1.70", "1.72"), "height_implausible"),
        ("PatientWeight", ("70", "71"), "weight_implausible"),
        ("PatientAge", ("071Y", "072Y"), "age_conflict"),
    ],
)
def test_what_differs_between_slices_is_withheld_and_told(keyword: str, two: tuple[str, str], code: str) -> None:
    found = of(*({keyword: value} for value in two))
    assert (found.height_m, found.weight_kg, found.age_years, codes(found)) == (None, None, None, [code])


def test_equal_numbers_written_in_two_ways_do_not_differ_nor_does_silence() -> None:
    assert of({"PatientSize": "1.70"}, {"PatientSize": "1.7"}, {}) == PatientAttributes(1.7, None, None, None)


def test_sexes_that_differ_or_that_the_standard_does_not_know_are_withheld() -> None:
    assert of({"PatientSex": "F"}, {"PatientSex": "M"}).sex is None
    assert of({"PatientSex": "W"}).sex is None
    assert [of({"PatientSex": sex}).sex for sex in "MFO"] == ["M", "F", "O"]


@pytest.mark.parametrize("stated", [b"1,72", b"1.72 m", b"tall"])
def test_a_height_that_is_no_number_is_told(stated: bytes, tmp_path: Path) -> None:
    header = headers({"PatientSize": "1.72"})[0]
    header.save_as(tmp_path / "h.dcm", implicit_vr=False, little_endian=True)
    content = (tmp_path / "h.dcm").read_bytes()
    padded = stated + b" " * (len(stated) % 2)
    (tmp_path / "h.dcm").write_bytes(content.replace(b"DS\x04\x001.72", b"DS" + bytes([len(padded), 0]) + padded))
    found = patient_attributes([dcmread(tmp_path / "h.dcm", force=True)])
    assert (found.height_m, codes(found), found.flags[0].number) == (None, ["height_implausible"], None)


@pytest.mark.parametrize(
    ("stated", "years"), [("071Y", 71.0), ("018M", 1.5), ("026W", 0.498), ("010D", 0.027), ("71", None), ("71Y", None)]
)
def test_an_age_string_is_read_in_its_unit(stated: str, years: float | None) -> None:
    found = of({"PatientAge": stated})
    assert found.age_years == (None if years is None else pytest.approx(years, abs=0.001))
    assert codes(found) == []


@pytest.mark.parametrize(
    ("birth", "study", "years"),
    [
        ("19500102", "20260102", 76.0),
        ("19500102", "20260703", 76.5),
        ("195001", "20260102", None),
        ("19500230", "20260102", None),
        ("", "20260102", None),
        ("19500102", "", None),
    ],
)
def test_without_an_age_the_dates_tell_it(birth: str, study: str, years: float | None) -> None:
    found = of({"PatientBirthDate": birth, "StudyDate": study})
    assert found.age_years == (None if years is None else pytest.approx(years, abs=0.003))
    assert codes(found) == []


@pytest.mark.parametrize(
    ("stated", "agrees"), [("071Y", True), ("070Y", True), ("072Y", True), ("069Y", False), ("074Y", False)]
)
def test_an_age_that_its_dates_contradict_is_withheld_and_told(stated: str, agrees: bool) -> None:
    found = of({"PatientAge": stated, "PatientBirthDate": "19550101", "StudyDate": "20260701"})  # 71.5 years
    assert found.age_years == (float(stated[:3]) if agrees else None)
    assert codes(found) == ([] if agrees else ["age_conflict"])


@pytest.mark.parametrize("birth", ["20270101", "18500101"])
def test_an_age_that_nobody_has_is_withheld_and_told(birth: str) -> None:
    found = of({"PatientBirthDate": birth, "StudyDate": "20260701"})
    assert (found.age_years, codes(found)) == (None, ["age_conflict"])
