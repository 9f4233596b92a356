"""What the headers of a series say of the patient's body: carried where it can be believed, never made up.

A value outside of what bodies are is not converted: 172 in an attribute in metres may be centimetres, or a slip of the
keyboard. It is withheld, and a flag tells it; so is one that differs between the slices, for nobody knows which is
right.
Nothing here names the patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import FileDataset

from dicom_io.attributes import numbers, text
from dicom_io.guard import QUIETLY
from engine.flags import Flag, flag_of

# Ours: wide enough for newborns and for the tallest and heaviest who were ever measured; narrow enough that no height
# in centimetres, inches or feet, and no weight in grams, lies inside.
HEIGHT_LIMITS_M = (0.3, 2.8)
WEIGHT_LIMITS_KG = (0.5, 650.0)
AGE_LIMITS_YEARS = (0.0, 125.0)
AGE_TOLERANCE_YEARS = 1.0
"""Ours: how far stated age and dates may be apart beyond the rounding of the stated one."""

SEXES = frozenset({"M", "F", "O"})
"""Defined values of Patient's Sex (0010,0040), PS3.3 C.7.1.1."""

DAYS_PER_YEAR = 365.2425  # mean of the Gregorian calendar
# Age String, PS3.5 6.2: nnnD, nnnW, nnnM or nnnY; of each unit, the years.
_AGE_UNITS_YEARS = {"D": 1 / DAYS_PER_YEAR, "W": 7 / DAYS_PER_YEAR, "M": 1 / 12, "Y": 1.0}
_AGE = re.compile(r"(\d{3})([DWMY])")
_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)")  # PS3.5 6.2, DA

Headers = Sequence[FileDataset]


@dataclass(frozen=True)
class PatientAttributes:
    """What is known of the patient's body; None where it is not, or must not be believed.

    Attributes:
        height_m: Patient's Size (0010,1020).
        weight_kg: Patient's Weight (0010,1030).
        sex: Patient's Sex (0010,0040), `M`, `F` or `O`.
        age_years: Patient's Age (0010,1010); where there is none, from birth date and study date.
        flags: what was withheld, and why: `height_implausible`, `weight_implausible`, `age_conflict`.
    """

    height_m: float | None
    weight_kg: float | None
    sex: str | None
    age_years: float | None
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class _Quantity:
    """A decimal attribute of the patient: its keyword, name, unit (words and UCUM code alike) and limits."""

    keyword: str
    name: str
    unit: str
    limits: tuple[float, float]
    code: str


_HEIGHT = _Quantity("PatientSize", "height", "m", HEIGHT_LIMITS_M, "height_implausible")
_WEIGHT = _Quantity("PatientWeight", "weight", "kg", WEIGHT_LIMITS_KG, "weight_implausible")


def patient_attributes(headers: Headers) -> PatientAttributes:
    """Height, weight, sex and age from the headers of one series.

    Args:
        headers: of all its slices; at least one.
    """
    with QUIETLY:
        height_m, of_height = _quantity(headers, _HEIGHT)
        weight_kg, of_weight = _quantity(headers, _WEIGHT)
        age_years, of_age = _age(headers)
        sexes = _told(headers, "PatientSex")
    sex = next(iter(sexes)) if len(sexes) == 1 else ""
    flags = tuple(flag for flag in (of_height, of_weight, of_age) if flag is not None)
    return PatientAttributes(height_m, weight_kg, sex if sex in SEXES else None, age_years, flags)


def _told(headers: Headers, keyword: str) -> set[str]:
    """The values that the slices state; a slice that states none contradicts nobody."""
    return {text(header, keyword).strip() for header in headers} - {""}


def _quantity(headers: Headers, quantity: _Quantity) -> tuple[float | None, Flag | None]:
    stated = [header for header in headers if _states(header, quantity.keyword)]
    found = {numbers(header, quantity.keyword, 1) for header in stated}
    if not found:
        return None, None
    begin = f"The patient's {quantity.name} as the images state it"
    if None in found:
        return None, flag_of(quantity.code, f"{begin} is no decimal number and is not used")
    values = sorted(value for each in found if each is not None for value in each)
    low, high = quantity.limits
    if len(values) > 1:
        words = f"{begin} differs between them, from {values[0]:g} to {values[-1]:g} {quantity.unit}, and is not used"
        return None, flag_of(quantity.code, words, values[-1])
    if not low <= values[0] <= high:
        words = f"{begin}, {values[0]:g} {quantity.unit}, is not between {low:g} and {high:g} {quantity.unit}: not used"
        return None, flag_of(quantity.code, words, values[0])
    return values[0], None


def _states(header: FileDataset, keyword: str) -> bool:
    """Whether the attribute has a value, readable or not."""
    return keyword in header and header.get_item(keyword).value not in (None, b"", "")


def _age(headers: Headers) -> tuple[float | None, Flag | None]:
    ages, births, studies = (_told(headers, each) for each in ("PatientAge", "PatientBirthDate", "StudyDate"))
    if len(ages) > 1:
        return None, flag_of("age_conflict", "The patient's age differs between the images and is not used")
    stated = _stated_age(next(iter(ages), ""))
    reckoned = _reckoned_age(births, studies)
    if stated is not None and reckoned is not None:
        apart = max(stated[0] - reckoned, reckoned - stated[1], 0.0)
        if apart > AGE_TOLERANCE_YEARS:
            words = (
                f"The patient's age as stated and the one from birth date to study are {apart:.1f} years further apart "
                "than rounding explains; neither is used"
            )
            return None, flag_of("age_conflict", words, round(apart, 1))
    years = stated[0] if stated is not None else reckoned
    low, high = AGE_LIMITS_YEARS
    if years is not None and not low <= years <= high:
        return None, flag_of("age_conflict", f"The patient's age is not between {low:g} and {high:g} years: not used")
    return years, None


def _stated_age(stated: str) -> tuple[float, float] | None:
    """An Age String in years, and where the next one begins: 071Y is said until the day before the 72nd birthday."""
    match = _AGE.fullmatch(stated)
    if match is None:
        return None
    unit = _AGE_UNITS_YEARS[match[2]]
    return int(match[1]) * unit, (int(match[1]) + 1) * unit


def _reckoned_age(births: set[str], studies: set[str]) -> float | None:
    """Years from birth to study; None unless each has one date."""
    if len(births) != 1 or len(studies) != 1:
        return None
    birth, study = _date(births.pop()), _date(studies.pop())
    return None if birth is None or study is None else (study - birth).days / DAYS_PER_YEAR


def _date(stated: str) -> date | None:
    match = _DATE.fullmatch(stated)
    try:
        return None if match is None else date(*map(int, match.groups()))
    except ValueError:  # as 20260230
        return None
