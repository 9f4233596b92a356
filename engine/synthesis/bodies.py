"""The built-in anatomy: parts as tapered bodies, read from the tables beside this file.

Coordinates of the tables, mm: z upward from the knee joint, x from the midline to the side, y forward. One half is
described; the other is its mirror image. `column` rows are ellipses at levels, `tube` rows points of a path with a
radius, `shell` rows the thickness of the abdominal wall. The measures follow a man of about 1.75 m.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
NOWHERE_MM = 1e3
"""A signed distance that stands for far outside."""


@dataclass(frozen=True, eq=False)
class Part:
    """One body: rows [n, 6] of z, x, y, rx, ry (mm) and angle (degrees)."""

    name: str
    tissue: str
    kind: str
    rows: NDArray[np.float64]

    def level(self, z_mm: float) -> NDArray[np.float64] | None:
        """x, y, rx, ry, angle of a column at a level; None above and below it."""
        z = self.rows[:, 0]
        if not z[0] <= z_mm <= z[-1]:
            return None
        return np.array([np.interp(z_mm, z, self.rows[:, column]) for column in range(1, 6)])


def ellipse_distance(u: Floats, v: Floats, ellipse: tuple[float, float, float]) -> Floats:
    """Signed distance in mm, to first order, to an ellipse of half axes rx, ry (mm), turned by an angle (degrees)."""
    rx, ry, angle_deg = ellipse
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    along, across = (cos * u + sin * v) / rx, (cos * v - sin * u) / ry
    radius = np.sqrt(along * along + across * across) + 1e-6
    slope = np.sqrt((along / rx) ** 2 + (across / ry) ** 2) + 1e-6 / max(rx, ry)
    return np.asarray(radius * (radius - 1) / slope, dtype=np.float32)


def segment_distance(points: tuple[Floats, Floats, float], start: Floats, end: Floats) -> Floats:
    """Signed distance in mm to a tapered capsule between two rows (z, x, y, r): points are x, y (arrays) and z."""
    x, y, z = points
    axis = end[:3] - start[:3]
    length = float(axis @ axis) + 1e-6
    t = ((z - start[0]) * axis[0] + (x - start[1]) * axis[1] + (y - start[2]) * axis[2]) / length
    t = np.clip(t, 0, 1)
    gap = (z - start[0] - t * axis[0]) ** 2 + (x - start[1] - t * axis[1]) ** 2 + (y - start[2] - t * axis[2]) ** 2
    return np.asarray(np.sqrt(gap) - (start[3] + t * (end[3] - start[3])), dtype=np.float32)


def _rows(name: str) -> list[dict[str, str]]:
    text = files("engine.synthesis").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _parts(name: str) -> Iterator[Part]:
    for (part, kind, tissue), rows in groupby(
        _rows(name), key=lambda row: (row["part"], row.get("kind", "column"), row.get("tissue", row["part"]))
    ):
        yield Part(part, tissue, kind, np.array([[float(row.get(column) or 0) for column in COLUMNS] for row in rows]))


COLUMNS = ("z_mm", "x_mm", "y_mm", "rx_mm", "ry_mm", "angle_deg")


@cache
def anatomy() -> tuple[Part, ...]:
    """The 29 structures of one half; a structure may have several parts of one name."""
    return tuple(_parts("anatomy.csv"))


@cache
def context() -> tuple[Part, ...]:
    """What lies between and beside the structures in one half."""
    return tuple(_parts("context.csv"))


@cache
def outline() -> dict[str, Part]:
    """The hull of the deep fascia: one limb, and the trunk."""
    return {part.name: part for part in _parts("outline.csv")}
