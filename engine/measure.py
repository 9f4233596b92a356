"""Measurements of a segmentation: volume and attenuation of every structure and side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.labels import Segment
from engine.segmentation import Segmentation
from engine.volume import FloatArray, Volume

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
        mean_hu: mean attenuation in HU, each voxel weighed by its volume; None where there is no voxel.
        sd_hu: population standard deviation of the attenuation in HU, likewise; None where there is no voxel.
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
    if not segmentation.grid.lies_as(volume.grid):
        raise VolumeError("measurement", "scan and labels lie on different grids", "Measure labels on their own scan")
    if volume.grid.uneven is not None:
        return _measure_weighed(volume, segmentation)
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


def _measure_weighed(volume: Volume, segmentation: Segmentation) -> Measurements:
    """`measure` where voxels differ in volume."""
    numbers = len(segmentation.label_set.segments) + 1
    # Slice by slice: counting the whole array at once would need eight times its memory.
    voxels = np.sum([np.bincount(plane.ravel(), minlength=numbers) for plane in segmentation.labels], axis=0)
    weights_mm3 = _weighed_histogram(volume, segmentation, numbers)
    at_the_faces = _labels_at_the_faces(segmentation.labels)
    return Measurements(
        tuple(
            _weighed_segment(
                segment, int(voxels[segment.number]), weights_mm3[segment.number], segment.number in at_the_faces
            )
            for segment in segmentation.label_set.segments
        )
    )


def _weighed_segment(segment: Segment, voxels: int, weights_mm3: FloatArray, truncated: bool) -> SegmentMeasurement:
    if voxels == 0:
        return SegmentMeasurement(segment, 0, 0.0, None, None, False)
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    total_mm3 = float(weights_mm3.sum())
    mean = float(weights_mm3 @ hu) / total_mm3
    variance = float(weights_mm3 @ (hu - mean) ** 2) / total_mm3
    return SegmentMeasurement(segment, voxels, total_mm3 / 1000.0, mean, math.sqrt(variance), truncated)


def _labels_at_the_faces(labels: NDArray[np.uint8]) -> set[int]:
    """The numbers in the first and last slices, rows and columns."""
    faces = (labels[[0, -1]], labels[:, [0, -1]], labels[:, :, [0, -1]])
    return {int(number) for face in faces for number in np.unique(face)}


def _joint_histogram(volume: Volume, segmentation: Segmentation, labels: int) -> NDArray[np.int64]:
    """Number of voxels of each label and attenuation, int64 [label, bin]; background is not counted."""
    counts = np.zeros(labels * BINS, dtype=np.int64)
    for start in range(0, volume.grid.shape[0], SLAB):
        _, key = _keys(volume, segmentation, slice(start, start + SLAB))
        counts += np.bincount(key, minlength=labels * BINS)
    return counts.reshape(labels, BINS)


def _keys(volume: Volume, segmentation: Segmentation, slab: slice) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The labelled voxels of some slices, and the place of each in a histogram [label, bin]."""
    label = segmentation.labels[slab].ravel()
    inside = np.flatnonzero(label)
    hu = volume.hu[slab].ravel()[inside]
    return inside, label[inside].astype(np.int64) * BINS + np.clip(hu, LOWEST_HU, HIGHEST_HU) - LOWEST_HU


def _weighed_histogram(volume: Volume, segmentation: Segmentation, labels: int) -> FloatArray:
    """Volume of each label and attenuation, mm3 [label, bin]; background is not counted."""
    weights_mm3 = np.zeros(labels * BINS)
    volumes_mm3 = np.broadcast_to(volume.grid.voxel_volumes_mm3, volume.grid.shape)
    for start in range(0, volume.grid.shape[0], SLAB):
        slab = slice(start, start + SLAB)
        inside, key = _keys(volume, segmentation, slab)
        weights_mm3 += np.bincount(key, weights=volumes_mm3[slab].ravel()[inside], minlength=labels * BINS)
    return weights_mm3.reshape(labels, BINS)
