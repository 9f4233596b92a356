"""Clean-up: small parts far from their structure, and structures of a few voxels, go back to background."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

ISLAND_SHARE = 0.05  # of a label's largest part: smaller ones are the network's mistakes

LEAST_STRUCTURE_ML = 0.5  # no structure of the label set is near it in an adult: less is a mistake, not a finding


def remove_islands(labels: NDArray[np.uint8], share: float = ISLAND_SHARE) -> NDArray[np.uint8]:
    """Labels without the connected parts that hold less than `share` of the voxels of their label's largest part.

    Args:
        labels: uint8, any three axes; 0 is background.
        share: 0..1.
    """
    parts, count = cc3d.connected_components(labels, connectivity=26, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    label_of = np.zeros(count + 1, dtype=np.uint8)
    label_of[parts.ravel()] = labels.ravel()
    largest = np.zeros(256, dtype=np.int64)
    np.maximum.at(largest, label_of[1:], sizes[1:])
    label_of[sizes < share * largest[label_of]] = 0
    return np.asarray(label_of[parts])


def remove_specks(labels: NDArray[np.uint8], voxel_volume_mm3: float) -> NDArray[np.uint8]:
    """Labels without those that hold less than `LEAST_STRUCTURE_ML` in all; they are then reported as not found.

    Args:
        labels: uint8, any three axes; 0 is background.
        voxel_volume_mm3: volume of one voxel, mm3.
    """
    volumes_ml = np.bincount(labels.ravel(), minlength=256) * voxel_volume_mm3 / 1000
    kept = np.arange(256, dtype=np.uint8)
    kept[volumes_ml < LEAST_STRUCTURE_ML] = 0
    return np.asarray(kept[labels])
