"""Bodies drawn by levels: strokes of a pencil of changing width, read from tables and measured on half a body.

Coordinates of the tables, mm: x from the midline to the side, y forward, z upward. A part is a stroke at each of some
levels, `x y r; x y r; ...`, with as many points at each and a smooth course between the levels; or, where the level is
left empty, one path in space, `x y z r; x y z r; ...`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]
SLAB = 24
"""Levels measured at once: few enough for a part that wanders to keep to a small box."""


@dataclass(frozen=True, eq=False)
class Part:
    """One body. Lengths in mm; x to the side, y to the back, z upward.

    Attributes:
        name: its name in the table.
        tissue: key of its tissue.
        levels: z of each stroke, rising; empty for a path.
        points: x, y, r of strokes [levels, points, 3], or x, y, z, r of a path [points, 4].
    """

    name: str
    tissue: str
    levels: NDArray[np.float64]
    points: NDArray[np.float64]

    def extent_mm(self, reach_mm: float) -> tuple[float, float]:
        """Lowest and highest level that it, or a path's neighbourhood of this reach, touches."""
        if self.levels.size:
            return float(self.levels[0]), float(self.levels[-1])
        z, r = self.points[:, 2], self.points[:, 3] + reach_mm
        return float((z - r).min()), float((z + r).max())


@dataclass(frozen=True, eq=False)
class Half:
    """Voxel centres of one half of a body in mm, all rising: z upward, y to the back, x to the side."""

    z: Floats
    y: Floats
    x: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        """Levels, rows, columns."""
        return (self.z.size, self.y.size, self.x.size)


@cache
def parts(table: str) -> tuple[Part, ...]:
    """The parts of a table beside this file, in its order."""
    text = files("engine.synthesis").joinpath(table).read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(_part(list(group)) for _, group in groupby(rows, key=lambda row: row["part"]))


def _part(rows: list[dict[str, str]]) -> Part:
    strokes = [[[float(number) for number in point.split()] for point in row["stroke"].split(";")] for row in rows]
    levels = np.array([float(row["z_mm"]) for row in rows if row["z_mm"]])
    points = np.array(strokes if levels.size else strokes[0])
    points[..., 1] *= -1
    return Part(rows[0]["part"], rows[0]["tissue"], levels, _rounded(points) if levels.size else points)


def _rounded(strokes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strokes [levels, points, 3] of three and more points with one more between each two, on a smooth curve."""
    if strokes.shape[1] < 3:
        return strokes
    middle = (strokes[:, :-1] + strokes[:, 1:]) / 2
    bend = np.diff(strokes, n=2, axis=1)
    # the mean of the second differences at both ends: what a cubic through four points takes off the chord's middle
    middle -= np.concatenate([bend[:, :1], (bend[:, :-1] + bend[:, 1:]) / 2, bend[:, -1:]], axis=1) / 8
    rounded = np.empty((strokes.shape[0], 2 * strokes.shape[1] - 1, 3))
    rounded[:, ::2], rounded[:, 1::2] = strokes, middle
    return rounded


def distances(part: Part, half: Half, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
    """Boxes that hold a part and all within a reach of it, and the signed distance to it there, mm.

    A stroke's distance is measured in its level, a path's in space. Boxes may overlap: the least distance counts.
    """
    measure = _strokes if part.levels.size else _path
    first, last = np.searchsorted(half.z, part.extent_mm(reach_mm))
    for start in range(int(first), int(last), SLAB):
        yield from measure(part, half, slice(start, min(start + SLAB, int(last))), reach_mm)


def _strokes(part: Part, half: Half, slab: slice, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
    points = PchipInterpolator(part.levels, part.points)(half.z[slab]).astype(np.float32)
    x, y, r = (points[..., axis, None, None] for axis in range(3))
    rows, columns = (
        slice(*np.searchsorted(axis, (float((at - r).min()) - reach_mm, float((at + r).max()) + reach_mm)))
        for axis, at in ((half.y, y), (half.x, x))
    )
    u, v = half.x[None, None, columns], half.y[None, rows, None]
    pieces = (
        _capsule(((u, x[:, i], x[:, j]), (v, y[:, i], y[:, j])), r[:, i], r[:, j])
        for i, j in pairwise(range(points.shape[1]))
    )
    nearest = next(pieces)
    for piece in pieces:
        np.minimum(nearest, piece, out=nearest)
    yield (slab, rows, columns), nearest


def _path(part: Part, half: Half, slab: slice, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
    points = part.points.astype(np.float32)
    for start, end in pairwise(points) if len(points) > 1 else [(points[0], points[0])]:
        reach = max(start[3], end[3]) + reach_mm
        columns, rows, levels = (
            slice(*np.searchsorted(axis, (min(a, b) - reach, max(a, b) + reach)))
            for axis, a, b in zip((half.x, half.y, half.z), start[:3], end[:3], strict=True)
        )
        levels = slice(max(levels.start, slab.start), min(levels.stop, slab.stop))
        if levels.start < levels.stop:
            axes = (half.x[None, None, columns], half.y[None, rows, None], half.z[levels, None, None])
            legs = tuple((at, a, b) for at, a, b in zip(axes, start[:3], end[:3], strict=True))
            yield (levels, rows, columns), _capsule(legs, start[3], end[3])


Number = Floats | np.float32
Leg = tuple[Floats, Number, Number]
"""Along one axis: where the voxels are, where a capsule starts and where it ends."""


def _capsule(legs: tuple[Leg, ...], start_r: Number, end_r: Number) -> Floats:
    """Signed distance to a capsule that tapers from one end to the other."""
    length = sum(((b - a) ** 2 for _, a, b in legs), start=np.float32(1e-6))
    share = sum(((at - a) * ((b - a) / length) for at, a, b in legs), start=np.float32(0))
    share = np.clip(share, 0, 1)
    away = sum(((at - a - share * (b - a)) ** 2 for at, a, b in legs), start=np.float32(0))
    return np.asarray(np.sqrt(away) - start_r - share * (end_r - start_r), dtype=np.float32)
