"""The labels: which structures there are, in which groups, how they are coded, and how sides are numbered."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from importlib.resources import files


class Side(StrEnum):
    """The patient's side."""

    RIGHT = "right"
    LEFT = "left"


BOTH_SIDES = (Side.RIGHT, Side.LEFT)


def side_word(side: Side | None) -> str:
    """A side as it is stored: `right`, `left`, or nothing for a structure that has none."""
    return "" if side is None else side.value


@dataclass(frozen=True)
class Coding:
    """A coded concept of a terminology.

    Attributes:
        scheme: designator of its coding scheme (PS3.16 Table 8-1), as `SCT`; a private one begins with `99`.
        value: its code, as `12595009`.
        meaning: what it means, in the scheme's own words.
    """

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Structure:
    """One structure that the network knows.

    Attributes:
        value: the network's class, 1..n; 0 is background.
        key: stable name in code and SQL, as `vastus_lateralis`.
        display: name for people.
        group: key of its group, as `anterior`; bones are in `bone`.
        paired: whether the body has it on the right and on the left.
        codes: the code by which it goes, then those of other schemes with the same meaning.
        note: what a reader must know where the code does not say it all; mostly empty.
    """

    value: int
    key: str
    display: str
    group: str
    paired: bool = True
    codes: tuple[Coding, ...] = ()
    note: str = ""

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """Right and left, or None alone where it is not paired."""
        return BOTH_SIDES if self.paired else (None,)


@dataclass(frozen=True)
class Segment:
    """One structure on one side, or one that has no side: what a segment of the result is.

    Attributes:
        number: the value in `Segmentation.labels` and the Segment Number of the DICOM SEG. Numbers follow each other
            without a gap (PS3.3 C.8.20.4): where all structures are paired, 2 * value - 1 is the right and 2 * value
            the left; where none is, the number is the value.
        structure: the structure.
        side: the patient's side; None for a structure that is not paired.
    """

    number: int
    structure: Structure
    side: Side | None

    @property
    def display(self) -> str:
        """Name for people, as `Sartorius, left`."""
        return self.structure.display if self.side is None else f"{self.structure.display}, {self.side.value}"


@dataclass(frozen=True)
class LabelSet:
    """A named, ordered set of structures.

    Attributes:
        name: its name, as `thigh29`.
        structures: the structures in the order of their values.
        title: what they are, as the heading of a page, as `Thigh muscles`.
        femur: key of the structure by whose two parts right and left are told; None where no structure has a side.
        least_volume_ml: a structure of less is a mistake of the network and not a finding, ml.
        least_whole_ml: the same of a structure that the scan does not cut off, ml.
    """

    name: str
    structures: tuple[Structure, ...]
    title: str = "Structures"
    femur: str | None = None
    least_volume_ml: float = 0.0
    least_whole_ml: float = 0.0

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Every structure on its sides, in the order of the segment numbers 1..n."""
        pairs = ((structure, side) for structure in self.structures for side in structure.sides)
        return tuple(Segment(number, structure, side) for number, (structure, side) in enumerate(pairs, start=1))

    @property
    def class_count(self) -> int:
        """Channels of the network: the structures and background."""
        return len(self.structures) + 1

    @property
    def has_sides(self) -> bool:
        """Whether any structure is paired."""
        return any(structure.paired for structure in self.structures)

    def structure(self, key: str) -> Structure:
        """The structure of that key; KeyError where there is none."""
        return {structure.key: structure for structure in self.structures}[key]

    def numbers_on(self, side: Side) -> tuple[int, ...]:
        """The segment number of each class, background first, for what lies on a side of the patient."""
        wanted = (segment.number for segment in self.segments if segment.side in (side, None))
        return (0, *wanted)


@cache
def thigh29() -> LabelSet:
    """27 muscles in 5 groups, femur and iliac bone (Kim 2024, Sci Rep 14:3301), from the tables beside this file.

    The rule for `thigh29_codes.csv`: SNOMED CT where its evidence is not `none`, otherwise MDC (ISO/IEEE 11073, PS3.16
    CID 3031), otherwise FMA; the remaining codes are equivalents. The side is never part of a structure's code.
    """
    coded = {row["key"]: row for row in _rows("thigh29_codes.csv")}
    structures = tuple(
        Structure(
            int(row["value"]),
            row["key"],
            row["display"],
            row["group"],
            codes=tuple(_codings(coded[row["key"]])),
            note=coded[row["key"]]["note"],
        )
        for row in _rows("thigh29.csv")
    )
    return LabelSet(
        "thigh29", structures, title="Thigh muscles", femur="femur", least_volume_ml=0.5, least_whole_ml=3.0
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(files("engine").joinpath(name).read_text(encoding="utf-8").splitlines())


def _codings(row: Mapping[str, str]) -> Iterator[Coding]:
    for scheme in ("sct", "mdc", "fma"):
        if row[scheme] and row.get(f"{scheme}_evidence") != "none":
            yield Coding(scheme.upper(), row[scheme], row[f"{scheme}_meaning"])
