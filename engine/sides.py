"""Left and right: found from the two femora, because the network does not tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.stats import siegelslopes

from engine.errors import SideError
from engine.islands import remove_islands
from engine.labels import LabelSet, Side
from engine.volume import FloatArray, Grid

LEAST_AREA_MM2 = 80.0  # of a femur in one level; a shaft has about 600
LEAST_GAP_MM = 10.0  # between the femora of one level
LEAST_DISTANCE_MM = 70.0  # between their middles: head and trochanter of one femur are closer
LEAST_LENGTH_MM = 25.0  # of the levels that show two femora
STRAY_MM = 20.0  # a pair whose middle lies further from the plane is not the two femora
WHOLE_SHARE = 0.75  # a part with at least this share on one side belongs there whole


@dataclass(frozen=True)
class MidPlane:
    """The surface between the legs: x_mm = offset + forward * y + up * z, with z kept to the levels of the femora.

    Attributes:
        offset_mm: x where y and z are 0.
        forward: mm of x for one mm of y: how far the patient is rolled.
        up: mm of x for one mm of z: how far the legs lie askew.
        lowest_mm: lowest level with two femora, z.
        highest_mm: highest level with two femora, z.
    """

    offset_mm: float
    forward: float
    up: float
    lowest_mm: float
    highest_mm: float

    def is_left(self, point_mm: FloatArray) -> NDArray[np.bool_]:
        """Whether points [..., 3] in LPS mm lie on the patient's left."""
        level = np.clip(point_mm[..., 2], self.lowest_mm, self.highest_mm)
        return np.asarray(point_mm[..., 0] > self.offset_mm + self.forward * point_mm[..., 1] + self.up * level)


def number_sides(classes: NDArray[np.uint8], grid: Grid, label_set: LabelSet) -> NDArray[np.uint8]:
    """Give every voxel its side.

    Each connected part of a structure goes whole to the side on which nearly all of it lies; a part that joins both
    sides is cut between the legs. A label set without sides needs no femora.

    Args:
        classes: `Structure.value` of each voxel, uint8, axes (z, y, x) with x towards the patient's left.
        grid: its grid.
        label_set: what the values mean.

    Returns:
        `Segment.number` of each voxel, uint8.

    Raises:
        SideError: no two femora lie side by side.
    """
    on_the_right, on_the_left = (np.array(label_set.numbers_on(side), dtype=np.uint8) for side in Side)
    if label_set.femur is None:
        return np.asarray(on_the_right[classes])
    plane = find_mid_plane(classes == label_set.structure(label_set.femur).value, grid)
    parts, count = cc3d.connected_components(classes, connectivity=6, return_N=True)
    inside = np.flatnonzero(classes)
    part_of, left = parts.ravel()[inside], _left_of(plane, grid).ravel()[inside]
    sizes = np.bincount(part_of, minlength=count + 1)
    share = np.bincount(part_of[left], minlength=count + 1) / np.maximum(sizes, 1)
    whole_left, whole_right = share >= WHOLE_SHARE, share <= 1 - WHOLE_SHARE
    left = (left | whole_left[part_of]) & ~whole_right[part_of]
    result = on_the_right[classes]
    values = classes.ravel()[inside[left]]
    result.ravel()[inside[left]] = on_the_left[values]
    return np.asarray(result)


def find_mid_plane(femora: NDArray[np.bool_], grid: Grid) -> MidPlane:
    """The surface between two femora.

    Small parts far from the femora are left out. Siegel's repeated medians (Biometrika 1982;69:242) then tell which
    pairs are the two femora, as long as most are, and the plane is fitted to these.

    Args:
        femora: voxels of both femora, axes (z, y, x).
        grid: its grid.

    Raises:
        SideError: too few levels show two femora side by side.
    """
    first, bones = _cropped(femora)
    bones = remove_islands(bones.view(np.uint8)) > 0
    corners = [first + np.array([level, 0, 0]) for level in range(len(bones))]
    found = [_pair(bone, grid, corner) for bone, corner in zip(bones, corners, strict=True)]
    pairs = [pair for pair in found if pair is not None]
    _check_length(len(pairs) * grid.spacing_mm[0])
    right, left = np.moveaxis(np.array(pairs), 1, 0)
    across = np.median(left - right, axis=0)
    middle = (left + right) / 2
    forward = -float(across[1] / across[0])
    level, across_mm = middle[:, 2], middle[:, 0] - forward * middle[:, 1]
    up, offset = siegelslopes(across_mm, level)
    femoral = np.abs(across_mm - offset - up * level) < STRAY_MM
    level, across_mm = level[femoral], across_mm[femoral]
    _check_length(level.size * grid.spacing_mm[0])
    up, offset = np.polyfit(level, across_mm, 1)
    return MidPlane(float(offset), forward, float(up), float(level.min()), float(level.max()))


def _check_length(length_mm: float) -> None:
    if length_mm < LEAST_LENGTH_MM:
        reason = f"only {length_mm:.0f} mm of the scan show two femora side by side"
        raise SideError("left and right", reason, "Send a scan of both thighs, or measure this one by hand")


def _cropped(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The part of a mask that is not empty, and the index of its first voxel."""
    first, parts = [], []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first.append(used[0] if used.size else 0)
        parts.append(slice(first[-1], used[-1] + 1 if used.size else 0))
    return np.array(first, dtype=np.intp), np.ascontiguousarray(mask[tuple(parts)])


def _pair(level: NDArray[np.bool_], grid: Grid, corner: NDArray[np.intp]) -> tuple[FloatArray, FloatArray] | None:
    """Middles in LPS mm of the right and the left femur in one level, or None where there are not two.

    Args:
        level: [row, column] of a part of one level.
        grid: the grid of the whole.
        corner: index of the part's first voxel in the grid.
    """
    columns = np.flatnonzero(level.any(axis=0))
    if columns.size < 2:
        return None
    gaps = np.diff(columns)
    widest = int(gaps.argmax())
    if (gaps[widest] - 1) * grid.spacing_mm[2] < LEAST_GAP_MM:
        return None
    middles = []
    for first, last in ((columns[0], columns[widest]), (columns[widest + 1], columns[-1])):
        rows, places = np.nonzero(level[:, first : last + 1])
        if rows.size * grid.spacing_mm[1] * grid.spacing_mm[2] < LEAST_AREA_MM2:
            return None
        middles.append(grid.to_patient(corner + np.array([0.0, rows.mean(), first + places.mean()])))
    right, left = middles
    return (right, left) if np.linalg.norm(left - right) >= LEAST_DISTANCE_MM else None


def _left_of(plane: MidPlane, grid: Grid) -> NDArray[np.bool_]:
    """`MidPlane.is_left` of every voxel, level by level: what it compares is a sum over the three indices."""
    x, y, z = (grid.affine[axis] for axis in range(3))
    across = x - plane.forward * y
    rows, columns = (np.arange(length, dtype=np.float64) for length in grid.shape[1:])
    sheet = (across[1] * rows)[:, None] + across[2] * columns
    heights = (z[1] * rows)[:, None] + z[2] * columns
    result = np.empty(grid.shape, dtype=bool)
    middle = np.empty(grid.shape[1:])
    for level in range(grid.shape[0]):
        np.clip(heights + (z[0] * level + z[3]), plane.lowest_mm, plane.highest_mm, out=middle)
        middle *= plane.up
        middle += plane.offset_mm - (across[0] * level + across[3])
        np.greater(sheet, middle, out=result[level])
    return result
