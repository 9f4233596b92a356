"""Distances in volumes: ITK's Maurer filter, several times as fast as SciPy's and equal to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK
from numpy.typing import NDArray


def distance_mm(body: NDArray[np.bool_], spacing_mm: float) -> NDArray[np.float32]:
    """How far each voxel's centre is from that of the nearest voxel of a body: 0 in it, infinite where it is empty.

    Args:
        body: any volume of isotropic voxels.
        spacing_mm: their distance.
    """
    if not body.any():
        return np.full(body.shape, np.inf, dtype=np.float32)
    maurer: Callable[..., SimpleITK.Image] = SimpleITK.SignedMaurerDistanceMap
    signed = maurer(SimpleITK.GetImageFromArray(body.astype(np.uint8)), squaredDistance=False)
    away = SimpleITK.GetArrayViewFromImage(signed)
    return np.asarray(np.maximum(away, 0) * np.float32(spacing_mm), dtype=np.float32)
