"""Between the scanner's grid and the network's: one way there for the image, one way back for the labels.

The network sees the patient upright in LPS: axes (z, y, x), where a larger index lies further to the head, to the
back and to the patient's left. Every scan is first turned to the orientation that comes closest to that (a view, no
copy); what remains is a scaling along each axis, or, for an oblique or sheared scan, a general affine map. Where the
distance of a scan's planes varies, that map leads to places, and the planes' own places to indices.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from engine.volume import FloatArray, Grid, UnevenPlanes

Scalar = TypeVar("Scalar", bound=np.generic)
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

HOST = torch.device("cpu")
AIR_HU = -1024.0
ALIGNED_COSINE = float(np.cos(np.deg2rad(1.0)))  # up to here the network's grid follows the scan's own axes
PATIENT_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # columns: towards +z, +y, +x
SLAB = 16  # planes handled at a time, so that memory stays bounded


@dataclass(frozen=True)
class Orientation:
    """How to turn a grid so that its axes come closest to (z, y, x) of the patient.

    Attributes:
        axes: the scan's axis that becomes z, y and x.
        flipped: whether that axis runs the other way.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def turn(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """View of a scan's array [slice, row, column] with axes (z, y, x)."""
        return array.transpose(self.axes)[self._directions()]

    def turn_back(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """View of an array with axes (z, y, x) as the scan has it: [slice, row, column]."""
        return array[self._directions()].transpose(np.argsort(self.axes))

    def turn_grid(self, grid: Grid) -> Grid:
        """The same voxels in the same places, with axes (z, y, x)."""
        affine = np.eye(4)
        affine[:3, 3] = grid.affine[:3, 3]
        for target, (axis, flipped) in enumerate(zip(self.axes, self.flipped, strict=True)):
            step = grid.affine[:3, axis]
            affine[:3, target] = -step if flipped else step
            affine[:3, 3] += step * (grid.shape[axis] - 1) * flipped
        shape = (grid.shape[self.axes[0]], grid.shape[self.axes[1]], grid.shape[self.axes[2]])
        if grid.uneven is None:
            return Grid(shape, affine)
        target = self.axes.index(grid.uneven.axis)
        return Grid(shape, affine, grid.uneven.turned(target, self.flipped[target]))

    def _directions(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flipped else 1) for flipped in self.flipped)


def closest_orientation(grid: Grid) -> Orientation:
    """The permutation and flips that bring `grid` closest to (z, y, x)."""
    cosines = _cosines(grid)
    _, axes = linear_sum_assignment(-np.abs(cosines))
    signs = [bool(cosines[target, axis] < 0) for target, axis in enumerate(axes)]
    return Orientation((int(axes[0]), int(axes[1]), int(axes[2])), (signs[0], signs[1], signs[2]))


def is_aligned(turned: Grid) -> bool:
    """Whether each axis of a turned grid lies within one degree of its patient axis."""
    return bool(np.diag(_cosines(turned)).min() >= ALIGNED_COSINE)


def network_grid(turned: Grid, points: FloatArray, margin_mm: float, spacing_mm: tuple[float, float, float]) -> Grid:
    """The network's grid around some points of a turned scan.

    An aligned scan keeps its own axes, and the grid covers whole voxels of it, so that its spacing differs a little
    from the wanted one and nothing else does. Otherwise the grid stands upright in the patient's coordinates. Its own
    planes always lie evenly.

    Args:
        turned: the scan's grid with axes (z, y, x).
        points: voxel indices [n, 3] that must be covered.
        margin_mm: room around them.
        spacing_mm: wanted spacing, axes (z, y, x).
    """
    if not is_aligned(turned):
        return _upright_grid(turned.to_patient(points), margin_mm, spacing_mm)
    margin = margin_mm / np.array(turned.spacing_mm)
    start = np.clip(np.floor(points.min(axis=0) - margin), 0, np.array(turned.shape) - 1)
    stop = np.clip(np.ceil(points.max(axis=0) + margin) + 1, start + 1, turned.shape)
    if turned.uneven is not None:
        axis = turned.uneven.axis
        ends = np.array([points[:, axis].min(), points[:, axis].max()])
        start[axis], stop[axis] = _whole_planes(turned.uneven, ends, float(margin[axis])) + 0.5
    shape = np.maximum(1, np.rint((stop - start) * turned.spacing_mm / np.array(spacing_mm))).astype(int)
    step = (stop - start) / shape
    placing = np.diag([*step, 1.0])
    placing[:3, 3] = start - 0.5 + step / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), turned.affine @ placing)


