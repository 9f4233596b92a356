"""The flags in the report: items of Qualitative Evaluations, and what a receiver finds in them.

TID 1500 is extensible: each flag is a CODE, what limits the fitness for measurement, with the policy, a sentence and
the number as its properties. The Standard has no codes for these, so they are of our own scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import highdicom as hd
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io.codes import (
    FITNESS_FLAG,
    FLAG_NUMBER,
    FLAG_POLICY,
    FLAG_UNITS,
    FLAG_WORDS,
    POLICY_CODES,
    PRIVATE_SCHEME,
    QUALITATIVE_EVALUATIONS,
)
from dicom_io.errors import DicomIoError, NotUnderstood
from engine.flags import FLAG_KINDS, Flag, Policy, RaisedFlag

NUMBER_DECIMALS = 3
"""As in `dicom_io.findings`: it always fits the 16 characters of a decimal string (PS3.5 6.2)."""
_PROPERTIES = hd.sr.RelationshipTypeValues.HAS_PROPERTIES
_POLICY_OF: Mapping[str, Policy] = MappingProxyType({code.value: policy for policy, code in POLICY_CODES.items()})


def flag_code(code: str) -> Code:
    """The concept of a kind of flag; KeyError where there is no such kind."""
    return Code(code, PRIVATE_SCHEME, FLAG_KINDS[code].what)


def flag_items(raised: Sequence[RaisedFlag]) -> list[hd.sr.ContentItem]:
    """The items of the flags, in their order.

    Raises:
        DicomIoError: a flag has a unit that has no code here.
    """
    return [_item(each) for each in raised]


def read_flags(path: Path) -> tuple[RaisedFlag, ...]:
    """The flags of a report written by `dicom_io.sr`, in its order.

    Raises:
        NotUnderstood: a flag is of another form or kind.
    """
    found: list[RaisedFlag] = []
    for container in dcmread(path).get("ContentSequence", ()):
        if _name(container) == QUALITATIVE_EVALUATIONS.value:
            items = (item for item in container.ContentSequence if _name(item) == FITNESS_FLAG.value)
            found.extend(_read(item, path) for item in items)
    return tuple(found)


def _item(raised: RaisedFlag) -> hd.sr.ContentItem:
    flag = raised.flag
    item = hd.sr.CodeContentItem(
        name=FITNESS_FLAG, value=flag_code(flag.code), relationship_type=hd.sr.RelationshipTypeValues.CONTAINS
    )
    item.ContentSequence = hd.sr.ContentSequence(list(_properties(raised)))
    return item


def _properties(raised: RaisedFlag) -> Iterator[hd.sr.ContentItem]:
    flag = raised.flag
    policy = POLICY_CODES[raised.policy]
    yield hd.sr.CodeContentItem(name=FLAG_POLICY, value=policy, relationship_type=_PROPERTIES)
    yield hd.sr.TextContentItem(name=FLAG_WORDS, value=flag.words, relationship_type=_PROPERTIES)
    if flag.number is None:
        return
    unit = FLAG_UNITS.get(flag.unit)
    if unit is None:
        raise DicomIoError(f"flag {flag.code}", f"its unit {flag.unit!r} has no code", "Add it to dicom_io/codes.py")
    number = round(float(flag.number), NUMBER_DECIMALS) + 0.0
    yield hd.sr.NumContentItem(name=FLAG_NUMBER, value=number, unit=unit, relationship_type=_PROPERTIES)


def _read(item: Dataset, path: Path) -> RaisedFlag:
    properties = {_name(each): each for each in item.get("ContentSequence", ())}
    try:
        code = _value(item.ConceptCodeSequence[0])
        policy = _POLICY_OF[_value(properties[FLAG_POLICY.value].ConceptCodeSequence[0])]
        words = str(properties[FLAG_WORDS.value].TextValue)
        kind = FLAG_KINDS[code]
    except (AttributeError, KeyError) as error:
        reason = "it holds a flag of an unknown kind or form"
        raise NotUnderstood(f"report {path.name}", reason, "Read it with the version that wrote it") from error
    number = properties.get(FLAG_NUMBER.value)
    if number is None:
        return RaisedFlag(Flag(code, words, None, kind.unit), policy)
    measured = number.MeasuredValueSequence[0]
    unit = _value(measured.MeasurementUnitsCodeSequence[0])
    return RaisedFlag(Flag(code, words, float(measured.NumericValue), unit), policy)


def _name(item: Dataset) -> str:
    return _value(item.ConceptNameCodeSequence[0])


def _value(code: Dataset) -> str:
    """Code Value, or Long Code Value where it has more than 16 characters (PS3.3 8.1)."""
    return str(code.get("CodeValue") or code.get("LongCodeValue"))
