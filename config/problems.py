"""What is wrong with a settings file, told so that an administrator can repair it: file, line, reason, remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Key = tuple[str, ...]

_TABLE = re.compile(r"^\s*\[+\s*(?P<name>[^\]]+?)\s*\]+\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(r"^\s*(?P<name>[A-Za-z0-9_\-.\"' ]+?)\s*=")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        source: the file or the environment variable.
        line: 1-based line of the file; None where no line can be named.
        key: the setting, as `section.key`; empty where the whole source is at fault.
        reason: what is wrong.
        remedy: what to write instead.
    """

    source: str
    line: int | None
    key: str
    reason: str
    remedy: str

    @property
    def thing(self) -> str:
        """Source, line and key in one piece."""
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"{place}, {self.key}" if self.key else place

    def __str__(self) -> str:
        return f"{self.thing}: {self.reason}. {self.remedy}"


class SettingsProblem(Exception):  # noqa: N818 - the name that the other folders know
    """The settings cannot be used. `faults` holds every fault; `thing`, `reason` and `remedy` speak of the first."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)

    @property
    def thing(self) -> str:
        """What is affected: source, line and key."""
        return self.faults[0].thing

    @property
    def reason(self) -> str:
        """What is wrong with it."""
        return self.faults[0].reason

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.faults[0].remedy


@dataclass(frozen=True)
class Sources:
    """Where the values came from: the file with its text, and the environment variables by the key that they set."""

    path: Path | None
    text: str
    variables: Mapping[Key, str]


def line_of(text: str, key: Key) -> int | None:
    """The 1-based line of a TOML text that sets a key, or of the closest table around it; None if neither is there."""
    best: tuple[int, int] | None = None
    table: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _parts(header["name"])
            here = table
        elif assignment := _ASSIGNMENT.match(line):
            here = table + _parts(assignment["name"])
        else:
            continue
        if here and key[: len(here)] == here and (best is None or len(here) > best[0]):
            best = len(here), number
    return None if best is None else best[1]


def _parts(dotted: str) -> Key:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def annotation_at(model: type[BaseModel], key: Key) -> Any:
    """The declared type of a setting or section; None if there is none of that name."""
    annotation: Any = model
    for part in key:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(part)
            annotation = None if field is None else field.annotation
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            return None
        while get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
    return annotation


def faults_of(error: ValidationError, model: type[BaseModel], sources: Sources) -> tuple[Fault, ...]:
    """Translate pydantic's errors into faults with a place and a remedy."""
    return tuple(_fault(details, model, sources) for details in error.errors(include_url=False))


def _fault(details: ErrorDetails, model: type[BaseModel], sources: Sources) -> Fault:
    key = tuple(str(part) for part in details["loc"] if part != "[key]")
    reason, remedy = _words(details, model, key)
    above = [name for set_key, name in sources.variables.items() if key[: len(set_key)] == set_key]
    line = line_of(sources.text, key)
    below = [name for set_key, name in sources.variables.items() if line is None and set_key[: len(key)] == key]
    if variables := above + below:
        return Fault(variables[0], None, ".".join(key), reason, remedy)
    return Fault("settings" if sources.path is None else str(sources.path), line, ".".join(key), reason, remedy)


def _words(details: ErrorDetails, model: type[BaseModel], key: Key) -> tuple[str, str]:
    """Reason and remedy of one pydantic error; the value itself is never repeated, for it may hold a password."""
    if details["type"] == "extra_forbidden":
        return "there is no such setting", _nearest(model, key)
    if details["type"] == "missing":
        return "this setting is missing", f"Add {key[-1]}: it has no default."
    message = details["msg"].removeprefix("Value error, ")
    reason, _, remedy = message.partition(". ")
    return reason[:1].lower() + reason[1:], remedy or "See config/vastus.example.toml for every setting."


def _nearest(model: type[BaseModel], key: Key) -> str:
    owner = annotation_at(model, key[:-1])
    known = sorted(owner.model_fields) if isinstance(owner, type) and issubclass(owner, BaseModel) else []
    if close := difflib.get_close_matches(key[-1], known, n=1):
        return f"Did you mean {'.'.join((*key[:-1], close[0]))}?"
    elsewhere = [
        f"{section}.{key[-1]}" for section in model.model_fields if annotation_at(model, (section, key[-1])) is not None
    ]
    if elsewhere and len(key) == 2 and elsewhere[0].split(".")[0] != "destinations":
        return f"Did you mean {elsewhere[0]}?"
    return f"Remove it, or use one of: {', '.join(known)}." if known else "Remove it."
