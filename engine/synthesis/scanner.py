"""From tissues to Hounsfield units: texture, fatty streaks, blur, noise and the table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from engine.synthesis.subject import Subject
from engine.synthesis.tissue import FIRST_CONTEXT, context_code

STREAK_FAT_HU = -70.0


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> NDArray[np.float32]:
    """Correlated noise of unit SD; sigma in voxels along each axis."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)


def attenuation(
    tissue: NDArray[np.uint8], subject: Subject, rng: np.random.Generator, noise_sd_hu: float, blur_voxels: float
) -> NDArray[np.int16]:
    """Draw the attenuation of a slab of tissue codes.

    Args:
        tissue: codes, axes [slice, row, column].
        subject: whose attenuation and infiltration.
        rng: source of noise.
        noise_sd_hu: SD of the scanner's noise in HU.
        blur_voxels: SD of the in-plane blur in voxels.
    Returns:
        int16 HU of the same axes.
    """
    mean, texture = subject.attenuation
    hu = mean[tissue]
    hu += texture[tissue] * smooth_noise(rng, tissue.shape, (0.5, 0.8, 0.8))
    streaks = smooth_noise(rng, tissue.shape, (4.0, 1.2, 1.2))
    fatty = streaks > np.quantile(streaks[::2, ::4, ::4], 1 - subject.infiltration)
    fatty &= (tissue > 0) & (tissue < FIRST_CONTEXT)
    hu[fatty] = STREAK_FAT_HU
    hu = gaussian_filter(hu, (0, blur_voxels, blur_voxels))
    hu += noise_sd_hu * smooth_noise(rng, tissue.shape, (0, 0.7, 0.7))
    return np.asarray(np.clip(np.rint(hu), -1024, 3071), dtype=np.int16)


def add_table(
    tissue: NDArray[np.uint8], forward_mm: NDArray[np.float64], left_mm: NDArray[np.float64], height_mm: float
) -> None:
    """Draw the table's top under the patient into a slice of tissue codes, where there is air."""
    board = (np.abs(forward_mm - height_mm + (left_mm / 400) ** 2 * -30) < 4) & (np.abs(left_mm) < 220)
    tissue[board & (tissue == 0)] = context_code("table")