def even_grid(grid: Grid) -> Grid:
    """The grid of the same space whose planes lie evenly, as many as there are; the grid itself where they do."""
    if grid.uneven is None:
        return grid
    edges, placing = grid.uneven.edges, np.eye(4)
    step = (edges[-1] - edges[0]) / grid.uneven.places.size
    placing[grid.uneven.axis, [grid.uneven.axis, 3]] = step, edges[0] + step / 2
    return Grid(grid.shape, grid.affine @ placing)


def sample_linear(hu: NDArray[np.int16], source: Grid, target: Grid, device: torch.device = HOST) -> torch.Tensor:
    """The image on another grid, by linear interpolation between voxel centres.

    Args:
        hu: attenuation on `source`, HU.
        source: grid of `hu`, axes (z, y, x).
        target: grid of the result; where it covers whole voxels of `source` this is exactly torch's
            `interpolate(mode="trilinear", align_corners=False)`.
        device: where it is computed and where the result lies.

    Returns:
        float32 HU of `target.shape`; air outside the source.
    """
    way = _way(target, source)
    if target.uneven is None:
        box = _whole_voxels(way, source.shape, target.shape)
        if box is not None and source.uneven is not None:
            return _interpolate_between(hu, box, way, target.shape, device)
        if box is not None:
            return _interpolate(hu, box, target.shape, device)
    result = torch.full(target.shape, AIR_HU, dtype=torch.float32, device=device)
    for start in range(0, target.shape[0], SLAB):
        _sample_slab(hu, way, start, result[start : start + SLAB])
    return result


def sample_nearest(values: NDArray[Scalar], source: Grid, target: Grid) -> NDArray[Scalar]:
    """Labels (or a mask) on another grid: each voxel takes the value of the nearest voxel, 0 outside the source."""
    way = _way(target, source)
    result = np.zeros(target.shape, dtype=values.dtype)
    if _is_diagonal(way.relation):
        _gather_separable(values, way, result)
        return result
    _gather_oblique(values, way, result)
    return result


@dataclass(frozen=True, eq=False)
class _Way:
    """From the voxels of one grid to those of another.

    Attributes:
        relation: 4 x 4 map from places on the one grid to places on the other; a place is an index, but on an uneven
            axis.
        here: the uneven planes of the one.
        there: the uneven planes of the other.
    """

    relation: FloatArray
    here: UnevenPlanes | None
    there: UnevenPlanes | None

    def place_of(self, axis: int, index: NDArray[np.integer]) -> NDArray[Any]:
        """Places of the one grid's planes, whose indices are given."""
        return self.here.places[index] if self.here is not None and self.here.axis == axis else index

    def index_of(self, axis: int, place: FloatArray) -> FloatArray:
        """(Fractional) indices on the other grid of places there."""
        return self.there.index_of(place) if self.there is not None and self.there.axis == axis else place


def _cosines(grid: Grid) -> FloatArray:
    """Cosines of the angles [patient axis z, y, x; grid axis]."""
    return np.asarray(PATIENT_AXES.T @ (grid.affine[:3, :3] / np.array(grid.spacing_mm)))


def _upright_grid(points_mm: FloatArray, margin_mm: float, spacing_mm: tuple[float, float, float]) -> Grid:
    low = points_mm.min(axis=0)[::-1] - margin_mm
    high = points_mm.max(axis=0)[::-1] + margin_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES * np.array(spacing_mm)
    affine[:3, 3] = low[::-1]
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _whole_planes(uneven: UnevenPlanes, ends: FloatArray, margin: float) -> FloatArray:
    """Places where the first and the last plane begin and end that hold two indices with a margin, in steps, around."""
    low, high = uneven.place_of(ends) + np.array([-margin, margin])
    first = np.clip(np.searchsorted(uneven.edges, low, "right") - 1, 0, uneven.places.size - 1)
    last = np.clip(np.searchsorted(uneven.edges, high, "left"), first + 1, uneven.places.size)
    return uneven.edges[[first, last]]


def _way(here: Grid, there: Grid) -> _Way:
    return _Way(np.asarray(np.linalg.inv(there.affine) @ here.affine), here.uneven, there.uneven)


def _is_diagonal(relation: FloatArray) -> bool:
    scaling = relation[:3, :3]
    return bool(np.abs(scaling - np.diag(np.diag(scaling))).max() < 1e-7 and np.diag(scaling).min() > 0)


