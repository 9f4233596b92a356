"""Values on a regular grid of the scanner's own axes, and how they pass from one such grid to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

Lengths = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Raster:
    """Values at regular places of the scanner.

    Attributes:
        values: float32 [z, y, x]: slices, rows (down to the table), columns.
        spacing_mm: distance between neighbours along each axis; a flipped axis has a negative one.
        first_mm: place of the centre of the first voxel along each axis.
    """

    values: torch.Tensor
    spacing_mm: Lengths
    first_mm: Lengths = (0.0, 0.0, 0.0)

    @cached_property
    def axes_mm(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Places of the voxels along z, y and x, mm, float32."""
        z, y, x = (
            first + step * torch.arange(length, dtype=torch.float32, device=self.values.device)
            for first, step, length in zip(self.first_mm, self.spacing_mm, self.values.shape, strict=True)
        )
        return z, y, x

    def filled(self, values: torch.Tensor) -> Raster:
        """Other values [z, y, x] at the same places."""
        return Raster(values, self.spacing_mm, self.first_mm)

    def coarse(self, least_mm: Lengths) -> Raster:
        """Means of as many whole voxels as fit into `least_mm` along each axis (at least one); a rest is left out."""
        factor = [
            max(1, min(length, int(least / abs(step) + 1e-6)))
            for least, step, length in zip(least_mm, self.spacing_mm, self.values.shape, strict=True)
        ]
        if factor == [1, 1, 1]:
            return self
        values = self.values
        if factor[0] > 1:  # along z first, one pass over memory; the pooling of torch is slow on a CPU
            planes = values.shape[0] // factor[0] * factor[0]
            values = values[:planes].view(-1, factor[0], *values.shape[1:]).mean(1)
        values = functional.avg_pool2d(values[:, None], (factor[1], factor[2]))[:, 0]
        z, y, x = (f + s * (n - 1) / 2 for f, s, n in zip(self.first_mm, self.spacing_mm, factor, strict=True))
        dz, dy, dx = (s * n for s, n in zip(self.spacing_mm, factor, strict=True))
        return Raster(values, (dz, dy, dx), (z, y, x))

    def at(self, places: Raster) -> torch.Tensor:
        """The values at the places of another raster, by linear interpolation; the edge goes on beyond the edge."""
        z, y, x = (linear_weights(*axes) for axes in zip(self.axes_mm, places.axes_mm, strict=True))
        resampled: torch.Tensor = torch.tensordot(z, torch.matmul(y, torch.matmul(self.values, x.T)), dims=1)
        return resampled


def linear_weights(known_mm: torch.Tensor, wanted_mm: torch.Tensor) -> torch.Tensor:
    """The matrix of linear interpolation along one axis.

    Args:
        known_mm: places where values are known, float32 [n], ascending or descending, any distances.
        wanted_mm: places where they are wanted, float32 [m].

    Returns:
        float32 [m, n]; rows sum to 1, places beyond the ends take the value of the end.
    """
    count = len(known_mm)
    if count == 1:
        return torch.ones(len(wanted_mm), 1, device=known_mm.device)
    sign = 1.0 if bool(known_mm[-1] > known_mm[0]) else -1.0
    known, wanted = known_mm * sign, wanted_mm * sign
    upper = torch.searchsorted(known, wanted.contiguous()).clamp_(1, count - 1)
    share = ((wanted - known[upper - 1]) / (known[upper] - known[upper - 1])).clamp_(0, 1)
    weights = torch.zeros(len(wanted), count, device=known.device)
    weights.scatter_(1, (upper - 1)[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, upper[:, None], share[:, None])
    return weights
