"""What is done to attenuation before the network sees it: the same in training and in service."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preprocessing:
    """How a scan is prepared for the network (Kim 2024, Sci Rep 14:3301).

    Attributes:
        hu_low: attenuation that becomes 0, HU; air and fat lie below it.
        hu_high: attenuation that becomes 1, HU.
        gamma: exponent of the contrast, applied to the values in 0..1.
        spacing_mm: spacing of the network's grid, axes (z, y, x).
        window: voxels of one input of the network, axes (z, y, x).
    """

    hu_low: float = -57.0
    hu_high: float = 164.0
    gamma: float = 2.0
    spacing_mm: tuple[float, float, float] = (2.0, 1.5, 1.5)
    window: tuple[int, int, int] = (96, 96, 96)


PAPER = Preprocessing()


def normalise(hu: torch.Tensor, preprocessing: Preprocessing = PAPER) -> torch.Tensor:
    """Attenuation in HU, any shape and dtype, to the network's input: a new float32 tensor in 0..1."""
    scaled = hu.to(torch.float32) - preprocessing.hu_low
    scaled.mul_(1.0 / (preprocessing.hu_high - preprocessing.hu_low)).clamp_(0.0, 1.0)
    return scaled.square_() if preprocessing.gamma == 2.0 else scaled.pow_(preprocessing.gamma)
