"""What may leave through the log: no patient's name, no plain id, no dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import PurePath
from typing import Any

from engine.errors import VastusError

WITHHELD = "[withheld]"

# Attributes that identify a patient (PS3.15 Table E.1-1), spelt without underscores and in lower case.
FORBIDDEN_KEYS = frozenset(
    {
        "accessionnumber",
        "otherpatientids",
        "otherpatientnames",
        "patient",
        "patientaddress",
        "patientbirthdate",
        "patientbirthname",
        "patientcomments",
        "patientid",
        "patientmothersbirthname",
        "patientname",
        "patientsbirthdate",
        "patientsid",
        "patientsname",
        "patienttelephonenumbers",
    }
)

# Libraries that quote the values of attributes in their messages.
QUOTING_LOGGERS = ("pydicom", "pynetdicom", "highdicom", "py.warnings")

# From the first opening quote to the last quote of the line: a lone apostrophe or a cut never uncovers a value.
_QUOTED = re.compile(r"(?<![A-Za-z])[bur]?['\"](?:.*['\"]|.*)")
_PLAIN = (str, int, float, bool, type(None))


def clean(value: Any) -> Any:
    """A value fit for the log: plain types as they are, paths and times as text, all else as the name of its type."""
    if isinstance(value, Mapping):
        return {str(key): WITHHELD if is_forbidden(str(key)) else clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(inner) for inner in value]
    if isinstance(value, BaseException):
        return words_of(value)
    if isinstance(value, PurePath | datetime | date | time):
        return str(value)
    # Enumerations of text and pydicom's UID are `str`; pydicom's PersonName is not, and so is withheld with the rest.
    if isinstance(value, str):
        return str(value)
    return value if isinstance(value, _PLAIN) else f"<{type(value).__name__}>"


def is_forbidden(key: str) -> bool:
    """Whether a key names something that identifies a patient, however it is spelt."""
    return re.sub(r"[^a-z]", "", key.lower()) in FORBIDDEN_KEYS


def words_of(error: BaseException) -> str:
    """An error in one line: its type and first line; quotations are withheld unless the words are ours."""
    words = str(error)
    if not isinstance(error, VastusError | OSError):
        words = without_quotations(words)
    return f"{type(error).__name__}: {first_line(words)}".rstrip(": ")


def first_line(text: str, longest: int = 400) -> str:
    """The first line that is not empty, cut to a length in characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= longest else line[: longest - 1] + "…"


def without_quotations(text: str) -> str:
    """A library's message with everything in quotes withheld, for a quotation may be a patient's name."""
    return _QUOTED.sub(WITHHELD, text)
