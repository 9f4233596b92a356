"""Labels finer than the network's grid: logits are interpolated to half the spacing before the classes compete.

Deciding first and enlarging the decision afterwards would leave steps of a whole voxel along every border; the logits
still know where between two voxels a border runs. They are formed finely for one small tile at a time only, and
only for the classes that win somewhere in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.volume import Grid
from engine.windows import Progress, Run, WindowPlan, blended, winning_class

FACTOR = 2
TILE = 12


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
    bottom = 0
    for block in _blocks(planes):
        part = _decide(block)
        fine[bottom : bottom + len(part)] = part
        bottom += len(part)
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


def _blocks(planes: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Some planes [class, y, x] at a time with the one below and the one above, as [class, z, y, x].

    The lowest and the highest plane are their own neighbours.
    """
    held = [next(planes).clone()]
    held.append(held[0])
    for plane in planes:
        held.append(plane)
        if len(held) == TILE + 2:
            yield torch.stack(held, dim=1)
            del held[:-2]
    held.append(held[-1])
    if len(held) > 2:
        yield torch.stack(held, dim=1)


def _decide(logits: torch.Tensor) -> NDArray[np.uint8]:
    """Classes of the fine voxels, uint8 [z, y, x], of logits [class, z, y, x] with one plane more below and above.

    Tile by tile: most hold one class only and need no interpolation, the others a few.
    """
    logits = functional.pad(logits, (1, 1, 1, 1, 0, 0), mode="replicate")
    winners = winning_class(logits).numpy()
    shape = [FACTOR * (length - 2) for length in winners.shape]
    fine = np.empty(shape, dtype=np.uint8)
    for y, x in product(range(0, winners.shape[1] - 2, TILE), range(0, winners.shape[2] - 2, TILE)):
        near = (slice(None), slice(y, y + TILE + 2), slice(x, x + TILE + 2))
        place = (slice(None), *(slice(FACTOR * start, FACTOR * (start + TILE)) for start in (y, x)))
        classes = np.flatnonzero(np.bincount(winners[near].ravel()))
        if classes.size == 1:
            fine[place] = classes[0]
            continue
        some = logits[(torch.from_numpy(classes), *near)]
        between = functional.interpolate(some[None], scale_factor=float(FACTOR), mode="trilinear")[0]
        inner = between[:, FACTOR:-FACTOR, FACTOR:-FACTOR, FACTOR:-FACTOR]
        fine[place] = classes.astype(np.uint8)[winning_class(inner).numpy()]
    return fine
