"""A segmentation: a label for every voxel of the scanner's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.labels import LabelSet
from engine.volume import Grid


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels on the volume's own grid.

    Attributes:
        labels: uint8, axes [slice, row, column]; 0 is background, otherwise `Segment.number` of `label_set.segments`.
        grid: the volume's grid.
        label_set: what the numbers mean.
    Raises:
        VolumeError: array and grid do not fit.
    """

    labels: NDArray[np.uint8]
    grid: Grid
    label_set: LabelSet

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape or self.labels.dtype != np.uint8:
            raise VolumeError(
                "segmentation",
                f"{self.labels.dtype} array of {self.labels.shape} on {self.grid.shape}",
                "Give uint8 labels on the volume's own grid",
            )
