"""Scan and labels at the points of a plane.

The planes of the picture page lie along the patient's axes, and so do nearly all grids: then every axis of the grid
runs along a row or a column of the picture or across it, and the samples of a picture share their indices and weights
by row and by column. Other grids are sampled point by point. Both give the same values, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.volume import FloatArray, Grid

OUTSIDE_HU = -1024

Scalar = TypeVar("Scalar", np.int16, np.uint8)


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a picture: `corner + down[row] + right[column]`.

    Attributes:
        corner: LPS mm; whatever is common to all points.
        down: [row, 3], mm.
        right: [column, 3], mm.
    """

    corner: FloatArray
    down: FloatArray
    right: FloatArray

    def all(self) -> FloatArray:
        """Patient coordinates [row, column, 3], mm."""
        return np.asarray(self.corner + self.down[:, None] + self.right[None])


@dataclass(frozen=True, eq=False)
class Lines:
    """Points that lie along the axes of a grid.

    Attributes:
        index: for each axis of the grid, its fractional indices: one for every picture row or column, or a single one.
        turned: whether the grid's axis down the picture comes after the one to its right.
        across: the axis with a single index.
    """

    index: tuple[FloatArray, ...]
    turned: bool
    across: int

    def picture(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values [slice, row, column] of the grid's axes as [row, column] of the picture."""
        flat = values.squeeze(axis=self.across)
        return flat.T if self.turned else flat


def sample(
    hu: NDArray[np.int16], labels: NDArray[np.uint8], grid: Grid, points: Points
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Attenuation, linear between the voxels, and the nearest voxel's label, both [row, column] of the picture.

    Outside the grid are `OUTSIDE_HU` and no label.
    """
    lines = lines_of(grid, points)
    if lines is not None:
        return _linear(hu, lines), _nearest(labels, lines)
    index = np.moveaxis(grid.to_index(points.all()), -1, 0)
    found = ndimage.map_coordinates(hu, index, output=np.float32, order=1, mode="grid-constant", cval=OUTSIDE_HU)
    return found, ndimage.map_coordinates(labels, index, order=0, mode="grid-constant", cval=0)


def lines_of(grid: Grid, points: Points) -> Lines | None:
    """The points as lines along the axes of the grid; None where they are not."""
    inverse = np.linalg.inv(grid.affine[:3, :3])
    steps = [np.flatnonzero(inverse @ way[-1] - inverse @ way[0]) for way in (points.down, points.right)]
    if np.count_nonzero(inverse) != 3 or [len(axes) for axes in steps] != [1, 1] or steps[0] == steps[1]:
        return None
    down, right = int(steps[0][0]), int(steps[1][0])
    across = 3 - down - right
    along_down = grid.to_index(points.corner + points.down + points.right[0])
    along_right = grid.to_index(points.corner + points.down[0] + points.right)
    index = {down: along_down[:, down], right: along_right[:, right], across: along_down[:1, across]}
    return Lines(tuple(index[axis] for axis in range(3)), down > right, across)


def _nearest(labels: NDArray[np.uint8], lines: Lines) -> NDArray[np.uint8]:
    places = [np.floor(index + 0.5).astype(np.intp) for index in lines.index]
    return np.asarray(lines.picture(_gather(labels, places, 0)), dtype=np.uint8)


def _linear(hu: NDArray[np.int16], lines: Lines) -> NDArray[np.float32]:
    """The sum over the eight voxels around each point, in the order of scipy's splines of order 1."""
    below = [np.floor(index) for index in lines.index]
    lower = [1.0 - (index - place) for index, place in zip(lines.index, below, strict=True)]
    weights = [(weight, 1.0 - weight) for weight in lower]
    total: NDArray[np.float64] | float = 0.0
    for corner in product((0, 1), repeat=3):
        places = [place.astype(np.intp) + offset for place, offset in zip(below, corner, strict=True)]
        term = _gather(hu, places, OUTSIDE_HU).astype(np.float64)
        for axis, offset in enumerate(corner):
            term *= weights[axis][offset].reshape([-1 if other == axis else 1 for other in range(3)])
        total = total + term
    return np.asarray(lines.picture(np.asarray(total)), dtype=np.float32)


def _gather(array: NDArray[Scalar], places: Sequence[NDArray[np.intp]], outside: int) -> NDArray[Scalar]:
    """The voxels at every combination of the places along the three axes; `outside` beyond the grid."""
    found = array
    for axis in sorted(range(3), key=lambda axis: len(places[axis])):  # the fewest first, the rest is less work
        found = found.take(places[axis], axis=axis, mode="clip")
    for axis, place in enumerate(places):
        beyond = (place < 0) | (place >= array.shape[axis])
        if beyond.any():
            found[(slice(None),) * axis + (beyond,)] = outside
    return found
