"""The volume and its grid: where every voxel lies in the patient, without DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels in the patient.

    Attributes:
        shape: number of slices, rows and columns.
        affine: 4 x 4; maps the homogeneous voxel index (slice, row, column, 1) to the centre of that voxel in
            the patient coordinates of DICOM in mm: LPS, +x to the patient's left, +y to the back, +z to the head
            (PS3.3 C.7.6.2.1.1).
    Raises:
        VolumeError: the affine is not finite, not 4 x 4, or has no volume.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

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
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along slices, rows (down a column) and columns (along a row), mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm3; right for sheared axes too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_patient(self, index: FloatArray) -> FloatArray:
        """Voxel indices [..., 3] (slice, row, column) to patient coordinates [..., 3] in LPS mm."""
        return np.asarray(np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, point_mm: FloatArray) -> FloatArray:
        """Patient coordinates [..., 3] in LPS mm to (fractional) voxel indices [..., 3]."""
        offset = np.asarray(point_mm, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)


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
