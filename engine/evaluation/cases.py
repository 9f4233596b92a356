"""What is compared: a case with its two label volumes, and the regions that are scored in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import VastusError
from engine.labels import LabelSet, Side
from engine.volume import Grid

Labels = NDArray[np.uint8]


class EvaluationError(VastusError):
    """Predictions and truth cannot be compared."""


class LabelScheme(StrEnum):
    """What the numbers of a label volume mean.

    `SEGMENTS`: `Segment.number`, structures by side, odd on the right; `STRUCTURES`: `Structure.value`, without sides.
    """

    SEGMENTS = "segments"
    STRUCTURES = "structures"


class RegionKind(StrEnum):
    """A region is one structure, or a group: the union of its structures."""

    STRUCTURE = "structure"
    GROUP = "group"


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with what was predicted and what is true.

    Attributes:
        name: names it in every table.
        grid: the grid of all its arrays.
        prediction: uint8, axes [slice, row, column]; numbers of one `LabelScheme`, 0 is background.
        truth: the same for the truth.
        hu: int16 Hounsfield units, or None where no CT is given.
    Raises:
        EvaluationError: an array does not fit the grid or is of another type, or the grid's planes lie unevenly.
    """

    name: str
    grid: Grid
    prediction: Labels
    truth: Labels
    hu: NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        wanted = (("prediction", self.prediction, np.uint8), ("truth", self.truth, np.uint8), ("CT", self.hu, np.int16))
        for what, array, kind in wanted:
            if array is not None and (array.shape != self.grid.shape or array.dtype != kind):
                reason = f"its {what} is {array.dtype} {array.shape} on a grid of {self.grid.shape}"
                raise EvaluationError(f"case {self.name}", reason, "Give all three on one grid")
        if self.grid.uneven is not None:
            reason = "the distance of its slices varies, so that its voxels do not count alike"
            raise EvaluationError(f"case {self.name}", reason, "Resample CT and labels to one slice distance")


class CaseSource(Protocol):
    """Where cases come from, one at a time: a folder of files, or scans made from seeds."""

    @property
    def names(self) -> Sequence[str]:
        """The cases in the order of the tables."""

    def load(self, name: str) -> Case:
        """Read or make one case; the same again each time."""


@dataclass(frozen=True)
class Region:
    """What one row of a table is about.

    Attributes:
        key: the structure's or the group's.
        display: name for people.
        kind: one structure, or a group of them.
        group: key of the group.
        side: None for both sides together.
        values: the numbers in the label volumes that make it up.
    """

    key: str
    display: str
    kind: RegionKind
    group: str
    side: Side | None
    values: tuple[int, ...]

    @property
    def side_name(self) -> str:
        """`right`, `left` or `both`."""
        return "both" if self.side is None else self.side.value

    @property
    def title(self) -> str:
        """Name with the side, as `Sartorius, left`; without one for both sides."""
        return self.display if self.side is None else f"{self.display}, {self.side.value}"


def regions_of(label_set: LabelSet, scheme: LabelScheme) -> tuple[Region, ...]:
    """Every structure and then every group: right, left and both where the labels have sides, otherwise once."""
    groups = dict.fromkeys(structure.group for structure in label_set.structures)
    wanted = [
        (structure.key, structure.display, RegionKind.STRUCTURE, structure.group, (structure.value,))
        for structure in label_set.structures
    ] + [
        (
            group,
            f"{group.capitalize()} group",
            RegionKind.GROUP,
            group,
            tuple(structure.value for structure in label_set.structures if structure.group == group),
        )
        for group in groups
    ]
    sides = (Side.RIGHT, Side.LEFT, None) if scheme is LabelScheme.SEGMENTS else (None,)
    return tuple(
        Region(key, display, kind, group, side, numbers)
        for key, display, kind, group, structures in wanted
        for side in sides
        if (numbers := _numbers(label_set, scheme, structures, side))
    )


def highest_value(label_set: LabelSet, scheme: LabelScheme) -> int:
    """The largest number that a label volume may hold."""
    return len(label_set.segments if scheme is LabelScheme.SEGMENTS else label_set.structures)


def _numbers(
    label_set: LabelSet, scheme: LabelScheme, structures: tuple[int, ...], side: Side | None
) -> tuple[int, ...]:
    if scheme is LabelScheme.STRUCTURES:
        return structures
    return tuple(
        segment.number
        for segment in label_set.segments
        if segment.structure.value in structures and side in (None, segment.side)
    )
