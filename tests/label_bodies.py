"""Small grids, bodies drawn on them, and cases for evaluation made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.cases import Case
from engine.volume import Grid

Mask = NDArray[np.bool_]


def plain_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Grid:
    """A grid along the patient's axes, slices towards the head; spacing mm of slices, rows and columns."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = (*spacing, 1.0)
    return Grid(shape, affine)


def box_mask(shape: tuple[int, int, int], start: Sequence[int], size: Sequence[int]) -> Mask:
    """A box of voxels."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(low, low + length) for low, length in zip(start, size, strict=True))] = True
    return mask


def ball_mask(grid: Grid, radius_mm: float) -> Mask:
    """A ball about the middle voxel."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    middle = grid.to_patient(np.array(grid.shape) // 2)
    return np.asarray(np.linalg.norm(grid.to_patient(index) - middle, axis=-1) <= radius_mm)


@dataclass(frozen=True)
class Cases:
    """Cases from memory (a `CaseSource`)."""

    cases: tuple[Case, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(case.name for case in self.cases)

    def load(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)


def random_case(name: str, seed: int, hu: bool = True) -> Case:
    """A small case of which every structure is there, and the prediction is a little wrong everywhere."""
    rng = np.random.default_rng(seed)
    grid = plain_grid((12, 32, 32), (3.0, 2.0, 2.0))
    blocks = np.arange(1, 65).reshape(4, 4, 4).repeat(3, 0).repeat(8, 1).repeat(8, 2)
    truth = np.where(blocks <= 58, blocks, 0).astype(np.uint8)
    truth[:, :: rng.integers(5, 8)] = 0
    prediction = np.where(rng.random(truth.shape) < 0.1, 0, np.roll(truth, 1, axis=2)).astype(np.uint8)
    attenuation = rng.integers(-100, 100, truth.shape).astype(np.int16)
    return Case(name, grid, prediction, truth, attenuation if hu else None)
