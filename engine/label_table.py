"""The table of a label set as a package brings it: one JSON file, checked before anything of it is used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from engine.errors import ModelError
from engine.labels import Coding, LabelSet, Structure

MOST_SEGMENTS = 255
"""Labels are bytes."""
FEMORA, NONE = "femora", "none"

Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
# The lengths of DICOM: SH 16 and LO 64 characters (PS3.5 6.2), and one value alone, hence no backslash.
Short = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$")
]
Long = Annotated[str, StringConstraints(pattern=r"^[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$", max_length=64)]
Note = Annotated[str, StringConstraints(pattern=r"^[\x20-\x5b\x5d-\x7e]*$", max_length=1024)]
Display = Annotated[str, StringConstraints(pattern=r"^[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$", max_length=48)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Coding(_Row):
    scheme: Short
    value: Short
    meaning: Long


class _Structure(_Row):
    value: int = Field(ge=1)
    key: Key
    display: Display
    group: Key
    paired: bool
    codes: tuple[_Coding, ...] = Field(min_length=1)
    note: Note = ""


class _Sides(_Row):
    by: Literal["femora", "none"]
    femur: Key | None = None


class _Table(_Row):
    title: Display
    sides: _Sides
    least_volume_ml: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    least_whole_ml: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    structures: tuple[_Structure, ...] = Field(min_length=1)


def label_table(label_set: LabelSet) -> str:
    """A label set as the text of its file."""
    sides = {"by": NONE} if label_set.femur is None else {"by": FEMORA, "femur": label_set.femur}
    table: dict[str, Any] = {
        "title": label_set.title,
        "sides": sides,
        "least_volume_ml": label_set.least_volume_ml,
        "least_whole_ml": label_set.least_whole_ml,
        "structures": [asdict(structure) for structure in label_set.structures],
    }
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def read_label_table(path: Path, name: str) -> LabelSet:
    """Read and check the label set of a package.

    Args:
        path: the file, as `label_table` wrote it.
        name: the label set's name.

    Raises:
        ModelError: the file cannot be read, or is not the table of a label set.
    """
    remedy = "Write the package anew with a label set that holds together"
    try:
        table = _Table.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"file {path}", f"it cannot be read ({error.strerror})", "Copy the package again") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"file {path}", f"it is no table of labels: {where}: {first['msg']}", remedy) from error
    structures = tuple(
        Structure(
            row.value,
            row.key,
            row.display,
            row.group,
            row.paired,
            tuple(Coding(code.scheme, code.value, code.meaning) for code in row.codes),
            row.note,
        )
        for row in table.structures
    )
    least = (table.least_volume_ml, table.least_whole_ml)
    label_set = LabelSet(name, structures, table.title, table.sides.femur, *least)
    for fault in _faults(label_set, table.sides):
        raise ModelError(f"file {path}", fault, remedy)
    return label_set


def _faults(label_set: LabelSet, sides: _Sides) -> Iterator[str]:
    """What does not hold together, in words."""
    structures = label_set.structures
    values = [structure.value for structure in structures]
    if values != list(range(1, len(values) + 1)):
        yield f"its values are {values}, and should be 1 to {len(values)} in this order"
    if twice := _twice(structure.key for structure in structures):
        yield f"the key {twice} stands there twice"
    primary = (f"{structure.codes[0].scheme} {structure.codes[0].value}" for structure in structures)
    if twice := _twice(primary):
        yield f"two structures go by the code {twice}"
    if len(label_set.segments) > MOST_SEGMENTS:
        yield f"it has {len(label_set.segments)} segments, and a byte holds {MOST_SEGMENTS}"
    if (sides.by == FEMORA) != (sides.femur is not None):
        yield "sides that are told by the femora name one structure as `femur`, others none"
    paired = {structure.key for structure in structures if structure.paired}
    if sides.by == NONE and paired:
        yield f"{min(paired)} is paired, but sides are not told"
    if sides.femur is not None and sides.femur not in paired:
        yield f"sides are told by {sides.femur}, which is no paired structure of it"


def _twice(words: Iterable[str]) -> str | None:
    return next((word for word, count in Counter(words).items() if count > 1), None)
