"""Figures that relate a muscle to its owner's body."""

from __future__ import annotations

import math


def height_index_cm3_per_m2(volume_ml: float, height_m: float | None) -> float | None:
    """Volume over height squared, cm3/m2 (Kim 2025 gives it in cc/m2); None without a height, which is never guessed.

    Args:
        volume_ml: volume of a structure; 1 ml is 1 cm3.
        height_m: height of the patient in metres; None where it is not known.

    Raises:
        ValueError: the height is no positive number, or the volume is negative or no number.
    """
    if height_m is None:
        return None
    if not (math.isfinite(height_m) and height_m > 0):
        raise ValueError(f"a height of {height_m} m")
    if not (math.isfinite(volume_ml) and volume_ml >= 0):
        raise ValueError(f"a volume of {volume_ml} ml")
    return volume_ml / height_m**2
