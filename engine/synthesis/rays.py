"""Parallel rays through axial slices, at low resolution: line integrals, and from them back to the slice.

What goes wrong in a CT (noise, hardened beams, metal) goes wrong along rays. So it is computed there, on few rays, and
only the error is brought back to the slice. Pixel-driven projection with linear weights; filter of Ramachandran and
Lakshminarayanan (Kak and Slaney, Principles of Computerized Tomographic Imaging, chapter 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from engine.synthesis.raster import Raster

PIXELS = 16384
"""Pixels to which rays are brought back at a time."""


@dataclass(frozen=True)
class Rays:
    """A set of parallel rays about the scanner's axis.

    Attributes:
        angles: number of directions over half a turn; 0 are rays along columns (up and down), a quarter turn on they
            run from side to side.
        bins: number of rays of one direction.
        bin_mm: distance between them.
        centre_mm: y and x of the point about which they turn.
        start_rad: direction of the first.
    """

    angles: int
    bins: int
    bin_mm: float
    centre_mm: tuple[float, float]
    start_rad: float = 0.0

    def directions(self, device: torch.device) -> torch.Tensor:
        """Angle of each direction, float32 [angles], rad."""
        return self.start_rad + torch.arange(self.angles, device=device) * (math.pi / self.angles)


def rays_around(slices: Raster, angles: int, bin_mm: float, start_rad: float = 0.0) -> Rays:
    """Rays that cover whole slices."""
    _, y, x = slices.axes_mm
    height, width = float((y[-1] - y[0]).abs()), float((x[-1] - x[0]).abs())
    bins = math.ceil((math.hypot(height, width) + 2 * max(map(abs, slices.spacing_mm[1:]))) / bin_mm) + 3
    return Rays(angles, bins, bin_mm, (float(y[0] + y[-1]) / 2, float(x[0] + x[-1]) / 2), start_rad)


def integrals(slices: Raster, rays: Rays) -> torch.Tensor:
    """Line integrals of the values.

    Pixels that are 0 in all slices cost nothing.

    Args:
        slices: values per mm, [z, y, x].
        rays: along which.

    Returns:
        float32 [angles, bins, z].
    """
    flat = slices.values.reshape(slices.values.shape[0], -1)
    pixels = flat.abs().amax(0).nonzero()[:, 0]
    planes = len(flat)
    if len(pixels) == 0:
        return torch.zeros(rays.angles, rays.bins, planes, device=flat.device)
    value = flat[:, pixels].T * (abs(slices.spacing_mm[1] * slices.spacing_mm[2]) / rays.bin_mm)
    _, y, x = slices.axes_mm
    width = len(x)
    rows, share = _bins(rays, y[pixels // width, None], x[pixels % width, None])
    columns = torch.arange(len(pixels), device=flat.device)[:, None, None].expand_as(rows)
    matrix = torch.sparse_coo_tensor(
        torch.stack([rows.reshape(-1).long(), columns.reshape(-1)]),
        share.reshape(-1),
        (rays.angles * rays.bins, len(pixels)),
        check_invariants=False,
    )
    summed: torch.Tensor = torch.sparse.mm(matrix, value)
    return summed.view(rays.angles, rays.bins, planes)


def filtered(sinogram: torch.Tensor, rays: Rays) -> torch.Tensor:
    """The sinogram after the ramp filter, per mm; smoothed over neighbouring bins as a soft kernel does.

    Args:
        sinogram: float32 [angles, bins, z].
        rays: its rays.
    """
    lag = torch.arange(rays.bins, device=sinogram.device)
    lag = (lag[:, None] - lag[None, :]).abs()
    step = rays.bin_mm
    ramp = torch.where(lag % 2 == 1, -1.0 / (math.pi * lag.clamp(min=1) * step) ** 2, 0.0)
    ramp = torch.where(lag == 0, 1.0 / (4 * step * step), ramp) * step
    smooth = torch.where(lag == 0, 0.5, 0.0) + torch.where(lag == 1, 0.25, 0.0)
    return torch.matmul(smooth @ ramp, sinogram)


def spread(sinogram: torch.Tensor, rays: Rays, places: Raster) -> torch.Tensor:
    """Bring rays back to slices: the mean over all directions of the ray through each pixel.

    A filtered sinogram gives, times pi, the values whose integrals it came from.

    Args:
        sinogram: float32 [angles, bins, z].
        rays: its rays.
        places: where the result is wanted, along y and x.

    Returns:
        float32 [z, y, x].
    """
    _, y, x = places.axes_mm
    table = sinogram.reshape(rays.angles * rays.bins, -1)
    result = torch.empty(len(y), len(x), table.shape[1], device=sinogram.device)
    block = max(1, PIXELS // len(x))
    for start in range(0, len(y), block):
        part = torch.cartesian_prod(y[start : start + block], x)
        index, share = _bins(rays, part[:, :1], part[:, 1:])
        # A sum of weighted rows: what an embedding bag is, and ten times as fast as a sparse matrix on a CPU.
        summed = functional.embedding_bag(
            index.flatten(1), table, mode="sum", per_sample_weights=share.div_(rays.angles).flatten(1)
        )
        result[start : start + block] = summed.view(-1, len(x), table.shape[1])
    return result.movedim(2, 0)


def _bins(rays: Rays, y: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which two bins of each direction a place [n, 1] falls between, int32 [n, angles, 2], and its share of each.

    At direction 0 bins run along x, so rays run along y. Bins are numbered through all directions.
    """
    direction = rays.directions(y.device)
    offset = (x - rays.centre_mm[1]) * direction.cos() + (y - rays.centre_mm[0]) * direction.sin()
    along = offset.div_(rays.bin_mm).add_((rays.bins - 1) / 2)
    below = along.floor().clamp_(0, rays.bins - 2)
    share = along.sub_(below).clamp_(0, 1)
    first = below.to(torch.int32) + rays.bins * torch.arange(rays.angles, device=y.device, dtype=torch.int32)
    return torch.stack([first, first + 1], dim=-1), torch.stack([1 - share, share], dim=-1)
