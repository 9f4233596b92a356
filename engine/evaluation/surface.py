"""Distances between two surfaces in mm.

The surface of a mask is its voxels that have one of their six neighbours outside; beyond the edge of the scan all is
outside. Distances go between voxel centres in the patient, exactly, on any spacing and on sheared axes too: by a k-d
tree of the surface alone, which for two legs takes a tenth of the time and memory of a distance map of their box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

from engine.volume import FloatArray, Grid

Box = tuple[slice, slice, slice]
PERCENTILE = 95.0


@dataclass(frozen=True)
class SurfaceDistances:
    """How far two surfaces lie apart, mm; S_P and S_G are the surface voxels of prediction and truth.

    Attributes:
        assd_mm: average symmetric surface distance, pooled: the mean over all voxels of S_P and S_G together.
        masd_mm: mean of the two directed means; another number than ASSD where S_P and S_G differ in size.
        hd_mm: Hausdorff distance, the larger of the two directed maxima.
        hd95_mm: the larger of the two directed 95th percentiles.
    """

    assd_mm: float
    masd_mm: float
    hd_mm: float
    hd95_mm: float


def label_boxes(labels: NDArray[np.uint8]) -> dict[int, Box]:
    """The bounding box of every label that occurs."""
    return {value: box for value, box in enumerate(find_objects(labels), start=1) if box is not None}


def union_box(values: tuple[int, ...], *boxes: dict[int, Box]) -> Box | None:
    """The bounding box of some labels in one or more volumes, from their `label_boxes`; None where none occurs."""
    found = [each[value] for each in boxes for value in values if value in each]
    if not found:
        return None
    sides = [slice(min(box[axis].start for box in found), max(box[axis].stop for box in found)) for axis in range(3)]
    return sides[0], sides[1], sides[2]


def members(labels: NDArray[np.uint8], values: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which voxels hold one of some values, as a mask of the shape of `labels`."""
    wanted = np.zeros(256, dtype=bool)
    wanted[list(values)] = True
    return wanted[labels]


def surface_points(labels: NDArray[np.uint8], values: tuple[int, ...], boxes: dict[int, Box], grid: Grid) -> FloatArray:
    """Surface of the union of some labels: voxel centres [n, 3] in LPS mm.

    Args:
        labels: uint8, axes [slice, row, column].
        values: the labels of the union.
        boxes: `label_boxes(labels)`; only what lies within is looked at.
        grid: grid of `labels`.
    """
    box = union_box(values, boxes)
    if box is None:
        return np.empty((0, 3))
    mask = members(labels[box], values)
    # The box is as tight as can be: a voxel at its side has nothing of the mask beyond.
    edge = mask & ~binary_erosion(mask)
    return grid.to_patient(np.argwhere(edge).astype(np.float64) + [side.start for side in box])


def surface_distances(prediction: FloatArray, truth: FloatArray) -> SurfaceDistances:
    """Compare two surfaces, each of at least one point [n, 3] in mm."""
    to_truth = _nearest(truth, prediction)
    to_prediction = _nearest(prediction, truth)
    directed = (to_truth, to_prediction)
    return SurfaceDistances(
        assd_mm=float((to_truth.sum() + to_prediction.sum()) / (len(to_truth) + len(to_prediction))),
        masd_mm=float(np.mean([each.mean() for each in directed])),
        hd_mm=float(max(each.max() for each in directed)),
        hd95_mm=float(max(np.percentile(each, PERCENTILE) for each in directed)),
    )


def as_far_as_can_be(grid: Grid) -> SurfaceDistances:
    """What stands for the distance to a surface that is not there: the diagonal of the scan, in every place.

    Left out instead, a mean would improve as the model misses (Project-MONAI/MONAI#9095).
    """
    edges = grid.affine[:3, :3] * np.array(grid.shape)
    corners = np.array([(1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)])  # sheared axes have four different ones
    diagonal = float(np.linalg.norm(edges @ corners.T, axis=0).max())
    return SurfaceDistances(diagonal, diagonal, diagonal, diagonal)


def _nearest(surface: FloatArray, points: FloatArray) -> FloatArray:
    """Distance of each point [n, 3] to the nearest of a surface, mm [n]."""
    tree = KDTree(surface, balanced_tree=False)  # the voxels lie evenly as they are: twice as fast, the same distances
    return np.asarray(tree.query(points)[0])
