"""Labels finer than the network's grid: logits are interpolated to half the spacing before the classes compete.

Deciding first and enlarging the decision afterwards would leave steps of a whole voxel along every border; the logits
still know where between two voxels a border runs. A cell is the space between eight neighbouring voxels; it holds
eight voxels of the fine grid, one at each corner. Where all corners have one class, so has every point between them.
Only cells with more are interpolated, and only for the classes that win at one of their corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.accumulator import Accumulator
from engine.volume import Grid
from engine.windows import (
    LEAST_WEIGHT,
    Finished,
    Progress,
    Run,
    Sweep,
    WindowPlan,
    blended,
    copy_planes,
    host_planes,
    wait_for_copies,
    winners,
)

FACTOR = 2
CORNERS = tuple(product((0, 1), repeat=3))
NEAR, FAR = 0.75, 0.25  # weights of the two voxels along an axis for a fine voxel between them
CELLS = 1 << 16  # interpolated at a time on a CPU
NO_CLASS = 256
FARTHEST_FIRST = (7, 6, 5, 3, 4, 2, 1)  # the bits of a corner's number that differ: three, two, or one of z, y, x


@dataclass(frozen=True, eq=False)
class FineClasses:
    """The classes of a scan with borders at half the spacing.

    Attributes:
        coarse: class of each voxel of the network's grid, uint8 [z, y, x].
        cells: of the cells that hold a border: place [n, 3] on the grid of cells, int32. Cell 0 lies below voxel 0, and
            there is one cell more than voxels along each axis.
        inner: classes of their eight fine voxels, uint8 [n, 8], in the order of `CORNERS`.
    """

    coarse: NDArray[np.uint8]
    cells: NDArray[np.int32]
    inner: NDArray[np.uint8]

    def masked(self, inside: NDArray[np.bool_]) -> FineClasses:
        """The same with background wherever a voxel of the network's grid [z, y, x] is not inside.

        A class that only voxels outside have does not reach in from there.
        """
        inner = self.inner.copy()
        for some in self._some():
            inner[some] *= inside[_corner_voxels(self.cells[some], inside.shape)]
        return FineClasses(self.coarse * inside, self.cells, inner)

    def spread(self, numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Numbers on `refined_grid`, uint8 [2 z, 2 y, 2 x].

        A fine voxel has the number of the nearest voxel that has its class: its own where the two agree.

        Args:
            numbers: what became of the class of each voxel of `coarse`, uint8 [z, y, x].
        """
        depth, height, width = numbers.shape
        pairs = numbers.astype(np.uint16) * np.uint16(0x0101)  # two equal neighbours in one value
        fine = np.empty((depth, FACTOR, height, FACTOR, width), dtype=np.uint16)
        fine[:] = pairs[:, None, :, None]
        result = fine.view(np.uint8).reshape(FACTOR * depth, FACTOR * height, FACTOR * width)
        for some in self._some():
            # What lies beyond the first and last voxels equals what lies on this side of their middles.
            places = FACTOR * self.cells[some, None] - 1 + np.array(CORNERS)
            places = np.clip(places, 0, np.array(result.shape) - 1)
            result[tuple(np.moveaxis(places, -1, 0))] = self._inner_numbers(numbers, some)
        return result

    def _some(self) -> Iterator[slice]:
        """The cells, some at a time: their corners take many times their memory."""
        return (slice(start, start + CELLS) for start in range(0, len(self.cells), CELLS))

    def _inner_numbers(self, numbers: NDArray[np.uint8], some: slice) -> NDArray[np.uint8]:
        """Numbers of the fine voxels of some of the cells that hold a border, uint8 [n, 8]."""
        corners = _corner_voxels(self.cells[some], numbers.shape)
        classes, known, inner = self.coarse[corners], numbers[corners], self.inner[some]
        cell, corner = np.nonzero(classes != inner)
        wanted = inner[cell, corner]
        found = known[cell, corner]
        for other in FARTHEST_FIRST:  # the nearer ones overwrite
            agrees = classes[cell, corner ^ other] == wanted
            found[agrees] = known[cell, corner ^ other][agrees]
        known[cell, corner] = found
        return np.asarray(known)


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
    found = fine_classes_of(Sweep(image, run, plan, progress))
    return found.spread(found.coarse)


def fine_classes_of(sweep: Sweep) -> FineClasses:
    """The classes of a scan, with those between the voxels wherever a border runs.

    The classes lie in the workspace's memory.

    Raises:
        BackendError: the network gave a logit that is NaN or infinite.
    """
    classes = host_planes(sweep)
    rows, columns = sweep.image.shape[1:]
    below: torch.Tensor | None = None
    cells, inner = [], []
    for finished in blended(sweep):
        planes = winners(finished)[:, :rows, :columns]
        copy_planes(classes, finished.start, planes)
        layer = planes if below is None else torch.cat([below, planes])
        below = planes[-1:].clone()
        for places, found in _borders(layer, finished, sweep):
            cells.append(places.to(torch.int32))
            inner.append(found)
    wait_for_copies(sweep)
    places = torch.cat(cells) if cells else torch.empty((0, 3), dtype=torch.int32)
    found = torch.cat(inner) if inner else torch.empty((0, 8), dtype=torch.uint8)
    return FineClasses(classes.numpy(), places.cpu().numpy(), found.cpu().numpy())


