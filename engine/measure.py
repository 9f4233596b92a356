"""Measurements of a segmentation: volume and attenuation of every structure and side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.labels import Segment
from engine.segmentation import Segmentation
from engine.volume import Volume

LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Attenuation is counted in bins of 1 HU between these; what lies beyond (metal) counts as the nearer of them."""
BINS = HIGHEST_HU - LOWEST_HU + 1
SLAB = 4


@dataclass(frozen=True)
class SegmentMeasurement:
    """What was measured of one segment.

    Attributes:
        segment: structure and side.
        voxels: number of voxels on the scanner's grid; 0 where the structure was not found.
        volume_ml: volume in ml.
        mean_hu: mean attenuation in HU; None where there is no voxel.
        sd_hu: population standard deviation of the attenuation in HU; None where there is no voxel.
        truncated: the structure touches one of the six faces of the scan, so its volume is not whole. What a round
            field of view cuts off inside the slices is not noticed: its padding cannot be told from air.
    """

    segment: Segment
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    truncated: bool


@dataclass(frozen=True)
class Measurements:
    """One row for each segment of the label set, in the order of the segment numbers."""

    segments: tuple[SegmentMeasurement, ...]


def measure(volume: Volume, segmentation: Segmentation) -> Measurements:
    """Volume, mean and SD of attenuation, and completeness of every segment, on the scanner's own voxels.

    Args:
        volume: the scan.
        segmentation: its labels, on the same grid.

    Raises:
        VolumeError: the labels belong to another grid.
    """
    if segmentation.grid.shape != volume.grid.shape or not np.allclose(segmentation.grid.affine, volume.grid.affine):
        raise VolumeError("measurement", "scan and labels lie on different grids", "Measure labels on their own scan")
    counts = _joint_histogram(volume, segmentation, len(segmentation.label_set.segments) + 1)
    at_the_faces = _labels_at_the_faces(segmentation.labels)
    voxel_ml = volume.grid.voxel_volume_mm3 / 1000.0
    return Measurements(
        tuple(
            _measure_segment(segment, counts[segment.number], voxel_ml, segment.number in at_the_faces)
            for segment in segmentation.label_set.segments
        )
    )


def _measure_segment(
    segment: Segment, counts: NDArray[np.int64], voxel_ml: float, truncated: bool
) -> SegmentMeasurement:
    voxels = int(counts.sum())
    if voxels == 0:
        return SegmentMeasurement(segment, 0, 0.0, None, None, False)
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    total = int(counts @ hu)
    # Python's integers keep the difference of the two large terms exact.
    variance = (voxels * int(counts @ hu**2) - total**2) / voxels**2
    return SegmentMeasurement(segment, voxels, voxels * voxel_ml, total / voxels, math.sqrt(variance), truncated)


def _labels_at_the_faces(labels: NDArray[np.uint8]) -> set[int]:
    """The numbers in the first and last slices, rows and columns."""
    faces = (labels[[0, -1]], labels[:, [0, -1]], labels[:, :, [0, -1]])
    return {int(number) for face in faces for number in np.unique(face)}


def _joint_histogram(volume: Volume, segmentation: Segmentation, labels: int) -> NDArray[np.int64]:
    """Number of voxels of each label and attenuation, int64 [label, bin]; background is not counted."""
    counts = np.zeros(labels * BINS, dtype=np.int64)
    for start in range(0, volume.grid.shape[0], SLAB):
        label = segmentation.labels[start : start + SLAB].ravel()
        inside = np.flatnonzero(label)
        hu = volume.hu[start : start + SLAB].ravel()[inside]
        key = label[inside].astype(np.int64) * BINS + np.clip(hu, LOWEST_HU, HIGHEST_HU) - LOWEST_HU
        counts += np.bincount(key, minlength=labels * BINS)
    return counts.reshape(labels, BINS)
