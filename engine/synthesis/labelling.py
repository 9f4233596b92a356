"""From a subject to labels: which structure and which tissue lies at every voxel of a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from engine.labels import LabelSet
from engine.synthesis.bodies import (
    NOWHERE_MM,
    Floats,
    Part,
    anatomy,
    context,
    ellipse_distance,
    outline,
    segment_distance,
)
from engine.synthesis.subject import FIELD_ORIGIN_MM, KNOT_SPACING_MM, Subject
from engine.synthesis.tissue import context_code
from engine.volume import Grid

GROW_MM = 2.5
"""How far a muscle may fill the room beyond its table's hull."""
JOINT_SPACE_MM = 2.0
SKIN_MM = 2.0
FEMUR_CORTEX_MM = 4.5
ILIUM_CORTEX_MM = 2.2
SHAFT_MM = (60.0, 335.0)
"""Levels between which the inside of the femur is fatty marrow; elsewhere it is spongy bone."""
REACH_MM = 14.0
"""A part is evaluated this far beyond its table's extent, for growth and deformation."""
HULL_MARGIN_MM = 1.0


@dataclass(frozen=True, eq=False)
class Plane:
    """One axial slice seen from one half: x to the side, y forward (arrays, mm), z (mm), all in the table's frame."""

    x: Floats
    y: Floats
    z: float

    def crop(self, centre: tuple[float, float], reach_mm: float) -> tuple[slice, slice]:
        """Rows and columns that hold every point within a distance of a centre."""
        near = (np.abs(self.x - centre[0]) < reach_mm) & (np.abs(self.y - centre[1]) < reach_mm)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if not rows.size:
            return slice(0, 0), slice(0, 0)
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def part_distance(part: Part, plane: Plane) -> tuple[tuple[slice, slice], Floats] | None:
    """Where a part may lie in a plane, and its signed distance there in mm; None where it does not reach."""
    if part.kind == "column":
        return _column_distance(part, plane)
    if part.kind == "shell":
        return _shell_distance(part, plane)
    reach = part.rows[:, 3] + REACH_MM
    if plane.z < (part.rows[:, 0] - reach).min() or plane.z > (part.rows[:, 0] + reach).max():
        return None
    low, high = (part.rows[:, 1:3] - reach[:, None]).min(axis=0), (part.rows[:, 1:3] + reach[:, None]).max(axis=0)
    middle = (low + high) / 2
    where = plane.crop((float(middle[0]), float(middle[1])), float((high - low).max() / 2))
    points = (plane.x[where], plane.y[where], plane.z)
    rows = part.rows.astype(np.float32)
    if len(rows) == 1:
        return where, segment_distance(points, rows[0], rows[0])
    distances = [segment_distance(points, rows[i], rows[i + 1]) for i in range(len(rows) - 1)]
    return where, np.asarray(np.minimum.reduce(distances), dtype=np.float32)


def _column_distance(part: Part, plane: Plane) -> tuple[tuple[slice, slice], Floats] | None:
    level = part.level(plane.z)
    if level is None:
        return None
    x, y, rx, ry, angle = (float(value) for value in level)
    where = plane.crop((x, y), max(rx, ry) + REACH_MM)
    return where, ellipse_distance(plane.x[where] - x, plane.y[where] - y, (rx, ry, angle))


def _shell_distance(part: Part, plane: Plane) -> tuple[tuple[slice, slice], Floats] | None:
    """The abdominal wall: a layer under the trunk's hull, at the side."""
    level, trunk = part.level(plane.z), outline()["trunk"].level(plane.z)
    if level is None or trunk is None:
        return None
    depth = -ellipse_distance(plane.x - trunk[0], plane.y - trunk[1], (trunk[2], trunk[3], 0))
    layer = np.abs(depth - level[2] / 2 - HULL_MARGIN_MM) - level[2] / 2
    behind, middle = -55 - plane.y, 60 - plane.x
    return (slice(None), slice(None)), np.maximum(np.maximum(layer, behind), middle).astype(np.float32)


def hull_distance(plane: Plane) -> Floats:
    """Signed distance in mm to the deep fascia of one half."""
    best = np.full(plane.x.shape, NOWHERE_MM, dtype=np.float32)
    for part in outline().values():
        level = part.level(plane.z)
        if level is not None and level[2] > 1:
            ellipse = (float(level[2]), float(level[3]), 0.0)
            np.minimum(best, ellipse_distance(plane.x - level[0], plane.y - level[1], ellipse), out=best)
    return best


