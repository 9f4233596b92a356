"""Shapes that bodies are made of, and how they are painted: balls, columns of ellipses, paths of changing width.

Coordinates, mm: x to the left, y to the back, z upward. Distances are signed, negative inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from engine.synthesis.painting import Box, Floats, Half, distances
from engine.synthesis.painting import Part as Strokes
from engine.volume import FloatArray

SLAB = 24
"""Levels of a column measured at once: few enough for one that wanders to keep to a small box."""


class Shape(Protocol):
    """Something with an inside."""

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""

    def distances(self, axes: Half, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
        """Boxes that hold it and all within a reach of it, and the distance to it there; they may overlap."""

    def varied(self, size: float, shift_mm: FloatArray) -> Shape:
        """Another of other thickness (a factor), moved by (x, y, z)."""

    def mirrored(self) -> Shape:
        """The same on the other side."""


@dataclass(frozen=True, eq=False)
class Ball:
    """An ellipsoid: centre (x, y, z), half axes along its own x, y, z, and its turns about z, then x, degrees."""

    centre_mm: FloatArray
    radii_mm: FloatArray
    turns_deg: tuple[float, float] = (0.0, 0.0)

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        reach = np.sqrt((self._axes() ** 2 * self.radii_mm[:, None] ** 2).sum(axis=0))
        return self.centre_mm - reach, self.centre_mm + reach

    def distances(self, axes: Half, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
        """The one box that holds it, and the distance to first order."""
        low, high = self.bounds_mm()
        box = _box(axes, low - reach_mm, high + reach_mm)
        if any(part.start >= part.stop for part in box):
            return
        x, y, z = (
            each - np.float32(at)
            for each, at in zip(
                (axes.x[None, None, box[2]], axes.y[None, box[1], None], axes.z[box[0], None, None]),
                self.centre_mm,
                strict=True,
            )
        )
        square, steep = np.float32(0), np.float32(0)
        for (a, b, c), radius in zip(self._axes().astype(np.float32), self.radii_mm.astype(np.float32), strict=True):
            along = (a / radius) * x + (b / radius) * y + (c / radius) * z
            along *= along
            square = square + along
            along *= 1 / radius**2
            steep = steep + along
        yield box, _first_order(np.asarray(square), np.asarray(steep))

    def varied(self, size: float, shift_mm: FloatArray) -> Ball:
        """Another of other thickness (a factor), moved by (x, y, z)."""
        return replace(self, centre_mm=self.centre_mm + shift_mm, radii_mm=self.radii_mm * size)

    def mirrored(self) -> Ball:
        """The same on the other side."""
        turn, tilt = self.turns_deg
        return replace(self, centre_mm=self.centre_mm * (-1, 1, 1), turns_deg=(-turn, tilt))

    def _axes(self) -> FloatArray:
        """Its own axes as rows."""
        turn, tilt = np.radians(self.turns_deg)
        about_z = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        about_x = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
        return np.asarray(about_z @ about_x)


@dataclass(frozen=True, eq=False)
class Column:
    """Ellipses at rising levels, smooth between: rows [n, 6] of z, x, y, rx, ry (mm) and turn (degrees)."""

    rows: FloatArray

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        most = self.rows[:, 3:5].max(axis=1, keepdims=True) * np.where(self.rows[:, 5:] == 0, 0, 1)
        reach = np.maximum(self.rows[:, 3:5], most)
        low, high = (self.rows[:, 1:3] - reach).min(axis=0), (self.rows[:, 1:3] + reach).max(axis=0)
        return np.array([*low, self.rows[0, 0]]), np.array([*high, self.rows[-1, 0]])

    def distances(self, axes: Half, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
        """Boxes of some levels each, and the distance within the level to first order."""
        first, last = np.searchsorted(axes.z, (self.rows[0, 0], self.rows[-1, 0]))
        course = PchipInterpolator(self.rows[:, 0], self.rows[:, 1:])
        for start in range(int(first), int(last), SLAB):
            levels = slice(start, min(start + SLAB, int(last)))
            rows = np.column_stack([axes.z[levels], course(axes.z[levels])])
            low, high = Column(rows).bounds_mm()
            box = (levels, *_box(axes, low - reach_mm, high + reach_mm)[1:])
            if box[1].start < box[1].stop and box[2].start < box[2].stop:
                yield box, _ellipses(rows.astype(np.float32)[:, :, None, None], axes, box)

    def varied(self, size: float, shift_mm: FloatArray) -> Column:
        """Another of other thickness (a factor), moved by (x, y, z)."""
        rows = self.rows.copy()
        rows[:, :3] += shift_mm[[2, 0, 1]]
        rows[:, 3:5] *= size
        return Column(rows)

    def mirrored(self) -> Column:
        """The same on the other side."""
        return Column(self.rows * (1, -1, 1, 1, 1, -1))


@dataclass(frozen=True, eq=False)
class Path:
    """A line in space with a radius: points [n, 4] of x, y, z, r in mm."""

    points: FloatArray

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        place, radius = self.points[:, :3], self.points[:, 3:]
        return (place - radius).min(axis=0), (place + radius).max(axis=0)

    def distances(self, axes: Half, reach_mm: float) -> Iterator[tuple[Box, Floats]]:
        """A box for each piece of the line."""
        return distances(Strokes("", "", np.empty(0), self.points), axes, reach_mm)

    def varied(self, size: float, shift_mm: FloatArray) -> Path:
        """Another of other thickness (a factor), moved by (x, y, z)."""
        return Path((self.points + np.append(shift_mm, 0)) * (1, 1, 1, size))

    def mirrored(self) -> Path:
        """The same on the other side."""
        return Path(self.points * (-1, 1, 1, 1))


@dataclass(frozen=True)
class Layer:
    """What is painted for a shape: marks (0 to 255) of its wall and its inside.

    Attributes:
        wall: mark of what lies under the surface.
        wall_mm: thickness of the wall; 0 where there is none.
        inside: mark of the rest.
        over: which marks it may hide, bool [256].
        gap_mm: width of the seam of mark `seam` between it and marks of `apart`, bool [256].
    """

    wall: int
    wall_mm: float
    inside: int
    over: NDArray[np.bool_]
    gap_mm: float
    seam: int
    apart: NDArray[np.bool_]


def paint(marks: NDArray[np.uint8], axes: Half, shapes: Sequence[Shape], layer: Layer) -> None:
    """Paint what some shapes hold together into marks [z, y, x], in place."""
    found = [each for shape in shapes for each in shape.distances(axes, layer.gap_mm)]
    if layer.gap_mm:
        for box, distance in found:
            near = (distance < layer.gap_mm) & layer.apart[marks[box]]
            marks[box][near] = layer.seam
    free = [layer.over[marks[box]] for box, _ in found]
    depths = ((layer.wall, 0.0), (layer.inside, layer.wall_mm)) if layer.wall_mm else ((layer.inside, 0.0),)
    for mark, depth_mm in depths:
        for (box, distance), may in zip(found, free, strict=True):
            marks[box][may & (distance < -depth_mm)] = mark


def _box(axes: Half, low: FloatArray, high: FloatArray) -> Box:
    x, y, z = (
        slice(int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b)))
        for axis, a, b in zip((axes.x, axes.y, axes.z), low, high, strict=True)
    )
    return z, y, x


def _ellipses(rows: Floats, axes: Half, box: Box) -> Floats:
    """Distances in the box's levels; rows [levels, 6, 1, 1]."""
    _, x, y, rx, ry, turn = rows.swapaxes(0, 1)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    u, v = axes.x[None, None, box[2]] - x, axes.y[None, box[1], None] - y
    along, across = (cos * u + sin * v) / rx, (cos * v - sin * u) / ry
    along *= along
    across *= across
    square = along + across
    along /= rx * rx
    across /= ry * ry
    along += across
    return _first_order(square, along)


def _first_order(square: Floats, steep: Floats) -> Floats:
    """A distance from the square of the relative radius and that of half its slope."""
    radius = np.sqrt(square)
    radius += 1e-6
    steep = np.sqrt(steep)
    steep += 1e-7  # the centre itself lies deep inside
    return np.asarray(radius * (radius - 1) / steep, dtype=np.float32)
