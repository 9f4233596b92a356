"""The labels: which structures there are, in which groups, and how sides are numbered."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from importlib.resources import files


class Side(StrEnum):
    """The patient's side."""

    RIGHT = "right"
    LEFT = "left"


@dataclass(frozen=True)
class Structure:
    """One structure that the network knows.

    Attributes:
        value: the network's class, 1..n; 0 is background.
        key: stable name in code and SQL, as `vastus_lateralis`.
        display: name for people.
        group: key of its group, as `anterior`; bones are in `bone`.
    """

    value: int
    key: str
    display: str
    group: str


@dataclass(frozen=True)
class Segment:
    """One structure on one side: what a segment of the result is.

    Attributes:
        number: 2 * structure.value - 1 on the right, 2 * structure.value on the left; it is the value in
            `Segmentation.labels` and the Segment Number of the DICOM SEG.
    """

    number: int
    structure: Structure
    side: Side

    @property
    def display(self) -> str:
        """Name for people, as `Sartorius, left`."""
        return f"{self.structure.display}, {self.side.value}"


@dataclass(frozen=True)
class LabelSet:
    """A named, ordered set of structures."""

    name: str
    structures: tuple[Structure, ...]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Every structure on both sides, in the order of the segment numbers 1..2n."""
        return tuple(
            Segment(2 * structure.value - (side is Side.RIGHT), structure, side)
            for structure in self.structures
            for side in (Side.RIGHT, Side.LEFT)
        )

    @property
    def class_count(self) -> int:
        """Channels of the network: the structures and background."""
        return len(self.structures) + 1

    def structure(self, key: str) -> Structure:
        """The structure of that key; KeyError where there is none."""
        return {structure.key: structure for structure in self.structures}[key]


@cache
def thigh29() -> LabelSet:
    """27 muscles in 5 groups, femur and iliac bone (Kim 2024, Sci Rep 14:3301), from `thigh29.csv` beside this file."""
    text = files("engine").joinpath("thigh29.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return LabelSet(
        "thigh29",
        tuple(Structure(int(row["value"]), row["key"], row["display"], row["group"]) for row in rows),
    )
