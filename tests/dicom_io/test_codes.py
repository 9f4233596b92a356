"""Codes: every structure has a good one, and none is invented."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes as dictionary
from pydicom.sr.coding import Code

from dicom_io import codes
from dicom_io.codes import StructureCodes, laterality, structure_codes
from dicom_io.errors import DicomIoError
from engine.labels import Side, Structure, thigh29


def all_structure_codes() -> dict[str, StructureCodes]:
    return {structure.key: structure_codes(structure) for structure in thigh29().structures}


# Verhoeff 1969: multiplication in the dihedral group D5 and the permutation by position.
_TIMES = [
    [(i + j) % 5 if i < 5 and j < 5 else (i + j) % 5 + 5 if i < 5 else (i - j) % 5 + 5 if j < 5 else (i - j) % 5
     for j in range(10)]
    for i in range(10)
]  # fmt: skip
_PERMUTATION = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]


def passes_verhoeff(number: str) -> bool:
    check = 0
    for position, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(position % 8):
            value = _PERMUTATION[value]
        check = _TIMES[check][value]
    return check == 0


def test_the_verhoeff_check_knows_good_from_bad() -> None:
    assert passes_verhoeff("2363")  # 236 with its check digit
    assert passes_verhoeff("373098007")
    assert not passes_verhoeff("373098008")
    assert not passes_verhoeff("44530005")  # a public table's wrong id


def test_every_snomed_id_has_its_check_digit() -> None:
    concepts = [code for row in all_structure_codes().values() for code in (row.primary, *row.equivalents)]
    concepts += [value for value in vars(codes).values() if isinstance(value, Code)]
    concepts += codes.LATERALITY.values()
    snomed = [code.value for code in concepts if code.scheme_designator == "SCT"]
    assert len(snomed) >= 22
    assert [value for value in snomed if not passes_verhoeff(value)] == []


def test_every_structure_is_coded_once() -> None:
    rows = all_structure_codes()
    assert len(rows) == 29
    primary = [(row.primary.scheme_designator, row.primary.value) for row in rows.values()]
    assert len(set(primary)) == len(primary)


def test_meanings_fit_their_attribute() -> None:
    meanings = [code.meaning for row in all_structure_codes().values() for code in (row.primary, *row.equivalents)]
    meanings += [value.meaning for value in vars(codes).values() if isinstance(value, Code)]
    assert all(0 < len(meaning) <= 64 and meaning.isascii() for meaning in meanings)
    assert all(0 < len(code.value) <= 16 for row in all_structure_codes().values() for code in (row.primary,))


def test_snomed_goes_before_mdc_and_mdc_before_fma() -> None:
    schemes = {
        key: [code.scheme_designator for code in (row.primary, *row.equivalents)]
        for key, row in all_structure_codes().items()
    }
    assert schemes["sartorius"] == ["SCT", "MDC", "FMA"]
    assert schemes["vastus_medialis"] == ["MDC", "FMA"]
    assert schemes["iliacus"] == ["FMA"]
    order = ["SCT", "MDC", "FMA"]
    assert all(found == sorted(found, key=order.index) for found in schemes.values())


def test_a_wider_code_has_no_equivalents_and_says_so() -> None:
    row = structure_codes(thigh29().structure("abdominal_oblique"))
    assert row.equivalents == ()
    assert "wider" in row.note


def test_mdc_codes_are_those_of_the_standard() -> None:
    known = {code.value for keyword in dictionary.MDC.dir() if (code := getattr(dictionary.MDC, keyword))}
    used = [c.value for row in all_structure_codes().values() for c in (row.primary, *row.equivalents)
            if c.scheme_designator == "MDC"]  # fmt: skip
    assert len(used) >= 20
    assert set(used) <= known


def test_the_table_agrees_with_its_source(shared_data: Path) -> None:
    with (shared_data / "labels" / "thigh29.csv").open(encoding="utf-8") as file:
        source = {row["key"]: row for row in csv.DictReader(file)}
    for key, row in all_structure_codes().items():
        for code in (row.primary, *row.equivalents):
            assert source[key][code.scheme_designator.lower()] == code.value
        if row.primary.scheme_designator == "SCT":
            assert source[key]["sct_evidence"] != "none"


def test_the_side_is_a_modifier() -> None:
    codes_of_femur = structure_codes(thigh29().structure("femur"))
    item = codes_of_femur.concept(Side.LEFT)
    assert item.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert item.EquivalentCodeSequence[0].CodingSchemeDesignator == "FMA"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in codes_of_femur.concept()
    assert laterality(None) is None and laterality(Side.LEFT) == codes.LATERALITY[Side.LEFT]


def test_a_structure_without_a_code_is_refused() -> None:
    with pytest.raises(DicomIoError, match="has no code"):
        structure_codes(Structure(1, "popliteus", "Popliteus", "else"))
