"""What a training learns from: batches that are drawn by number.

Batch n of a phase is always the same for a seed, so a run that was stopped goes on with the draws it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

SEEDS = 900_000_000
"""Every seed of a training lies below; those from here on belong to the scans that models are judged on."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows to learn from.

    Attributes:
        image: the network's input, float32 [window, 1, z, y, x].
        classes: the class of each voxel, uint8 [window, 1, z, y, x].
    """

    image: torch.Tensor
    classes: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.image.to(device, non_blocking=True), self.classes.to(device, non_blocking=True))


@dataclass(frozen=True)
class Start:
    """Where a stream of batches begins.

    Attributes:
        phase: number of the phase in the preset.
        batch: draws a step.
        step: steps of the phase that are behind it.
    """

    phase: int
    batch: int
    step: int


class Source(Protocol):
    """Training data."""

    def epoch_steps(self, batch: int) -> int:
        """Steps of an epoch with so many draws a step."""

    def batches(self, start: Start) -> Iterator[Batch]:
        """The endless batches of a phase from a step on; batch n is the same wherever it begins."""

    def held_out(self) -> Iterator[Batch]:
        """What the network is judged on, one patch or whole scan at a time, always the same; never trained on."""


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, below `SEEDS`: other numbers give another one that has nothing to do with it."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0]) % SEEDS


def stacked(images: Sequence[torch.Tensor], classes: Sequence[torch.Tensor]) -> Batch:
    """One batch of windows [1, z, y, x]."""
    return Batch(torch.stack(tuple(images)), torch.stack(tuple(classes)))
