"""Errors that dense things throw along rays: bands between the bones of both sides, streaks from metal.

The integrals of a ray are not what a reconstruction takes them for: a beam hardens in bone and hardly passes metal. The
error is computed per ray on whole slices of low resolution and reconstructed by itself; it then adds to any part of the
scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from engine.synthesis.noise import WATER_PER_MM
from engine.synthesis.raster import Raster, linear_weights
from engine.synthesis.rays import Rays, filtered, integrals, rays_around, spread

BONE_HU = 130.0
SURVEY_MM = (10.0, 5.0, 5.0)
BONE_DIRECTIONS = 60
HARDENING = 1.4
"""Error of a ray per square of the attenuation of the bone on it; gives bands of -40 HU between two hips."""
MOST_BAND_HU = 60.0

METAL_DIRECTIONS = 120
METAL_RAY_MM = 2.0
METAL_SLICE_MM = 4.0
"""Streaks hardly change over this distance along z."""
LEAST_PIXEL_MM = 1.9
"""Streaks are reconstructed on pixels of about this size at least."""
SPARSE = 4
"""The body is projected along every fourth direction."""
LEAST_METAL = 0.02
OWN = 0.5
MOST_ERROR_HU = 800.0
MOST_ATTENUATION = 12.0
"""Beyond, a detector sees nothing but scatter."""


@dataclass(frozen=True)
class BeamHardening:
    """How badly beams harden.

    Attributes:
        strength: 0 fully corrected, 1 bands of about -40 HU between two hips.
    """

    strength: float


def draw_beam_hardening(rng: np.random.Generator) -> BeamHardening:
    """Draw how badly beams harden: bands of 0 to -40 HU between the hips, mostly few."""
    return BeamHardening(float(rng.beta(1.2, 2.5)))


def hardening_field(survey: Raster, draw: BeamHardening) -> Raster:
    """The error that bone makes, HU, coarse.

    Args:
        survey: HU of whole slices, coarse or fine.
        draw: how badly.
    """
    coarse = survey.coarse(SURVEY_MM)
    bone = ((coarse.values.clamp(max=2000) - BONE_HU) / 1000).clamp_(min=0)
    rays = rays_around(coarse, BONE_DIRECTIONS, max(map(abs, coarse.spacing_mm[1:])))
    attenuation = integrals(coarse.filled(bone), rays) * WATER_PER_MM
    error = filtered(attenuation.square_().mul_(-HARDENING * draw.strength), rays)
    field = spread(error, rays, coarse).mul_(math.pi * 1000 / WATER_PER_MM)
    return coarse.filled(field.clamp_(-MOST_BAND_HU, MOST_BAND_HU))


def beam_hardening(hu: Raster, survey: Raster, draw: BeamHardening) -> torch.Tensor:
    """HU with dark bands between bones, float32 [z, y, x].

    Args:
        hu: the scan.
        survey: HU of its whole slices (the scan itself where it shows them), coarse or fine.
        draw: how badly.
    """
    if draw.strength == 0:
        return hu.values
    return hu.values + hardening_field(survey, draw).at(hu)


@dataclass(frozen=True)
class MetalStreaks:
    """How metal spoils a scan.

    Attributes:
        metal_per_mm: what the metal attenuates: titanium 0.25, steel and cobalt 0.7.
        ceiling: attenuation that hardening and scatter let no measurement exceed.
        photons: of a (broad) ray that meets nothing; few give fine streaks.
        left: what correction of metal artefacts leaves of it, 1 without.
    """

    metal_per_mm: float
    ceiling: float
    photons: float
    left: float


def draw_metal_streaks(rng: np.random.Generator) -> MetalStreaks:
    """Draw how metal spoils a scan; nearly half are corrected for metal (attenuation at 70 keV: NIST XCOM)."""
    titanium = rng.random() < 0.5
    return MetalStreaks(
        metal_per_mm=float(rng.uniform(0.2, 0.3) if titanium else rng.uniform(0.5, 0.8)),
        ceiling=float(rng.uniform(6, 20)),
        photons=float(math.exp(rng.uniform(math.log(1e6), math.log(2e7)))),
        left=float(rng.uniform(0.05, 0.3) if rng.random() < 0.45 else rng.uniform(0.3, 0.75)),
    )


def metal_streaks(
    hu: Raster, metal: Raster, survey: Raster, draw: MetalStreaks, generator: torch.Generator
) -> torch.Tensor:
    """HU with streaks from metal, float32 [z, y, x].

    Args:
        hu: the scan; metal in it has its own high values, which stay.
        metal: share of metal in each voxel, 0..1, in a box of its own around all metal, also that beside the scan;
            voxels of 2 to 3 mm do, finer ones give finer streaks.
        survey: HU of whole slices, coarse or fine.
        draw: how badly.
        generator: source of chance, on the device of `hu`.
    """
    framed = _framed(metal)
    planes = _planes(hu, framed)
    if planes is None:
        return hu.values
    start = float(torch.rand((), generator=generator, device=generator.device)) * math.pi / METAL_DIRECTIONS
    ray_mm = max(METAL_RAY_MM, *map(abs, metal.spacing_mm[1:]))  # narrower than a pixel, some would miss all pixels
    rays = rays_around(survey, METAL_DIRECTIONS, ray_mm, start)
    errors = _ray_errors(planes, survey, rays, draw, generator)
    pixel = [abs(step) * max(1, round(LEAST_PIXEL_MM / abs(step))) for step in hu.spacing_mm[1:]]
    wanted = Raster(hu.values[:1], hu.spacing_mm, hu.first_mm).coarse((0.0, pixel[0], pixel[1]))
    field = spread(filtered(errors, rays), rays, wanted).mul_(math.pi * 1000 / WATER_PER_MM * draw.left)
    reach = (planes.spacing_mm[0], wanted.spacing_mm[1], wanted.spacing_mm[2])
    first = (planes.first_mm[0], wanted.first_mm[1], wanted.first_mm[2])
    field = Raster(field.clamp_(-MOST_ERROR_HU, MOST_ERROR_HU), reach, first).at(hu)
    return field.mul_(1 - framed.at(hu).clamp_(0, 1)).add_(hu.values)


def _framed(metal: Raster) -> Raster:
    """The same with a frame of no metal, so that it does not go on beyond its edges."""
    first = [place - step for place, step in zip(metal.first_mm, metal.spacing_mm, strict=True)]
    values = functional.pad(metal.values, (1, 1, 1, 1, 1, 1))
    return Raster(values, metal.spacing_mm, (first[0], first[1], first[2]))


def _planes(hu: Raster, metal: Raster) -> Raster | None:
    """The metal on planes `METAL_SLICE_MM` apart, where the scan has any; None without."""
    z = hu.axes_mm[0]
    held = (metal.values > LEAST_METAL).flatten(1).any(1)
    if not bool(held.any()):
        return None
    known = metal.axes_mm[0][held]
    reach = max(METAL_SLICE_MM, abs(metal.spacing_mm[0]))  # there is none any more, so nothing goes on beyond
    low = max(float(z.min()), float(known.min()) - reach)
    high = min(float(z.max()), float(known.max()) + reach)
    if high < low:
        return None
    count = max(1, math.ceil((high - low) / METAL_SLICE_MM)) + 1
    step = max((high - low) / (count - 1), 1e-3)
    places = low + step * torch.arange(count, device=z.device)
    values = torch.tensordot(linear_weights(metal.axes_mm[0], places), metal.values, dims=1)
    return Raster(values, (step, *metal.spacing_mm[1:]), (low, *metal.first_mm[1:]))


def _ray_errors(
    metal: Raster, survey: Raster, rays: Rays, draw: MetalStreaks, generator: torch.Generator
) -> torch.Tensor:
    """By how much each ray through metal is measured wrong, attenuation [angles, bins, z].

    Hardening brings the metal's own part p down to p c / (p + c); of all attenuation nothing beyond
    `MOST_ATTENUATION` is told; and few photons scatter about what is.
    """
    part = integrals(metal, rays) * draw.metal_per_mm
    body = _body(metal, survey, rays)
    seen = part * draw.ceiling / (part + draw.ceiling)
    total = (body + seen).clamp_(max=MOST_ATTENUATION)
    noise = torch.randn(part.shape, generator=generator, device=generator.device)
    noise *= (total / 2).exp_() / math.sqrt(draw.photons)
    met = (part / (0.3 * draw.metal_per_mm)).clamp_(max=1)
    seen = torch.minimum(seen, (MOST_ATTENUATION - body).clamp(min=0))
    error = (seen - part + noise).mul_(met)
    # What only makes the metal itself darker is half left out: its blur is a black rim around metal that stays.
    own = (error * part).sum((0, 1)) / part.square().sum((0, 1)).clamp(min=1e-6)
    return error - OWN * own * part


def _body(metal: Raster, survey: Raster, rays: Rays) -> torch.Tensor:
    """Attenuation of the body along the rays, from fewer and broader ones."""
    coarse = survey.coarse((METAL_SLICE_MM * 3, 8.0, 8.0))
    density = (coarse.values.clamp(max=1500) / 1000 + 1).clamp_(min=0)
    broad_mm = max(map(abs, coarse.spacing_mm[1:]))
    bins = math.ceil(rays.bins * rays.bin_mm / broad_mm) + 2
    broad = Rays(rays.angles // SPARSE, bins, broad_mm, rays.centre_mm, rays.start_rad)
    known = integrals(coarse.filled(density), broad) * WATER_PER_MM
    along = torch.arange(rays.bins, device=known.device) - (rays.bins - 1) / 2
    broad_along = torch.arange(bins, device=known.device) - (bins - 1) / 2
    known = torch.matmul(linear_weights(broad_along * broad_mm, along * rays.bin_mm), known)
    known = torch.matmul(known, linear_weights(coarse.axes_mm[0], metal.axes_mm[0]).T)
    return known.repeat_interleave(SPARSE, 0)
