"""Labels finer than the network's grid: logits are interpolated to half the spacing before the classes compete.

Deciding first and enlarging the decision afterwards would leave steps of a whole voxel along every border; the logits
still know where between two voxels a border runs. They are never formed finely for more than one plane at a time, and
only for the classes that win somewhere in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.volume import Grid
from engine.windows import Progress, Run, WindowPlan, blended, winning_class

FACTOR = 2


def classify_finely(image: torch.Tensor, run: Run, plan: WindowPlan, progress: Progress) -> NDArray[np.uint8]:
    """The class of each voxel of the grid with half the spacing.

    Args:
        image: the network's input, float32 [z, y, x].
        run: the network: float32 [1, 1, *window] to logits float32 [1, C, *window].
        plan: the windows over `image`.
        progress: called with the windows done and their number.

    Returns:
        uint8 [2 z, 2 y, 2 x], on `refined_grid` of the image's grid.

    Raises:
        BackendError: the network gave a logit that is NaN or infinite.
    """
    fine = np.empty([FACTOR * length for length in image.shape], dtype=np.uint8)
    planes = (
        sums[:, level] / weights[level]
        for sums, weights in blended(image, run, plan, progress)
        for level in range(len(weights))
    )
    for level, plane in enumerate(_between(planes)):
        fine[level] = plane.numpy()
    return fine


def refined_grid(grid: Grid) -> Grid:
    """The grid that covers the same space with half the spacing along every axis."""
    placing = np.diag([1 / FACTOR] * 3 + [1.0])
    placing[:3, 3] = 0.5 / FACTOR - 0.5
    shape = (FACTOR * grid.shape[0], FACTOR * grid.shape[1], FACTOR * grid.shape[2])
    return Grid(shape, grid.affine @ placing)


def enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask [z, y, x] on the grid with half the spacing."""
    return mask.repeat(FACTOR, 0).repeat(FACTOR, 1).repeat(FACTOR, 2)


def _between(planes: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Classes of the fine planes, from logits [class, y, x] of the coarse ones: two between each two."""
    last = next(planes)
    yield _decide(last, last)[0]
    for plane in planes:
        yield from _decide(last, plane)
        last = plane
    yield _decide(last, last)[0]


def _decide(lower: torch.Tensor, upper: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes of the two fine planes between two coarse ones, uint8 [2 y, 2 x]."""
    winners = torch.unique(torch.stack([winning_class(lower), winning_class(upper)])).long()
    size = [FACTOR * length for length in lower.shape[1:]]
    ends = functional.interpolate(torch.stack([lower, upper])[:, winners], size=size, mode="bilinear")
    numbers = winners.to(torch.uint8)
    near, far = (numbers[winning_class(ends[0].lerp(ends[1], share)).long()] for share in (0.25, 0.75))
    return near, far
