"""Windows over the network's grid: where they lie, how their logits are blended, and which class wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.errors import BackendError

Run = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
Triple = tuple[int, int, int]

SIGMA_FRACTION = 0.125  # of the window's size, as MONAI's sliding window has it
LEAST_WEIGHT = 1e-3  # a voxel seen by a corner alone still gets a class


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows of one scan lie.

    Attributes:
        window: voxels of one window, axes (z, y, x).
        starts: first voxel of the windows along each axis, ascending; every combination is one window.
        shape: voxels of the image, padded where it is smaller than a window.
    """

    window: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    shape: Triple

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First voxels of the fewest windows that cover `length` voxels with at least `overlap`, spread evenly.

    Args:
        length: voxels to cover.
        window: voxels of one window.
        overlap: least common part of neighbours, a fraction of a window in 0..1 (1 excluded).
    """
    room = max(0, length - window)
    longest_step = max(1, int(window * (1.0 - overlap)))
    steps = -(-room // longest_step)
    return tuple(room * step // steps for step in range(steps + 1)) if steps else (0,)


def plan_windows(shape: Triple, window: Triple, overlap: float) -> WindowPlan:
    """The windows over an image of `shape`, axes (z, y, x)."""
    starts = [window_starts(length, size, overlap) for length, size in zip(shape, window, strict=True)]
    padded = [max(length, size) for length, size in zip(shape, window, strict=True)]
    return WindowPlan(window, (starts[0], starts[1], starts[2]), (padded[0], padded[1], padded[2]))


def importance_map(window: Triple) -> torch.Tensor:
    """Weight of each voxel of a window, float32, 1 in the middle: a Gaussian, because borders see less context."""
    weight = torch.ones((), dtype=torch.float32)
    for size in window:
        distance = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2) / (SIGMA_FRACTION * size)
        weight = weight[..., None] * torch.exp(-0.5 * distance.square())
    return weight.div_(weight.max()).clamp_(min=LEAST_WEIGHT)


def winning_class(logits: torch.Tensor) -> torch.Tensor:
    """The class with the greatest logit, uint8 [z, y, x], of logits [class, z, y, x]; the first of equals."""
    best = logits[0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8)
    for number, channel in enumerate(logits[1:], start=1):
        labels.masked_fill_(channel > best, number)  # no int64 volume, as argmax would make
        torch.maximum(best, channel, out=best)
    return labels


def classify(image: torch.Tensor, run: Run, plan: WindowPlan, progress: Progress) -> NDArray[np.uint8]:
    """The class of each voxel, from the weighted mean of the logits of all windows that see it.

    Args:
        image: the network's input, float32 [z, y, x].
        run: the network: float32 [1, 1, *window] to logits float32 [1, C, *window].
        plan: the windows over `image`.
        progress: called with the windows done and their number.

    Raises:
        BackendError: the network gave a logit that is NaN or infinite; no class could be told from it.
    """
    return torch.cat([winning_class(sums) for sums, _ in blended(image, run, plan, progress)]).numpy()


def blended(
    image: torch.Tensor, run: Run, plan: WindowPlan, progress: Progress
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The planes of an image from the lowest up, a few at a time, as soon as no further window sees them.

    Logits are kept for one layer of windows only, so that memory does not grow with the length of the scan.

    Args:
        image: see `classify`.
        run: see `classify`.
        plan: see `classify`.
        progress: see `classify`.

    Yields:
        Weighted sums of logits, float32 [class, z, y, x], and the sums of the weights [z, y, x]. Both are views that
        are only valid until the next planes are asked for.

    Raises:
        BackendError: see `classify`.
    """
    padding = [extra for length, size in zip(plan.shape, image.shape, strict=True) for extra in (0, length - size)]
    padded = functional.pad(image, padding[4:6] + padding[2:4] + padding[0:2])
    weight = importance_map(plan.window)
    weights = torch.zeros((1, plan.window[0], *plan.shape[1:]))
    sums: torch.Tensor | None = None
    done = 0
    for bottom, following in pairwise((*plan.starts[0], plan.shape[0])):
        for y, x in product(plan.starts[1], plan.starts[2]):
            place = (slice(y, y + plan.window[1]), slice(x, x + plan.window[2]))
            part = padded[(slice(bottom, bottom + plan.window[0]), *place)]
            logits = run(part[None, None])[0]
            _check_finite(logits, done + 1, plan.count)
            if sums is None:
                sums = torch.zeros((len(logits), plan.window[0], *plan.shape[1:]))
            sums[(slice(None), slice(None), *place)].addcmul_(logits, weight)
            weights[(slice(None), slice(None), *place)] += weight
            done += 1
            progress(done, plan.count)
        if sums is not None:
            ready = (slice(0, min(following, image.shape[0]) - bottom), slice(image.shape[1]), slice(image.shape[2]))
            yield sums[(slice(None), *ready)], weights[0][ready]
            _advance(sums, following - bottom)
            _advance(weights, following - bottom)


def _check_finite(logits: torch.Tensor, window: int, count: int) -> None:
    # One NaN or infinity makes the whole sum so, and a sum costs no memory.
    if not bool(torch.isfinite(logits.sum())):
        raise BackendError(
            f"window {window} of {count}",
            "the network's logits are not finite",
            "Check the model package, or choose another backend",
        )


def _advance(sums: torch.Tensor, planes: int) -> None:
    """Drop the lowest planes and make room for as many above."""
    for channel in sums:
        rest = channel[planes:].clone()
        channel[: len(rest)] = rest
        channel[len(rest) :] = 0.0