class Labeller:
    """Labels the axial slices of one subject on one grid.

    Args:
        subject: the drawn anatomy.
        grid: its slices are axial; rotation and mirroring in the slice plane are allowed.
        label_set: the structures of the tables.
    """

    def __init__(self, subject: Subject, grid: Grid, label_set: LabelSet) -> None:
        self._subject = subject
        self._grid = grid
        self._values = {structure.key: structure.value for structure in label_set.structures}
        rows, columns = np.mgrid[: grid.shape[1], : grid.shape[2]]
        self._index = np.stack([np.zeros_like(rows), rows, columns], axis=-1).astype(np.float64)

    def slice_labels(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Truth (segment numbers) and tissue codes of a slice, both [row, column]."""
        self._index[..., 0] = index
        points = self._grid.to_patient(self._index)
        z = float(points[0, 0, 2]) / self._subject.stature
        left, forward = (points[..., 0] / self._subject.girth, -points[..., 1] / self._subject.girth)
        shift_y, shift_x = self._shift(z, forward, left)
        forward, left = forward + shift_y, left + shift_x
        truth = np.zeros(self._grid.shape[1:], dtype=np.uint8)
        tissue = np.zeros_like(truth)
        for side, sign in enumerate((-1, 1)):
            plane = self._plane(z, (sign * left).astype(np.float32), forward.astype(np.float32), side)
            half = plane.x >= 0
            self._paint(plane, side, (truth, tissue), half)
        return truth, tissue

    def _shift(self, z: float, y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """By how much the deformation moves each point forward and to the left, mm."""
        depth = np.full(y.shape, z)
        knots = [(at - origin) / KNOT_SPACING_MM for at, origin in zip((depth, y, x), FIELD_ORIGIN_MM, strict=True)]
        forward, left = (
            map_coordinates(each, np.stack(knots), order=1, mode="nearest") for each in self._subject.field_mm
        )
        return forward, left

    def _plane(self, z: float, x: Floats, y: Floats, side: int) -> Plane:
        """The plane with the leg's rotation undone: it grows from nothing at the hip to its full angle at the knee."""
        angle = np.radians(self._subject.twist_deg[side]) * float(np.clip(1 - z / 380, 0, 1.15))
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = x - np.float32(92), y
        turned = np.asarray(cos * u - sin * v + np.float32(92), dtype=np.float32)
        return Plane(np.where(x < 0, x, turned), np.asarray(sin * u + cos * v, dtype=np.float32), z)

    def _paint(
        self, plane: Plane, side: int, out: tuple[NDArray[np.uint8], NDArray[np.uint8]], half: NDArray[np.bool_]
    ) -> None:
        truth, tissue = out
        hull = hull_distance(plane)
        distances = {key: self._structure(key, plane) for key in ("femur", "ilium")}
        bones = self._bones(plane, distances)
        muscle, gap = self._muscles(plane, side, hull)
        found = self._soft_tissue(plane, hull)
        is_muscle = (muscle > 0) & (found < context_code("soft_tissue"))
        found[is_muscle] = np.where(gap, context_code("intermuscular_fat"), 2 * muscle - 1 + side)[is_muscle]
        structure = np.where(is_muscle & ~gap, muscle, 0)
        found = np.where(bones[1] > 0, bones[1], found)
        structure = np.where(bones[1] > 0, bones[0], structure)
        truth[half] = np.where(structure > 0, 2 * structure - 1 + side, 0)[half]
        tissue[half] = found[half]

    def _structure(self, key: str, plane: Plane) -> Floats:
        best = np.full(plane.x.shape, NOWHERE_MM, dtype=np.float32)
        for part in anatomy():
            if part.name == key and (reached := part_distance(part, plane)) is not None:
                where, distance = reached
                if key == "ilium" and part.kind == "tube":
                    # the socket is open to the side and below, where the neck of the femur leaves it
                    opening = 0.75 * (plane.x[where] - 89) - 0.66 * (plane.z - 400) - 12
                    distance = np.maximum(distance, opening)
                best[where] = np.minimum(best[where], distance)
        return best

    def _bones(self, plane: Plane, distance: dict[str, Floats]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Structure values and tissue codes of femur and ilium."""
        structure = np.zeros(plane.x.shape, dtype=np.uint8)
        tissue = np.zeros_like(structure)
        ilium = np.maximum(distance["ilium"], JOINT_SPACE_MM - distance["femur"])
        inside = "femur_marrow" if SHAFT_MM[0] < plane.z < SHAFT_MM[1] else "femur_spongy"
        shaft = SHAFT_MM[0] < plane.z < SHAFT_MM[1]
        for key, signed, cortex_mm, core in (
            ("ilium", ilium, ILIUM_CORTEX_MM, "ilium_spongy"),
            ("femur", distance["femur"], FEMUR_CORTEX_MM if shaft else ILIUM_CORTEX_MM, inside),
        ):
            structure[signed < 0] = self._values[key]
            tissue[signed < 0] = context_code(f"{key}_cortex")
            tissue[signed < -cortex_mm] = context_code(core)
        return structure, tissue

    def _muscles(self, plane: Plane, side: int, hull: Floats) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The nearest muscle at each point (its value), and where two are so near that fat lies between them."""
        best = np.full(plane.x.shape, NOWHERE_MM, dtype=np.float32)
        second = best.copy()
        value = np.zeros(plane.x.shape, dtype=np.uint8)
        for part in anatomy():
            if part.name in ("femur", "ilium") or (reached := part_distance(part, plane)) is None:
                continue
            where, distance = reached
            number = self._values[part.name]
            distance = distance + np.float32(self._subject.atrophy_mm[side, number - 1] - GROW_MM)
            nearer = distance < best[where]
            np.minimum(second[where], np.maximum(best[where], distance), out=second[where])
            value[where] = np.where(nearer, number, value[where])
            np.minimum(best[where], distance, out=best[where])
        value[(best > 0) | (hull > -HULL_MARGIN_MM)] = 0
        return value, (second - best < self._subject.gap_mm)

    def _soft_tissue(self, plane: Plane, hull: Floats) -> NDArray[np.uint8]:
        """Air, skin, fat and context tissue."""
        fat_mm = self._subject.fat_mm
        tissue = np.zeros(plane.x.shape, dtype=np.uint8)
        tissue[hull < fat_mm + SKIN_MM] = context_code("skin")
        tissue[hull < fat_mm] = context_code("subcutaneous_fat")
        tissue[hull < 0] = context_code("visceral_fat" if plane.z > 440 else "intermuscular_fat")
        for part in context():
            if (reached := part_distance(part, plane)) is not None:
                where, distance = reached
                tissue[where][distance < 0] = context_code(part.tissue)
        return tissue
