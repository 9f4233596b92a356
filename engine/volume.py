"""The volume and its grid: where every voxel lies in the patient, without DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnevenPlanes:
    """Where the planes of one axis of a grid lie, where their distance varies.

    A place is measured in steps of the affine along that axis: plane k of an axis with one distance lies at k. The
    first plane lies at 0 and the last at their number less one, so that the affine's step is their mean distance.
    Between two planes, index and place are in proportion; outside they go on as they end.

    Attributes:
        axis: 0, the slices, for a scan as it comes; another where the scan has been turned.
        places: [plane].
    Raises:
        VolumeError: there is no such axis, or the places are fewer than two, not finite, not strictly increasing, or
            do not begin and end as told above.
    """

    axis: int
    places: FloatArray

    def __post_init__(self) -> None:
        places = np.array(self.places, dtype=np.float64)  # a copy: it is frozen below, the caller's is not
        ordered = places.ndim == 1 and places.size > 1 and np.isfinite(places).all() and (np.diff(places) > 0).all()
        if self.axis not in (0, 1, 2) or not ordered or abs(places[0]) + abs(places[-1] - places.size + 1) > 1e-6:
            reason = f"the planes of axis {self.axis} do not lie one after the other from 0 to their number less one"
            raise VolumeError("grid", reason, "Check the geometry of the source")
        places.setflags(write=False)
        object.__setattr__(self, "places", places)

    @cached_property
    def edges(self) -> FloatArray:
        """Places [plane + 1] where a plane's share of the space ends: half way to the next, at both ends likewise."""
        half = np.diff(self.places) / 2
        return np.concatenate([self.places[:1] - half[:1], self.places[:-1] + half, self.places[-1:] + half[-1:]])

    @cached_property
    def thickness(self) -> FloatArray:
        """How much of the axis each plane stands for, steps [plane]."""
        return np.diff(self.edges)

    def place_of(self, index: FloatArray) -> FloatArray:
        """Places of (fractional) indices, any shape."""
        below = np.clip(np.floor(index).astype(np.intp), 0, self.places.size - 2)
        start, stop = self.places[below], self.places[below + 1]
        return np.asarray(start + (index - below) * (stop - start))

    def index_of(self, place: FloatArray) -> FloatArray:
        """(Fractional) indices of places, any shape."""
        below = np.clip(np.searchsorted(self.places, place, "right") - 1, 0, self.places.size - 2)
        start, stop = self.places[below], self.places[below + 1]
        return np.asarray(below + (place - start) / (stop - start))

    def turned(self, axis: int, flipped: bool) -> UnevenPlanes:
        """The same planes as those of another axis, in reversed order where it is flipped."""
        places = (self.places.size - 1) - self.places[::-1] if flipped else self.places
        return UnevenPlanes(axis, places)


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of voxels in the patient; its axes may be sheared, and the planes of one of them may lie unevenly.

    Attributes:
        shape: number of slices, rows and columns.
        affine: 4 x 4; maps the homogeneous voxel index (slice, row, column, 1) to the centre of that voxel in
            the patient coordinates of DICOM in mm: LPS, +x to the patient's left, +y to the back, +z to the head
            (PS3.3 C.7.6.2.1.1). Along an uneven axis it maps places instead.
        uneven: where the planes of an axis lie whose distance varies; None where every axis has one distance.
    Raises:
        VolumeError: the affine is not finite, not 4 x 4, or has no volume; or the uneven planes are not those of the
            shape.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    uneven: UnevenPlanes | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)  # a copy: it is frozen below, the caller's is not
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or min(self.shape) < 1:
            raise VolumeError(
                "grid",
                f"shape {self.shape} with affine of shape {affine.shape} spans no space",
                "Check the geometry of the source",
            )
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise VolumeError("grid", "its three axes lie in one plane", "Check the geometry of the source")
        if self.uneven is not None and self.uneven.places.size != self.shape[self.uneven.axis]:
            reason = f"{self.uneven.places.size} planes on axis {self.uneven.axis} of shape {self.shape}"
            raise VolumeError("grid", reason, "Check the geometry of the source")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along slices, rows (down a column) and columns (along a row), mm.

        Along an uneven axis it is their mean distance.
        """
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm3; right for sheared axes too.

        Raises:
            VolumeError: the voxels differ in volume, because the planes of an axis lie unevenly.
        """
        self.require_even("grid")
        return self._mean_voxel_mm3

    @cached_property
    def voxel_volumes_mm3(self) -> FloatArray:
        """Volumes of all voxels, mm3, in a shape that numpy broadcasts to that of the grid.

        A voxel of an uneven axis reaches half way to both neighbours, an outermost one as far out as in.
        """
        volumes = np.full((1, 1, 1), self._mean_voxel_mm3)
        if self.uneven is None:
            return volumes
        return volumes * np.moveaxis(self.uneven.thickness[:, None, None], 0, self.uneven.axis)

    @cached_property
    def _mean_voxel_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def require_even(self, thing: str) -> None:
        """Refuse uneven planes where they would be taken for even ones.

        Raises:
            VolumeError: the distance of its planes varies; `thing` names what needs one distance.
        """
        if self.uneven is not None:
            distance = np.diff(self.uneven.places) * self.spacing_mm[self.uneven.axis]
            reason = f"the distance of its planes varies from {distance.min():.2f} to {distance.max():.2f} mm"
            raise VolumeError(thing, reason, "Resample it to one slice distance")

    def lies_as(self, other: Grid) -> bool:
        """Whether both have the same voxels in the same places."""
        if self.shape != other.shape or not np.allclose(self.affine, other.affine):
            return False
        if self.uneven is None or other.uneven is None:
            return self.uneven is other.uneven
        return self.uneven.axis == other.uneven.axis and np.allclose(self.uneven.places, other.uneven.places)

    def to_patient(self, index: FloatArray) -> FloatArray:
        """Voxel indices [..., 3] (slice, row, column) to patient coordinates [..., 3] in LPS mm."""
        place = np.asarray(index, dtype=np.float64)
        if self.uneven is not None:
            place = place.copy()
            place[..., self.uneven.axis] = self.uneven.place_of(place[..., self.uneven.axis])
        return np.asarray(place @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, point_mm: FloatArray) -> FloatArray:
        """Patient coordinates [..., 3] in LPS mm to (fractional) voxel indices [..., 3]."""
        offset = np.asarray(point_mm, dtype=np.float64) - self.affine[:3, 3]
        index = np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)
        if self.uneven is not None:
            index[..., self.uneven.axis] = self.uneven.index_of(index[..., self.uneven.axis])
        return index


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    Attributes:
        hu: int16 Hounsfield units, axes [slice, row, column].
        grid: where the voxels lie.
    Raises:
        VolumeError: array and grid do not fit, or the array is not int16.
    """

    hu: NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        if self.hu.shape != self.grid.shape or self.hu.dtype != np.int16:
            raise VolumeError(
                "volume",
                f"{self.hu.dtype} array of {self.hu.shape} on a grid of {self.grid.shape}",
                "Give int16 Hounsfield units on their own grid",
            )
