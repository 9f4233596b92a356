"""From a posed person to what lies at each voxel of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from engine.synthesis.person import Person
from engine.synthesis.pose import Pose, place_map
from engine.synthesis.tissues import tissue_table
from engine.volume import FloatArray, Grid

SLAB = 32
"""Slices rendered at a time."""


@dataclass(frozen=True, eq=False)
class PosedPerson:
    """A person who lies in the scanner."""

    person: Person
    pose: Pose

    def attenuation(self, grid: Grid) -> torch.Tensor:
        """HU without scanner at the voxels of a grid, float32 [slice, row, column]; air outside the body."""
        return self.sampled(self.person.hu, grid)

    def sampled(self, values: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Values in the anatomy's space, float32 [z, y, x], at the voxels of a grid, by linear interpolation."""
        result = torch.empty(grid.shape, device=values.device)
        for start, part in _slabs(grid):
            place = self._index(part)
            scale = torch.tensor([2.0 / (length - 1) for length in values.shape], device=values.device)
            where = (place * scale - 1).flip(-1)[None]
            sampled = functional.grid_sample(values[None, None], where, padding_mode="border", align_corners=True)
            result[start : start + part.shape[0]] = sampled[0, 0]
        return result

    def codes(self, grid: Grid) -> torch.Tensor:
        """Tissue codes at the voxels of a grid, uint8 [slice, row, column]; sides are those of the patient."""
        codes = self.person.codes
        result = torch.empty(grid.shape, dtype=torch.uint8, device=codes.device)
        last = torch.tensor(codes.shape, device=codes.device) - 1
        steps = torch.tensor([codes.stride(0), codes.stride(1), 1], device=codes.device)
        for start, part in _slabs(grid):
            place = self._index(part).round_().long()
            place = torch.minimum(place.clamp_(min=0), last)
            result[start : start + part.shape[0]] = codes.view(-1)[(place * steps).sum(-1)]
        if not self.pose.mirrored:
            return result
        swap = torch.from_numpy(tissue_table().mirrored).to(codes.device)
        return swap[result.long()]

    def _index(self, grid: Grid) -> torch.Tensor:
        """Fractional voxel indices (z, y, x) of the anatomy for every voxel of a grid."""
        anatomy = self.person.anatomy
        points = place_map(self.pose, anatomy.joints, anatomy.back_mm, grid, self.person.codes.device)
        origin = torch.tensor(anatomy.grid.affine[:3, 3].tolist(), device=points.device)
        return ((points - origin) / anatomy.grid.spacing_mm[0]).flip(-1)


def segments_of(codes: torch.Tensor) -> torch.Tensor:
    """Segment numbers of tissue codes, uint8 of the same shape."""
    return torch.from_numpy(tissue_table().truth).to(codes.device)[codes.long()]


def part_of(grid: Grid, start: FloatArray, shape: tuple[int, int, int]) -> Grid:
    """The grid of some of a grid's voxels, from index `start` on; it may reach beyond."""
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_patient(np.asarray(start, dtype=np.float64))
    return Grid(shape, affine)


def _slabs(grid: Grid) -> list[tuple[int, Grid]]:
    return [
        (start, part_of(grid, np.array([start, 0.0, 0.0]), (min(SLAB, grid.shape[0] - start), *grid.shape[1:])))
        for start in range(0, grid.shape[0], SLAB)
    ]
