"""The tissues of a synthetic body: their codes, what they are to the truth, and their attenuation.

A body is one uint8 volume of codes. 0 is air; 1..58 are the segments of the label set, numbered as in every result
(odd right, even left); what lies between and around them follows from `FIRST_CONTEXT` on, in the order of
`tissues.csv`, a paired tissue with one code for each side.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from engine.labels import LabelSet, Side, thigh29

AIR = 0
AIR_HU = -1000.0
FIRST_CONTEXT = 64
CODES = 256
SIDES = (Side.RIGHT, Side.LEFT)


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Attributes:
        key: its name; a structure's own key where it is one.
        structure: whether it is a structure of the label set.
        sided: whether right and left have codes of their own.
        part_of: key of the structure that a network must see here; empty for background. The spongy inside of a
            bone is part of that bone.
        hu_mean: mean over subjects, HU.
        hu_sd_between: SD between subjects.
        hu_sd_texture: SD inside one subject.
    """

    key: str
    structure: bool
    sided: bool
    part_of: str
    hu_mean: float
    hu_sd_between: float
    hu_sd_texture: float


@dataclass(frozen=True)
class TissueTable:
    """The tissues with their codes."""

    tissues: tuple[Tissue, ...]
    label_set: LabelSet

    @cached_property
    def codes(self) -> dict[tuple[str, Side], int]:
        """The code of each tissue on each side; a tissue without sides has the same code twice."""
        found: dict[tuple[str, Side], int] = {}
        following = FIRST_CONTEXT
        for tissue in self.tissues:
            for offset, side in enumerate(SIDES):
                if tissue.structure:
                    found[tissue.key, side] = 2 * self.label_set.structure(tissue.key).value - 1 + offset
                else:
                    found[tissue.key, side] = following + offset * tissue.sided
            following += 0 if tissue.structure else 1 + tissue.sided
        return found

    def code(self, key: str, side: Side = Side.RIGHT) -> int:
        """The code of a tissue; KeyError where there is none of this name."""
        return self.codes[key, side]

    @cached_property
    def truth(self) -> NDArray[np.uint8]:
        """Segment number of each code, uint8 [256]; 0 where it is background."""
        table = np.zeros(CODES, dtype=np.uint8)
        for tissue in self.tissues:
            for side in SIDES if tissue.part_of else ():
                table[self.code(tissue.key, side)] = self.code(tissue.part_of, side)
        return table

    @cached_property
    def mirrored(self) -> NDArray[np.uint8]:
        """The same tissue on the other side, uint8 [256]."""
        table = np.arange(CODES, dtype=np.uint8)
        for tissue in self.tissues:
            right, left = (self.code(tissue.key, side) for side in SIDES)
            table[right], table[left] = left, right
        return table

    @cached_property
    def muscles(self) -> NDArray[np.bool_]:
        """Whether a code is a muscle of the label set, bool [256]."""
        bones = {structure.key for structure in self.label_set.structures if structure.group == "bone"}
        table = np.zeros(CODES, dtype=bool)
        for tissue in self.tissues:
            if tissue.structure and tissue.key not in bones:
                table[[self.code(tissue.key, side) for side in SIDES]] = True
        return table

    def is_one_of(self, *keys: str) -> NDArray[np.bool_]:
        """Whether a code is one of these tissues on either side, bool [256]."""
        table = np.zeros(CODES, dtype=bool)
        for key in keys:
            table[[self.code(key, side) for side in SIDES]] = True
        return table


@cache
def tissue_table() -> TissueTable:
    """The table beside this file, for the label set `thigh29`."""
    text = files("engine.synthesis").joinpath("tissues.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    tissues = tuple(
        Tissue(
            row["key"],
            row["role"] == "structure",
            row["sided"] == "1",
            row["part_of"],
            float(row["hu_mean"]),
            float(row["hu_sd_between"]),
            float(row["hu_sd_texture"]),
        )
        for row in rows
    )
    return TissueTable(tissues, thigh29())