def _whole_voxels(way: _Way, source: tuple[int, ...], target: tuple[int, ...]) -> Box | None:
    """The voxels of the source that the target covers exactly, as (start, stop) of each axis, or None.

    On an uneven axis of the source the target may lie anywhere within it.
    """
    relation = way.relation
    step = np.diag(relation)[:3]
    start = relation[:3, 3] - step / 2 + 0.5
    stop = start + step * target
    if way.there is not None:
        ends = np.array([start[way.there.axis], stop[way.there.axis]]) - 0.5
        within = np.clip(ends, way.there.edges[0], way.there.edges[-1])
        start[way.there.axis] = 0 if np.abs(ends - within).max() < 1e-3 else -1
        stop[way.there.axis] = source[way.there.axis]
    edges = np.rint(np.stack([start, stop], axis=1)).astype(int)
    inside = bool((edges[:, 0] >= 0).all() and (edges[:, 1] <= source).all())
    if not _is_diagonal(relation) or not inside or np.abs(edges - np.stack([start, stop], axis=1)).max() > 1e-3:
        return None
    (a, b), (c, d), (e, f) = edges.tolist()
    return (a, b), (c, d), (e, f)


def _interpolate(hu: NDArray[np.int16], box: Box, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Trilinear interpolation in two passes, in the planes and then across them: less memory, the same numbers."""
    (bottom, top), rows, columns = box
    planes = _interpolate_planes(hu[bottom:top, slice(*rows), slice(*columns)], shape[1:], device)
    return functional.interpolate(planes[None, None], size=shape, mode="trilinear", align_corners=False)[0, 0]


def _interpolate_between(
    hu: NDArray[np.int16], box: Box, way: _Way, shape: tuple[int, int, int], device: torch.device
) -> torch.Tensor:
    """`_interpolate` of a scan with uneven planes: in these planes as there, and then between neighbours by place."""
    uneven = way.there
    if uneven is None:
        raise ValueError("all planes of the scan lie evenly")
    axis = uneven.axis
    scale, offset = way.relation[axis, [axis, 3]]
    exact = np.clip(uneven.index_of(scale * np.arange(shape[axis]) + offset), 0, hu.shape[axis] - 1)
    below = np.minimum(exact.astype(np.intp), hu.shape[axis] - 2)
    first, last = int(below.min()), int(below.max()) + 2
    part = np.moveaxis(hu[tuple(slice(*extent) for extent in box)], axis, 0)[first:last]
    planes = _interpolate_planes(part, tuple(np.delete(shape, axis).tolist()), device)
    lower = torch.from_numpy(below - first).to(device)
    share = torch.from_numpy((exact - below).astype(np.float32)).to(device)[:, None, None]
    result = torch.empty(shape, dtype=torch.float32, device=device)
    across = result.movedim(axis, 0)
    for start in range(0, shape[axis], SLAB):
        some = slice(start, start + SLAB)
        across[some] = torch.lerp(planes[lower[some]], planes[lower[some] + 1], share[some])
    return result


def _interpolate_planes(hu: NDArray[np.int16], size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Each plane of a scan [plane, row, column] in another size, float32, with the scan's edges as its own."""
    planes = torch.empty((len(hu), *size), dtype=torch.float32, device=device)
    for start in range(0, len(hu), SLAB):
        slab = _on(device, hu[start : start + SLAB])[:, None]
        planes[start : start + SLAB] = functional.interpolate(slab, size=size, mode="bilinear", align_corners=False)[
            :, 0
        ]
    return planes


def _on(device: torch.device, hu: NDArray[np.int16]) -> torch.Tensor:
    """Attenuation as float32 on a device; it travels as int16."""
    if device == HOST:
        return torch.from_numpy(hu.astype(np.float32, order="C"))
    return torch.from_numpy(np.array(hu, order="C")).to(device).to(torch.float32)


def _coordinates(way: _Way, start: int, shape: tuple[int, ...]) -> list[FloatArray]:
    """For planes from `start` on: where each voxel lies on the other grid, one array [d, h, w] for each axis there."""
    indices = np.ogrid[start : start + shape[0], 0 : shape[1], 0 : shape[2]]
    z, y, x = (way.place_of(axis, index) for axis, index in enumerate(indices))
    places = [np.asarray(row[0] * z + row[1] * y + row[2] * x + row[3]) for row in way.relation[:3]]
    return [way.index_of(axis, place) for axis, place in enumerate(places)]


def _sample_slab(hu: NDArray[np.int16], way: _Way, start: int, result: torch.Tensor) -> None:
    """Fill `result`, the target's planes from `start` on, from the part of the scan that they touch."""
    place = _coordinates(way, start, tuple(result.shape))
    known = np.ones(tuple(result.shape), dtype=bool)
    part, grid = [], []
    for axis, count in zip(place, hu.shape, strict=True):
        known &= (axis >= -0.5 - 1e-6) & (axis <= count - 0.5 + 1e-6)
        low = int(np.clip(np.floor(axis.min()), 0, count - 1))
        high = int(np.clip(np.ceil(axis.max()) + 1, low + 1, count))
        part.append(slice(low, high))
        grid.append((axis - low) * (2.0 / max(high - low - 1, 1)) - 1.0)
    if not known.any():
        return
    image = _on(result.device, hu[tuple(part)])[None, None]
    where = torch.from_numpy(np.stack(grid[::-1], axis=-1).astype(np.float32)).to(result.device)[None]
    sampled = functional.grid_sample(image, where, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
    inside = torch.from_numpy(known).to(result.device)
    result[inside] = sampled[inside]


def _gather_separable(values: NDArray[Scalar], way: _Way, result: NDArray[Scalar]) -> None:
    relation = way.relation
    paste: list[slice] = []
    places: list[NDArray[np.int64]] = []
    for axis, count in enumerate(result.shape):
        index = np.arange(count)
        edge = relation[axis, axis] * way.place_of(axis, index) + relation[axis, 3] + 0.5
        if way.there is not None and way.there.axis == axis:
            edge = way.there.index_of(edge - 0.5) + 0.5
        place = np.floor(edge + 1e-9).astype(np.int64)
        # Half way between two voxels every other one goes down, or the labels would drift by part of a voxel.
        place -= (np.abs(edge - place) < 1e-6) & (index % 2 == 1)
        known = np.flatnonzero((place >= 0) & (place < values.shape[axis]))
        if known.size == 0:
            return
        paste.append(slice(int(known[0]), int(known[-1]) + 1))
        places.append(place[known])
    known_part = result[tuple(paste)]
    for level, (before, place) in enumerate(pairwise((-1, *places[0].tolist()))):
        # Plane by plane, which needs no memory; where the target has more planes, many are the one before again.
        if level and place == before:
            known_part[level] = known_part[level - 1]
        else:
            known_part[level] = values[place].take(places[2], axis=1).take(places[1], axis=0)


def _gather_oblique(values: NDArray[Scalar], way: _Way, result: NDArray[Scalar]) -> None:
    """Fill the part of `result` where `values` lie, plane by plane in the same memory, which is what makes it fast."""
    padded = np.pad(values, 1)  # what lies outside is drawn to this border of zeros
    steps = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
    levels, rows, columns = _touched_box(way, values.shape, result.shape)
    y, x = (way.place_of(axis + 1, index) for axis, index in enumerate(np.ogrid[rows, columns]))
    heights = way.place_of(0, np.arange(result.shape[0]))
    # One for the border, a half because the cast to an index rounds down.
    sheets = [row[1] * y + row[2] * x + row[3] + 1.5 for row in way.relation[:3]]
    place = np.empty(sheets[0].shape)
    whole, index = np.empty(place.shape, dtype=np.intp), np.empty(place.shape, dtype=np.intp)
    for z in range(levels.start, levels.stop):
        index[:] = 0
        for axis, (sheet, count, step) in enumerate(zip(sheets, padded.shape, steps, strict=True)):
            np.add(sheet, way.relation[axis, 0] * heights[z], out=place)
            if way.there is not None and way.there.axis == axis:
                place[:] = way.there.index_of(place - 1.5) + 1.5
            np.clip(place, 0, count - 0.5, out=place)
            np.copyto(whole, place, casting="unsafe")
            whole *= step
            index += whole
        result[z, rows, columns] = padded.take(index)


def _touched_box(way: _Way, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """The box of the target's voxels that holds all whose nearest voxel is one of the source."""
    ends = [(-0.5, count - 0.5) for count in source]
    if way.there is not None:
        ends[way.there.axis] = (float(way.there.edges[0]), float(way.there.edges[-1]))
    corners = (np.array([(z, y, x, 1.0) for z, y, x in product(*ends)]) @ np.linalg.inv(way.relation).T)[:, :3]
    if way.here is not None:
        corners[:, way.here.axis] = way.here.index_of(corners[:, way.here.axis])
    low = np.clip(np.floor(corners.min(axis=0)), 0, target).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, low, target).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
