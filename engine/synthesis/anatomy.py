"""An anatomy: one body as tissue codes, and what is needed to draw other bodies from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, find_objects, gaussian_filter

from engine.errors import VolumeError
from engine.synthesis.distance import distance_mm
from engine.synthesis.tissues import TissueTable, tissue_table
from engine.volume import FloatArray, Grid

FAR_MM = 100.0
SMOOTH_MM = 1.2
"""Width by which the steps of the voxels are smoothed out of the distances, and so out of the borders."""
REACH_MM = 14.0
"""How far from a muscle its distance is known: as far as it may ever grow."""


@dataclass(frozen=True, eq=False)
class Joints:
    """Centres of the joints, patient coordinates in mm, [2 sides (right, left), 3]."""

    hip_mm: FloatArray
    knee_mm: FloatArray


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One body, upright: axes (z, y, x) towards the head, the back and the left.

    Attributes:
        name: whose.
        attribution: what must be said where it is used.
        grid: its voxels.
        codes: tissue codes, uint8; 0 outside the deep fascia, where fat and skin are drawn for each subject.
        joints: where it bends.
        outside_mm: distance to the deep fascia outside it, float16; 0 inside.
        first: code of the nearest muscle, uint8; 0 beyond `REACH_MM` of any.
        first_mm: signed distance to it, float16: negative inside, where bone does not count as an end.
        second: the next nearest muscle, 0 where there is none near.
        second_mm: distance to it.
    """

    name: str
    attribution: str
    grid: Grid
    codes: NDArray[np.uint8]
    joints: Joints
    outside_mm: NDArray[np.float16]
    first: NDArray[np.uint8]
    first_mm: NDArray[np.float16]
    second: NDArray[np.uint8]
    second_mm: NDArray[np.float16]

    @cached_property
    def back_mm(self) -> float:
        """y of the hindmost point inside the deep fascia."""
        rows = np.flatnonzero((self.codes != 0).any(axis=(0, 2)))
        return float(self.grid.affine[1, 3] + self.grid.affine[1, 1] * rows[-1])


class AnatomySource(Protocol):
    """Something that knows an anatomy: the built-in tables, or an atlas in a folder. Equal sources have equal ones."""

    def __hash__(self) -> int:
        """So that an anatomy is prepared once for equal sources."""

    def anatomy(self) -> Anatomy:
        """The anatomy, ready to draw subjects from."""


def upright_grid(shape: tuple[int, int, int], spacing_mm: float, first_mm: tuple[float, float, float]) -> Grid:
    """An isotropic grid with axes (z, y, x); `first_mm` is the centre (x, y, z) of its first voxel."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = spacing_mm
    affine[:, 3] = (*first_mm, 1.0)
    return Grid(shape, affine)


def prepare(name: str, attribution: str, codes: NDArray[np.uint8], grid: Grid, joints: Joints) -> Anatomy:
    """Complete an anatomy: where its fascia ends, and which muscles compete for each voxel.

    Args:
        name: whose anatomy.
        attribution: what must be said where it is used.
        codes: tissue codes [z, y, x]; skin and subcutaneous fat are taken off.
        grid: isotropic, upright.
        joints: where it bends.

    Raises:
        VolumeError: codes and grid do not fit, or the body holds no muscle.
    """
    table = tissue_table()
    if codes.shape != grid.shape or not table.muscles[codes].any():
        raise VolumeError(f"anatomy {name}", "its codes do not fit its grid or hold no muscle", "Give a whole body")
    spacing_mm = grid.spacing_mm[0]
    inside = codes != 0
    inside &= ~table.is_one_of("skin", "subcutaneous_fat")[codes]
    inside = np.stack([binary_fill_holes(plane) for plane in inside])
    body = np.where(inside, codes, 0).astype(np.uint8)
    pad = np.where(inside & table.is_one_of("skin", "subcutaneous_fat")[body], table.code("intermuscular_fat"), body)
    outside = distance_mm(inside, spacing_mm)
    return Anatomy(
        name,
        attribution,
        grid,
        pad.astype(np.uint8),
        joints,
        np.minimum(outside, FAR_MM).astype(np.float16),
        *_rivals(pad.astype(np.uint8), table, spacing_mm),
    )


def _rivals(
    codes: NDArray[np.uint8], table: TissueTable, spacing_mm: float
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16]]:
    """The two nearest muscles of each voxel and the signed distances to them."""
    first, second = np.zeros_like(codes), np.zeros_like(codes)
    first_mm, second_mm = (np.full(codes.shape, FAR_MM, dtype=np.float16) for _ in range(2))
    bones = table.truth[codes] > 0
    bones &= ~table.muscles[codes]
    for code, where in _boxes(codes, table, int(np.ceil(REACH_MM / spacing_mm)) + 1):
        own = codes[where] == code
        away = distance_mm(own, spacing_mm)
        within = distance_mm(~(own | bones[where]), spacing_mm)
        signed = np.where(own, spacing_mm / 2 - within, away - spacing_mm / 2)
        signed = gaussian_filter(signed, SMOOTH_MM / spacing_mm).astype(np.float16)
        nearer = signed < first_mm[where]
        second[where] = np.where(nearer, first[where], second[where])
        second_mm[where] = np.where(nearer, first_mm[where], second_mm[where])
        between = ~nearer & (signed < second_mm[where])
        second[where][between] = code
        second_mm[where][between] = signed[between]
        first[where][nearer] = code
        first_mm[where][nearer] = signed[nearer]
    return first, first_mm, second, second_mm


def _boxes(
    codes: NDArray[np.uint8], table: TissueTable, margin: int
) -> Iterator[tuple[int, tuple[slice, slice, slice]]]:
    """Each muscle's code and the box around it."""
    for code, box in enumerate(find_objects(codes), start=1):
        if box is not None and table.muscles[code]:
            z, y, x = (
                slice(max(0, side.start - margin), min(length, side.stop + margin))
                for side, length in zip(box, codes.shape, strict=True)
            )
            yield code, (z, y, x)