def refined_grid(grid: Grid) -> Grid:
    """The grid that covers the same space with half the spacing along every axis."""
    placing = np.diag([1 / FACTOR] * 3 + [1.0])
    placing[:3, 3] = 0.5 / FACTOR - 0.5
    shape = (FACTOR * grid.shape[0], FACTOR * grid.shape[1], FACTOR * grid.shape[2])
    return Grid(shape, grid.affine @ placing)


def enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask [z, y, x] on the grid with half the spacing."""
    return mask.repeat(FACTOR, 0).repeat(FACTOR, 1).repeat(FACTOR, 2)


def _borders(layer: torch.Tensor, finished: Finished, sweep: Sweep) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The cells of a layer that hold a border, [n, 3], and the classes of their fine voxels, [n, 8].

    Args:
        layer: the classes of its planes, and before them those of the plane below where there is one.
        finished: the same planes.
        sweep: where they come from.
    """
    shape = tuple(sweep.image.shape)
    lowest = finished.stop - len(layer)
    ends = (finished.start == 0, finished.stop == shape[0])
    padded = _replicated(layer, ends)
    mixed = _extreme(padded, torch.maximum) != _extreme(padded, torch.minimum)
    if sweep.inside is not None:
        near = sweep.inside[lowest : finished.stop].to(torch.uint8)
        mixed &= _extreme(_replicated(near, ends), torch.maximum) > 0
    places = mixed.nonzero()
    del padded, mixed
    places[:, 0] += finished.start
    for some in torch.split(places, CELLS if layer.device.type == "cpu" else max(1, len(places))):
        z, y, x = _corner_voxels(some, shape)
        yield some, _compete(layer[z - lowest, y, x], finished.blend, finished.blend.places(z, y, x))


def _replicated(planes: torch.Tensor, ends: tuple[bool, bool]) -> torch.Tensor:
    """Planes with their outermost rows and columns once more, and so the lowest and the highest where it ends there."""
    depth, height, width = planes.shape
    z, y, x = (torch.arange(-1, length + 1, device=planes.device) for length in (depth, height, width))
    z = z[0 if ends[0] else 1 : depth + 2 if ends[1] else depth + 1].clamp(0, depth - 1)
    return planes[z][:, y.clamp(0, height - 1)][:, :, x.clamp(0, width - 1)]


def _extreme(planes: torch.Tensor, larger: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The greatest (or least) of the eight corners of every cell between some voxels, one less along each axis."""
    planes = larger(planes[:-1], planes[1:])
    planes = larger(planes[:, :-1], planes[:, 1:])
    return larger(planes[:, :, :-1], planes[:, :, 1:])


def _corner_voxels(cells: Any, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The voxels at the corners of cells [n, 3]: their planes, rows and columns, each [n, 8] in the order of `CORNERS`.

    Arrays of numpy and tensors alike; beyond the image lie its outermost voxels.
    """
    on_device = isinstance(cells, torch.Tensor)
    corners = torch.tensor(CORNERS, device=cells.device) if on_device else np.array(CORNERS)
    z, y, x = ((cells[:, axis, None] - 1 + corners[:, axis]).clip(0, shape[axis] - 1) for axis in range(3))
    return z, y, x


def _compete(corners: torch.Tensor, blend: Accumulator, places: torch.Tensor) -> torch.Tensor:
    """Classes of the fine voxels of some cells, uint8 [n, 8].

    Args:
        corners: class of each corner, [n, 8].
        blend: holds the logits.
        places: of the corners in a channel of it, int64 [n, 8].
    """
    # A voxel that no window saw has no weight, and no logits either.
    scale = blend.weights.flatten()[places].clamp_(min=LEAST_WEIGHT).reciprocal_()
    logits, channel = blend.sums.flatten(), blend.weights.numel()
    weights = _corner_weights().to(scale.device)
    left = corners.to(torch.int16)
    number = left.amin(dim=1)
    cells = torch.arange(len(corners), device=corners.device)
    best = (logits[number.long()[:, None] * channel + places] * scale) @ weights
    classes = number.to(torch.uint8)[:, None].repeat(1, len(CORNERS))
    while True:
        left = left.masked_fill(left <= number[:, None], NO_CLASS)
        number = left.amin(dim=1)
        open_cells = (number < NO_CLASS).nonzero()[:, 0]
        if len(open_cells) == 0:
            return classes
        left, number, cells = left[open_cells], number[open_cells], cells[open_cells]
        places, scale = places[open_cells], scale[open_cells]
        between = (logits[number.long()[:, None] * channel + places] * scale) @ weights
        before = best[cells]
        better = between > before
        classes[cells] = torch.where(better, number.to(torch.uint8)[:, None], classes[cells])
        best[cells] = torch.maximum(between, before)


def _corner_weights() -> torch.Tensor:
    """Weight of each corner for each fine voxel of a cell, float32 [8, 8]."""
    same = torch.tensor(CORNERS)[:, None] == torch.tensor(CORNERS)
    return torch.where(same, NEAR, FAR).prod(dim=2)
