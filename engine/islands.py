"""Clean-up: small parts far from their structure, and structures of a few voxels, go back to background."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

from engine.labels import LabelSet

ISLAND_SHARE = 0.05  # of a label's largest part: smaller ones are the network's mistakes
EDGE_VOXELS = 2
"""A structure that the scan cuts off may end a voxel before the edge: the outermost slices are the worst seen."""


def remove_islands(labels: NDArray[np.uint8], share: float = ISLAND_SHARE) -> NDArray[np.uint8]:
    """Labels without the connected parts that hold less than `share` of the voxels of their label's largest part.

    Args:
        labels: uint8, any three axes; 0 is background.
        share: 0..1.
    """
    return _cleaned(labels, share, 0.0)


def remove_specks(labels: NDArray[np.uint8], voxel_volume_mm3: float, least_ml: float) -> NDArray[np.uint8]:
    """Labels without those that hold less than `least_ml` in all; they are then reported as not found.

    Args:
        labels: uint8, any three axes; 0 is background.
        voxel_volume_mm3: volume of one voxel, mm3.
        least_ml: less is a mistake and not a finding, ml; `LabelSet.least_volume_ml`.
    """
    # Plane by plane: counting the whole array at once would need eight times its memory.
    voxels = np.sum([np.bincount(plane.ravel(), minlength=256) for plane in labels], axis=0)
    kept = np.arange(256, dtype=np.uint8)
    kept[voxels * voxel_volume_mm3 / 1000 < least_ml] = 0
    return labels if (kept[voxels > 0] == np.flatnonzero(voxels)).all() else np.asarray(kept[labels])


def remove_islands_and_specks(
    labels: NDArray[np.uint8], voxel_volume_mm3: float, label_set: LabelSet
) -> NDArray[np.uint8]:
    """`remove_islands`, then `remove_specks`, with the connected parts counted once.

    Of a label without any part of `LabelSet.least_whole_ml` only what reaches an edge of the scan stays: a whole
    structure is larger, so this can only be the end of one that the scan cuts off.

    Args:
        labels: see `remove_islands`; the whole scan, or as much of it as shows the body.
        voxel_volume_mm3: see `remove_specks`.
        label_set: knows how small a structure may be.
    """
    least, least_whole = (ml * 1000 / voxel_volume_mm3 for ml in (label_set.least_volume_ml, label_set.least_whole_ml))
    return _cleaned(labels, ISLAND_SHARE, least, least_whole)


def _cleaned(
    labels: NDArray[np.uint8], share: float, least_voxels: float, least_whole_voxels: float = 0.0
) -> NDArray[np.uint8]:
    parts, count = cc3d.connected_components(labels, connectivity=26, return_N=True)
    inside = np.flatnonzero(labels)
    part_of, label_at = parts.ravel()[inside], labels.ravel()[inside]
    sizes = np.bincount(part_of, minlength=count + 1)
    label_of = np.zeros(count + 1, dtype=np.uint8)
    label_of[part_of] = label_at
    largest = np.zeros(256, dtype=np.int64)
    np.maximum.at(largest, label_of, sizes)
    kept = sizes >= share * largest[label_of]
    kept &= (largest[label_of] >= least_whole_voxels) | _at_an_edge(parts, count)
    voxels = np.bincount(label_of, weights=sizes * kept, minlength=256)
    kept &= voxels[label_of] >= least_voxels
    result = labels.copy()
    if not kept[1:].all():
        result.ravel()[inside[~kept[part_of]]] = 0
    return result


def _at_an_edge(parts: NDArray[np.integer], count: int) -> NDArray[np.bool_]:
    """For each connected part whether it reaches into the outermost `EDGE_VOXELS` of the scan."""
    reached = np.zeros(count + 1, dtype=bool)
    for axis in range(parts.ndim):
        planes = np.moveaxis(parts, axis, 0)
        for edge in (planes[:EDGE_VOXELS], planes[-EDGE_VOXELS:]):
            reached[np.unique(edge)] = True
    return reached
