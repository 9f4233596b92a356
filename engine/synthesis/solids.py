"""Simple solids in the anatomy's space, for implants: which voxels of a grid lie inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from engine.volume import FloatArray

Axes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Places (z, y, x) of a box's voxels, mm, shaped to broadcast to [z, y, x]."""
Box = tuple[slice, slice, slice]


class Solid(Protocol):
    """Something with an inside."""

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""

    def inside(self, axes: Axes) -> torch.Tensor:
        """Whether each voxel of a box lies inside, bool [z, y, x]."""


@dataclass(frozen=True, eq=False)
class Space:
    """An upright isotropic grid.

    Attributes:
        shape: voxels [z, y, x].
        spacing_mm: between them.
        first_mm: centre (x, y, z) of the first.
        device: where tensors live.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    first_mm: FloatArray
    device: torch.device

    def box(self, solid: Solid) -> Box:
        """The voxels that may lie inside; empty slices outside the grid."""
        low, high = ((corner - self.first_mm)[::-1] / self.spacing_mm for corner in solid.bounds_mm())
        z, y, x = (
            slice(min(max(0, int(np.floor(a))), length), max(0, min(length, int(np.ceil(b)) + 1)))
            for a, b, length in zip(low, high, self.shape, strict=True)
        )
        return z, y, x

    def axes(self, box: Box) -> Axes:
        """Places of a box's voxels."""
        z, y, x = (
            torch.arange(part.start, max(part.start, part.stop), device=self.device, dtype=torch.float32)
            * self.spacing_mm
            + float(first)
            for part, first in zip(box, self.first_mm[::-1], strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]


@dataclass(frozen=True, eq=False)
class Cone:
    """A straight rod with flat ends, whose radius may change along it."""

    start_mm: FloatArray
    end_mm: FloatArray
    radius_mm: tuple[float, float]

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        most = max(self.radius_mm)
        return np.minimum(self.start_mm, self.end_mm) - most, np.maximum(self.start_mm, self.end_mm) + most

    def inside(self, axes: Axes) -> torch.Tensor:
        """Whether each voxel of a box lies inside."""
        z, y, x = axes
        dx, dy, dz = (float(value) for value in self.end_mm - self.start_mm)
        px, py, pz = x - float(self.start_mm[0]), y - float(self.start_mm[1]), z - float(self.start_mm[2])
        length = dx * dx + dy * dy + dz * dz
        along = (px * dx + py * dy + pz * dz) / length
        square = px * px + py * py + pz * pz - along.square() * length
        radius = self.radius_mm[0] + along * (self.radius_mm[1] - self.radius_mm[0])
        return (along >= 0) & (along <= 1) & (square <= radius.square())


@dataclass(frozen=True, eq=False)
class Ball:
    """A ball."""

    centre_mm: FloatArray
    radius_mm: float

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        return self.centre_mm - self.radius_mm, self.centre_mm + self.radius_mm

    def inside(self, axes: Axes) -> torch.Tensor:
        """Whether each voxel of a box lies inside."""
        return _square(axes, self.centre_mm) <= self.radius_mm**2


@dataclass(frozen=True, eq=False)
class Bowl:
    """Half of a hollow ball, on the side of `dome`, a unit vector."""

    centre_mm: FloatArray
    inner_mm: float
    outer_mm: float
    dome: FloatArray

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        return self.centre_mm - self.outer_mm, self.centre_mm + self.outer_mm

    def inside(self, axes: Axes) -> torch.Tensor:
        """Whether each voxel of a box lies inside."""
        square = _square(axes, self.centre_mm)
        z, y, x = axes
        cx, cy, cz = (float(value) for value in self.centre_mm)
        ahead = (x - cx) * float(self.dome[0]) + (y - cy) * float(self.dome[1]) + (z - cz) * float(self.dome[2])
        return (square <= self.outer_mm**2) & (square >= self.inner_mm**2) & (ahead >= 0)


@dataclass(frozen=True, eq=False)
class Path:
    """A line that runs up along z, straight between its points and beyond them.

    Attributes:
        points_mm: points (x, y, z), z ascending, float64 [n, 3], at least two.
    """

    points_mm: FloatArray

    def at(self, z_mm: FloatArray | float) -> FloatArray:
        """The points (x, y, z) at some levels, [..., 3]."""
        level = np.asarray(z_mm, dtype=np.float64)
        z = self.points_mm[:, 2]
        part = np.clip(np.searchsorted(z, level) - 1, 0, len(z) - 2)
        share = ((level - z[part]) / (z[part + 1] - z[part]))[..., None]
        return np.asarray(self.points_mm[part] * (1 - share) + self.points_mm[part + 1] * share)


@dataclass(frozen=True, eq=False)
class Rod:
    """A rod along a path; its cross section is an ellipse in the axial plane that grows from bottom to top.

    Attributes:
        path: its middle.
        from_mm: lowest level.
        to_mm: highest level.
        radius_mm: at the bottom and at the top.
        offset_mm: (x, y) by which it lies beside the path.
        flat: radius along x and y as factors.
    """

    path: Path
    from_mm: float
    to_mm: float
    radius_mm: tuple[float, float]
    offset_mm: tuple[float, float] = (0.0, 0.0)
    flat: tuple[float, float] = (1.0, 1.0)

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        points = self.path.at(np.linspace(self.from_mm, self.to_mm, 32))
        reach = np.array([max(self.radius_mm) * max(self.flat) + 1.0] * 2 + [0.0])
        offset = np.array([*self.offset_mm, 0.0])
        return points.min(0) + offset - reach, points.max(0) + offset + reach

    def inside(self, axes: Axes) -> torch.Tensor:
        """Whether each voxel of a box lies inside."""
        z, y, x = axes
        middle = self.path.at(z[:, 0, 0].double().cpu().numpy())[:, :2] + np.array(self.offset_mm)
        cx, cy = torch.from_numpy(middle.T.astype(np.float32)).to(z.device)[:, :, None, None]
        share = (z - self.from_mm) / max(self.to_mm - self.from_mm, 1e-3)
        radius = self.radius_mm[0] + share.clamp(0, 1) * (self.radius_mm[1] - self.radius_mm[0])
        across = ((x - cx) / self.flat[0]).square() + ((y - cy) / self.flat[1]).square()
        inside: torch.Tensor = (across <= radius.square()) & (z >= self.from_mm) & (z <= self.to_mm)
        return inside


def _square(axes: Axes, centre_mm: FloatArray) -> torch.Tensor:
    z, y, x = axes
    cx, cy, cz = (float(value) for value in centre_mm)
    square: torch.Tensor = (x - cx).square() + (y - cy).square() + (z - cz).square()
    return square
