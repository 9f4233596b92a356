"""The scans that a model is judged on: subjects, poses and scanners that no training drew, from every anatomy at hand.

Training seeds lie below `FIRST_SEED`; each judged scan has a seed of its own above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import SideError
from engine.evaluation.cases import Case
from engine.segment import Segmenter
from engine.synthesis.anatomy import AnatomySource
from engine.synthesis.scan import ANY, Conditions, ScanRecipe, synthesise
from engine.volume import Grid

FIRST_SEED = 900_000_000

Levels = tuple[float, float]


@dataclass(frozen=True)
class ScanType:
    """A kind of scan.

    Attributes:
        name: stands in the tables.
        meaning: what it is, for people.
        spacing_mm: slices, rows, columns.
        levels_mm: lowest and highest slice above the knee joint, for a person of 1.73 m.
        conditions: of the scan; what is None is drawn.
    """

    name: str
    meaning: str
    spacing_mm: tuple[float, float, float]
    levels_mm: Levels
    conditions: Conditions


WHOLE: Levels = (-50.0, 590.0)
PLAIN = Conditions(noise_sd_hu=None, implant=False)
SCAN_TYPES = (
    ScanType("routine", "hip to knee, 3 mm, no implant", (3.0, 1.0, 1.0), WHOLE, PLAIN),
    ScanType("thick", "hip to knee, 6 mm", (6.0, 0.95, 0.95), WHOLE, PLAIN),
    ScanType("hip", "crest to lesser trochanter, 3 mm", (3.0, 0.8, 0.8), (345.0, 600.0), PLAIN),
    ScanType("thigh", "below the lesser trochanter to the knee, 5 mm", (5.0, 0.8, 0.8), (-60.0, 340.0), PLAIN),
    ScanType("metal", "hip to knee, 3 mm, implant", (3.0, 1.0, 1.0), WHOLE, Conditions(None, implant=True)),
    ScanType(
        "any", "hip to knee, 3 mm, everything drawn: prone, views that cut the skin", (3.0, 0.85, 0.85), WHOLE, ANY
    ),
)
WIDTH_MM, DEPTH_MM = 440.0, 330.0


@dataclass(frozen=True, eq=False)
class HeldOutScans:
    """Judged scans as cases: made, segmented and forgotten one at a time.

    Attributes:
        segmenter: the model on trial, through the very path of the service.
        sources: the anatomies by name.
        rounds: scans of each type and anatomy.
    """

    segmenter: Segmenter
    sources: Mapping[str, AnatomySource]
    rounds: int = 2

    @property
    def names(self) -> Sequence[str]:
        """`type, anatomy, number` of every scan."""
        return [
            f"{kind.name}, {source}, {number + 1}"
            for kind in SCAN_TYPES
            for source in self.sources
            for number in range(self.rounds)
        ]

    def load(self, name: str) -> Case:
        """Make one scan and segment it; the same again each time. A scan that is refused has an empty prediction."""
        kind_name, source, _ = name.split(", ")
        kind = {each.name: each for each in SCAN_TYPES}[kind_name]
        seed = FIRST_SEED + list(self.names).index(name)
        scan = synthesise(ScanRecipe(seed, grid_of(kind), kind.conditions, self.sources[source]))
        try:
            found = self.segmenter.segment(scan.volume, _silent).labels
        except SideError:  # the service would park it: everything in it is missed
            found = np.zeros_like(scan.truth.labels)
        return Case(name, scan.volume.grid, found, scan.truth.labels, scan.volume.hu)


def grid_of(kind: ScanType) -> Grid:
    """The grid of a kind of scan: slices from the feet up, rows to the back, columns to the left."""
    low, high = kind.levels_mm
    extent = np.array([high - low, DEPTH_MM, WIDTH_MM])
    shape = np.ceil(extent / np.array(kind.spacing_mm)).astype(int)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = kind.spacing_mm
    affine[:, 3] = (-WIDTH_MM / 2, -DEPTH_MM / 2 - 10.0, low, 1.0)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def type_of(name: str) -> str:
    """The kind of scan that a case's name tells."""
    return name.split(", ")[0]


def _silent(_done: int, _of: int) -> None:
    """No progress within one scan."""
