"""Where the logits of overlapping windows are added up: a ring of planes, as many as a window is deep and one more.

Planes are reused from below as soon as no window needs them, so that memory does not grow with the length of the scan;
the one more is the last that was finished, for those who look between two planes. Every voxel has one window that
is the first to see it, in the order of the windows: that one writes, the others add, and nothing has to be cleared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from engine.workspace import Workspace

Box = tuple[slice, slice, slice]
Triple = tuple[int, int, int]


class Accumulator:
    """Weighted sums of the logits of all windows, which come layer by layer, row by row.

    Args:
        classes: channels of the logits.
        shape: rows and columns of the padded image.
        weight: of each voxel of a window, float32 [z, y, x], on the device.
        overlaps: for each axis and each first voxel of a window, how many voxels the window before it reaches into it.
        workspace: where the buffers stay for the next scan.
    """

    def __init__(
        self,
        classes: int,
        shape: tuple[int, int],
        weight: torch.Tensor,
        overlaps: tuple[Mapping[int, int], ...],
        workspace: Workspace,
    ) -> None:
        self._weight = weight
        self._overlaps = overlaps
        self.depth = weight.shape[0] + 1
        ring = (self.depth, *shape)
        self.sums = workspace.tensor("sums", (classes, *ring), torch.float32, weight.device)
        self.weights = workspace.tensor("weights", ring, torch.float32, weight.device)

    def add(self, start: Triple, logits: torch.Tensor) -> None:
        """Add a window's logits, [class, z, y, x] in any precision."""
        for inner, is_new in self._pieces(start):
            weight, part = self._weight[inner], logits[(slice(None), *inner)]
            outer = self._outer(start, inner)
            if is_new:
                torch.mul(part, weight, out=self.sums[(slice(None), *outer)])
                self.weights[outer] = weight
            else:
                self.sums[(slice(None), *outer)].addcmul_(part, weight)
                self.weights[outer] += weight

    def leave_out(self, start: Triple) -> None:
        """Pass over a window that adds nothing."""
        for inner, is_new in self._pieces(start):
            if is_new:
                outer = self._outer(start, inner)
                self.sums[(slice(None), *outer)] = 0.0
                self.weights[outer] = 0.0

    def sums_of(self, start: int, stop: int) -> Iterator[torch.Tensor]:
        """Views of planes, in their order, float32 [class, z, y, x] with the padding."""
        for part in self._arcs(start, stop):
            yield self.sums[:, part]

    def places(self, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Where voxels of the image lie in `weights`, and in each channel of `sums`, when these are flattened."""
        _, rows, columns = self.weights.shape
        return (z % self.depth * rows + y) * columns + x

    def _arcs(self, start: int, stop: int) -> Iterator[slice]:
        """Where planes `start` to `stop` lie in the ring."""
        while start < stop:
            place = start % self.depth
            length = min(stop - start, self.depth - place)
            yield slice(place, place + length)
            start += length

    def _outer(self, start: Triple, inner: Box) -> Box:
        """Where a piece of the window lies in the ring."""
        z = (start[0] + inner[0].start) % self.depth
        rows, columns = (
            slice(first + part.start, first + part.stop) for first, part in zip(start[1:], inner[1:], strict=True)
        )
        return slice(z, z + inner[0].stop - inner[0].start), rows, columns

    def _pieces(self, start: Triple) -> Iterator[tuple[Box, bool]]:
        """A window in boxes that lie in the ring in one piece, and whether it is the first to see them."""
        levels, rows, columns = (seen[first] for seen, first in zip(self._overlaps, start, strict=True))
        size = tuple(self._weight.shape)
        whole = slice(0, size[1]), slice(0, size[2])
        boxes = (
            ((slice(0, levels), *whole), False),
            ((slice(levels, size[0]), slice(0, rows), whole[1]), False),
            ((slice(levels, size[0]), slice(rows, size[1]), slice(0, columns)), False),
            ((slice(levels, size[0]), slice(rows, size[1]), slice(columns, size[2])), True),
        )
        for (depth, *sheet), is_new in boxes:
            if any(part.start == part.stop for part in (depth, *sheet)):
                continue
            first = depth.start
            for arc in self._arcs(start[0] + depth.start, start[0] + depth.stop):
                length = arc.stop - arc.start
                yield (slice(first, first + length), sheet[0], sheet[1]), is_new
                first += length
