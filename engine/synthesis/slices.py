"""The slices of a scan: where they lie, what each averages, and how alike the noise of neighbours is.

A slice sees the body through a Gaussian profile whose full width at half maximum is its thickness. So neighbours that
overlap share noise: 0.56, 0.09 and 0.01 were measured 2, 4 and 6 mm apart in slices of 3 mm (Siemens mCT); the
profile's own 0.54, 0.08 and 0.00 explain them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from engine.synthesis.raster import linear_weights
from engine.volume import FloatArray

SIGMA_PER_WIDTH = 1 / math.sqrt(8 * math.log(2))


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of a scan.

    Attributes:
        thickness_mm: full width at half maximum of what each averages.
        places_mm: their centres, ascending, mm.
    """

    thickness_mm: float
    places_mm: FloatArray


@dataclass(frozen=True, eq=False)
class Slicing:
    """How planes of the body become planes of a volume.

    Attributes:
        weights: float32 [planes of the volume, planes of the body].
        between: root of the covariance of the noise between planes of the volume, float32 [planes, planes].
    """

    weights: torch.Tensor
    between: torch.Tensor

    def averaged(self, planes: torch.Tensor) -> torch.Tensor:
        """The volume [z, y, x] of planes of the body [z, y, x]."""
        averaged: torch.Tensor = torch.tensordot(self.weights, planes, dims=1)
        return averaged


THICKNESS_MM = {
    # Thickness and its share: the usual protocols of hip, thigh and abdomen.
    **{0.5: 0.08, 0.625: 0.04, 0.75: 0.04, 1.0: 0.2, 1.25: 0.1, 1.5: 0.06},
    **{2.0: 0.12, 2.5: 0.06, 3.0: 0.16, 4.0: 0.03, 5.0: 0.1, 6.0: 0.01},
}


def draw_slices(rng: np.random.Generator, low_mm: float, high_mm: float) -> Slices:
    """Draw slices that cover a range of z, mm.

    Distance from 0.5 to 1 thicknesses (contiguous in half of all scans, rarely with gaps); 2 % of the series change
    their distance once on the way.
    """
    thickness = float(rng.choice(list(THICKNESS_MM), p=list(THICKNESS_MM.values())))
    step = thickness * float(rng.choice([1.0, 0.8, 0.67, 0.5, 1.25], p=[0.5, 0.2, 0.13, 0.12, 0.05]))
    start = low_mm - rng.uniform(0, step)
    places = np.arange(start, high_mm + step, step)
    if rng.random() < 0.02:
        turn = len(places) // 3 + int(rng.integers(len(places) // 3 + 1))
        gaps = np.where(np.arange(len(places) - 1) < turn, step, 2 * step)
        places = start + np.concatenate([[0.0], np.cumsum(gaps)])
    return Slices(thickness, places)


def slicing(slices: Slices, body_mm: torch.Tensor, wanted_mm: torch.Tensor | None = None) -> Slicing:
    """How planes of the body become the slices, or planes interpolated between the slices.

    Args:
        slices: the scan's slices.
        body_mm: z of the planes in which the body is known, evenly spaced and ascending, float32 [n].
        wanted_mm: z of the volume's planes where they are not the slices: those of a network's grid.
    """
    places = torch.from_numpy(slices.places_mm.astype(np.float32)).to(body_mm.device)
    weights = _profile(places, body_mm, slices.thickness_mm)
    sigma = slices.thickness_mm * SIGMA_PER_WIDTH
    covariance = (-((places[:, None] - places[None, :]) / (2 * sigma)).square()).exp()
    if wanted_mm is not None:
        between_slices = linear_weights(places, wanted_mm)
        weights = between_slices @ weights
        covariance = between_slices @ covariance @ between_slices.T
    value, vector = torch.linalg.eigh(covariance.double())
    root = (vector * value.clamp(min=0).sqrt()) @ vector.T
    return Slicing(weights, root.float())


def _profile(places: torch.Tensor, body_mm: torch.Tensor, thickness_mm: float) -> torch.Tensor:
    """Weight of each plane of the body in each slice: the profile over the body, linear between its planes."""
    if len(body_mm) == 1:
        return torch.ones(len(places), 1, device=places.device)
    step = float(body_mm[1] - body_mm[0])
    sigma = max(thickness_mm * SIGMA_PER_WIDTH, 1e-3 * step)
    away = (places[:, None] - body_mm[None, :]).double()

    def twice_integrated(offset: torch.Tensor) -> torch.Tensor:
        t = offset / sigma
        density = (-0.5 * t.square()).exp() / math.sqrt(2 * math.pi)
        integral: torch.Tensor = offset * torch.special.ndtr(t) + sigma * density
        return integral

    second = twice_integrated(away + step) - 2 * twice_integrated(away) + twice_integrated(away - step)
    nearest = torch.zeros_like(second).scatter_(1, away.abs().argmin(1, keepdim=True), 1e-9)
    weights = second.clamp(min=0) / step + nearest  # beyond the ends the last plane stands for all
    return (weights / weights.sum(1, keepdim=True)).float()
