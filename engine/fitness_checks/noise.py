"""Flags from noise: standard deviations in muscle and in fat, and how far the two stand apart.

Noise is measured in small squares of single slices that lie whole in one muscle, or whole in fat outside of every
structure. The median over the squares is told, so that streaks of fat in a muscle and vessels in the fat do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.fitness_checks.muscles import BONE_GROUP
from engine.flags import Flag, flag_of
from engine.segmentation import Segmentation
from engine.volume import Volume

HIGHEST_NOISE_HU = 30.0
"""Ours: a fifth of the 150 HU between muscle and fat, where a voxel of muscle can no longer be told from one of fat
by the criterion of Rose (1973)."""
LEAST_CONTRAST = 5.0
"""Criterion of Rose (Vision: Human and Electronic, 1973): what differs by less than five times the noise is lost."""
SQUARE_MM = 9.0
FAT_HU = (-150.0, -50.0)
"""Mean attenuation of a square that is fat; fat is about -100 HU."""
EDGE_HU = (-400.0, 300.0)
"""A square outside of every structure with a voxel beyond these reaches into air or bone."""
MOST_LEVELS = 48
"""Slices that are looked at, evenly over the scan."""
LEAST_SQUARES = 20
"""Fewer say nothing."""


@dataclass(frozen=True)
class Tissue:
    """Mean and noise of one tissue in HU, medians over `squares` squares."""

    mean_hu: float
    sd_hu: float
    squares: int


def noise_flags(volume: Volume, segmentation: Segmentation) -> Iterator[Flag | None]:
    """Every check of this module."""
    muscle, fat = tissues(volume, segmentation)
    yield noise(muscle, fat)
    yield low_contrast(muscle, fat)


def noise(muscle: Tissue | None, fat: Tissue | None) -> Flag | None:
    """Whether the noise is above `HIGHEST_NOISE_HU` in muscle or in fat."""
    found = [(tissue.sd_hu, name) for tissue, name in ((muscle, "muscle"), (fat, "fat")) if tissue is not None]
    if not found or max(found)[0] <= HIGHEST_NOISE_HU:
        return None
    sd_hu, name = max(found)
    return flag_of("noise", f"The noise is high: a standard deviation of {sd_hu:.0f} HU in {name}.", sd_hu)


def low_contrast(muscle: Tissue | None, fat: Tissue | None) -> Flag | None:
    """Whether muscle and fat stand apart by less than `LEAST_CONTRAST` times the noise."""
    if muscle is None or fat is None:
        return None
    both_hu = float(np.sqrt((muscle.sd_hu**2 + fat.sd_hu**2) / 2))
    if both_hu == 0:
        return None
    ratio = (muscle.mean_hu - fat.mean_hu) / both_hu
    if ratio >= LEAST_CONTRAST:
        return None
    return flag_of("low_contrast", f"Muscle and fat stand apart by only {ratio:.1f} times the noise.", ratio)


def tissues(volume: Volume, segmentation: Segmentation) -> tuple[Tissue | None, Tissue | None]:
    """Muscle and fat; None for what fills too few squares."""
    slices = volume.grid.shape[0]
    levels = np.unique(np.linspace(0, slices - 1, min(MOST_LEVELS, slices)).round().astype(int))
    down, across = (max(3, round(SQUARE_MM / spacing)) for spacing in volume.grid.spacing_mm[1:])
    is_muscle = np.zeros(256, dtype=bool)
    for segment in segmentation.label_set.segments:
        is_muscle[segment.number] = segment.structure.group != BONE_GROUP
    muscle: list[NDArray[np.float64]] = []
    fat: list[NDArray[np.float64]] = []
    for level in levels:
        labels = _squares(segmentation.labels[level], down, across)
        hu = _squares(volume.hu[level], down, across).astype(np.float64)
        # One row for each square: its mean and SD.
        figures = np.stack([hu.mean(axis=-1), hu.std(axis=-1, ddof=1)], axis=-1)
        whole = labels.min(axis=-1) == labels.max(axis=-1)
        inner = (hu.min(axis=-1) > EDGE_HU[0]) & (hu.max(axis=-1) < EDGE_HU[1])
        is_fat = (labels[:, 0] == 0) & (figures[:, 0] > FAT_HU[0]) & (figures[:, 0] < FAT_HU[1])
        muscle.append(figures[whole & is_muscle[labels[:, 0]]])
        fat.append(figures[whole & inner & is_fat])
    return _tissue(np.concatenate(muscle)), _tissue(np.concatenate(fat))


def _squares(plane: NDArray[np.generic], down: int, across: int) -> NDArray[np.generic]:
    """A slice cut into squares: [square, voxel]; what is left at the far edges is left out."""
    rows, columns = plane.shape[0] // down, plane.shape[1] // across
    cut = plane[: rows * down, : columns * across].reshape(rows, down, columns, across)
    return cut.swapaxes(1, 2).reshape(rows * columns, down * across)


def _tissue(figures: NDArray[np.float64]) -> Tissue | None:
    if len(figures) < LEAST_SQUARES:
        return None
    mean_hu, sd_hu = np.median(figures, axis=0)
    return Tissue(float(mean_hu), float(sd_hu), len(figures))
