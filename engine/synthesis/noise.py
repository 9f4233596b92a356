"""The noise of a scanner: alike within a slice by the kernel, between slices by their thickness, led by the body.

Noise enters along rays. A ray that crosses a wide body from side to side brings more of it than one from front to
back, and it lies along the ray: hence the horizontal grain between two hips. Two fields are made, one of rays
that run from side to side and one of those from front to back, and each is weighted by the map of its own rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from engine.synthesis.raster import Lengths, Raster
from engine.synthesis.rays import integrals, rays_around, spread

WATER_PER_MM = 0.0193
"""Attenuation of water at 70 keV, the mean of a beam of 120 kV (NIST XCOM)."""
SURVEY_MM = (12.0, 8.0, 8.0)
MOST_DENSITY = 3.0
"""What metal does is another matter (`engine.synthesis.artefacts`)."""
DIRECTIONS = 16
CHUNK = 16
REACH_PER_MM = 1.2
"""No kernel passes higher frequencies."""


@dataclass(frozen=True)
class Grain:
    """The power spectrum of noise in the slice: (f + floor) exp(-f^2 / 2 peak^2).

    Attributes:
        peak_per_mm: where power peaks, if floor is 0.
        floor_per_mm: raises the low frequencies, as iterative reconstruction does.
        pixel_mm: the scanner's own pixel; on another grid its noise is smoothed by linear interpolation. 0 for none.
    """

    peak_per_mm: float
    floor_per_mm: float = 0.0
    pixel_mm: float = 0.0

    def power(self, frequency_per_mm: torch.Tensor) -> torch.Tensor:
        """Power at a frequency, in arbitrary units."""
        decay = (-0.5 * (frequency_per_mm / self.peak_per_mm).square()).exp()
        return (frequency_per_mm + self.floor_per_mm) * decay


@dataclass(frozen=True)
class Noise:
    """The noise of one scan.

    Attributes:
        sd_hu: root mean square over the body, in the scanner's own slices and pixels.
        grain: its spectrum.
        contrast: by how much it follows the attenuation of the rays; 0 everywhere the same, 1 with a constant tube
            current and filtered backprojection.
        levelled: whether the current is adapted slice by slice, so that thick parts are no noisier than thin ones.
    """

    sd_hu: float
    grain: Grain
    contrast: float
    levelled: bool


@dataclass(frozen=True)
class Kernel:
    """A family of reconstruction kernels.

    Attributes:
        share: of all scans.
        peak_per_mm: range of the peak of the noise power.
        blur_mm: range of the SD of the point spread in the slice.
        edge: range of the overshoot at edges.
        noisier: range of the SD against that of a soft kernel.
    """

    share: float
    peak_per_mm: tuple[float, float]
    blur_mm: tuple[float, float]
    edge: tuple[float, float]
    noisier: tuple[float, float]


KERNELS = {
    # Peaks at 0.2 to 0.4 /mm for soft kernels (textbook range); measured 0.1 to 0.2 with iterative reconstruction
    # (Siemens Br38 strength 3). Widths: half of the contrast passes at 0.3 to 0.4 /mm (soft), 0.7 and more (bone).
    "smooth": Kernel(0.15, (0.12, 0.20), (0.7, 1.1), (0.0, 0.0), (0.6, 0.9)),
    "soft": Kernel(0.55, (0.18, 0.32), (0.45, 0.75), (0.0, 0.1), (0.8, 1.2)),
    "medium": Kernel(0.18, (0.28, 0.42), (0.35, 0.5), (0.05, 0.3), (1.2, 1.8)),
    "bone": Kernel(0.12, (0.45, 0.75), (0.2, 0.35), (0.3, 0.9), (2.0, 3.2)),
}
SOFT_3MM_HU = (4.0, 28.0)
"""SD of 3 mm slices with a soft kernel, log-uniform: measured 4 (head, 4 mm) and 10 to 12 (abdomen, 3 mm)."""
MOST_HU = 120.0
"""1 mm with a bone kernel: 60 to 120 HU (textbook range)."""


def draw_kernel(rng: np.random.Generator) -> Kernel:
    """Draw a family of kernels."""
    kernels = list(KERNELS.values())
    return kernels[rng.choice(len(kernels), p=[kernel.share for kernel in kernels])]


def draw_noise(rng: np.random.Generator, kernel: Kernel, thickness_mm: float, pixel_mm: float) -> Noise:
    """Draw the noise of a scan; the SD goes with one over the root of the slice thickness."""
    dose_hu = math.exp(rng.uniform(*np.log(SOFT_3MM_HU)))
    sd_hu = dose_hu * rng.uniform(*kernel.noisier) * math.sqrt(3.0 / max(thickness_mm, 0.5))
    floor = float(rng.uniform(0.02, 0.15)) if rng.random() < 0.5 else 0.0  # half of the scanners iterate
    grain = Grain(float(rng.uniform(*kernel.peak_per_mm)), floor, pixel_mm)
    return Noise(min(sd_hu, MOST_HU), grain, float(rng.uniform(0.15, 0.7)), bool(rng.random() < 0.7))


def correlated_noise(
    shape: tuple[int, int, int],
    spacing_mm: Lengths,
    grain: Grain,
    generator: torch.Generator,
    between: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of rays from side to side, and noise of rays from front to back; their sum has unit SD.

    Unit SD in the scanner's own pixels: a `grain` with `pixel_mm` has less on a coarser grid.

    Args:
        shape: voxels, [z, y, x].
        spacing_mm: of the grid.
        grain: the spectrum in the slice.
        generator: source of chance; its device is that of the result.
        between: root of the covariance between slices [z, z] (`engine.synthesis.slices`); independent without it.

    Returns:
        two float32 [z, y, x].
    """
    gains = _gains(shape[1:], spacing_mm[1:], grain, generator.device)
    fields = []
    for gain in gains:
        noise = torch.randn(shape, generator=generator, device=generator.device)
        if between is not None:
            noise = (between @ noise.view(shape[0], -1)).view(shape)
        for start in range(0, shape[0], CHUNK):  # what fits a cache is transformed faster
            planes = noise[start : start + CHUNK]
            planes.copy_(torch.fft.irfft2(torch.fft.rfft2(planes).mul_(gain), s=shape[1:]))
        fields.append(noise)
    return fields[0], fields[1]


def noise_maps(survey: Raster, noise: Noise) -> tuple[Raster, Raster]:
    """SD of the noise of rays from side to side, and of rays from front to back, HU.

    The variance that a ray brings grows with the exponential of its attenuation; that of a pixel is the mean over the
    rays through it.

    Args:
        survey: HU of whole slices, coarse or fine.
        noise: the draw.

    Returns:
        two coarse rasters; over the body, the mean of their squares is `sd_hu` squared.
    """
    coarse = survey.coarse(SURVEY_MM)
    density = (coarse.values / 1000 + 1).clamp_(0, MOST_DENSITY)
    rays = rays_around(coarse, DIRECTIONS, 1.2 * max(map(abs, coarse.spacing_mm[1:])))
    variance = (integrals(coarse.filled(density), rays) * (WATER_PER_MM * noise.contrast)).exp_()
    sideways = rays.directions(variance.device).sin().square()[:, None, None]
    maps = [spread(variance * (2 * part), rays, coarse) for part in (sideways, 1 - sideways)]
    body = (density > 0.5).float()
    axes = (1, 2) if noise.levelled else (0, 1, 2)
    weight = body.sum(axes, keepdim=True)
    level = ((maps[0] + maps[1]) * body).sum(axes, keepdim=True) / (2 * weight.clamp(min=1))
    if noise.levelled:  # the current follows the body over some centimetres, and never beyond slices of pure air
        level = torch.where(weight > 0, level, level.max())
    level = torch.where(level > 0, level, 1.0)
    first, second = (coarse.filled((each / level).sqrt_() * noise.sd_hu) for each in maps)
    return first, second


def add_noise(
    hu: Raster, survey: Raster, noise: Noise, generator: torch.Generator, between: torch.Tensor | None = None
) -> torch.Tensor:
    """HU with noise, float32 [z, y, x].

    Args:
        hu: the scan.
        survey: HU of its whole slices (the scan itself where it shows them), coarse or fine.
        noise: the draw.
        generator: source of chance, on the device of `hu`.
        between: root of the covariance between slices.
    """
    shape = hu.values.shape
    fields = correlated_noise((shape[0], shape[1], shape[2]), hu.spacing_mm, noise.grain, generator, between)
    result = hu.values
    for field, sd in zip(fields, noise_maps(survey, noise), strict=True):
        result = result + field.mul_(sd.at(hu))
    return result


def _gains(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], grain: Grain, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Amplitude of each frequency [y, x / 2 + 1] for both fields, for sampling at points: higher orders fold in."""
    steps = [abs(step) for step in spacing_mm]
    fy = torch.fft.fftfreq(shape[0], steps[0], device=device)[:, None]
    fx = torch.fft.rfftfreq(shape[1], steps[1], device=device)[None, :]
    reach = [math.ceil(max(0.0, min(REACH_PER_MM, 4 * grain.peak_per_mm) * step - 0.5)) for step in steps]
    sums = [torch.zeros(shape[0], fx.shape[1], device=device) for _ in range(2)]
    for order_y in range(-reach[0], reach[0] + 1):
        for order_x in range(-reach[1], reach[1] + 1):
            y, x = fy + order_y / steps[0], fx + order_x / steps[1]
            square = y.square() + x.square()
            power = grain.power(square.sqrt()) * _interpolation(y, grain.pixel_mm) * _interpolation(x, grain.pixel_mm)
            across = torch.where(square > 0, y.square() / square.clamp(min=1e-12), 0.5)
            sums[0] += power * across
            sums[1] += power * (1 - across)
    # Power per area: the variance of the scanner's own pixels is the integral over all frequencies.
    total = _total(grain)
    first, second = ((each / (total * steps[0] * steps[1])).sqrt_() for each in sums)
    return first, second


def _total(grain: Grain) -> float:
    """Integral of the power over the plane of frequencies."""
    p, floor = grain.peak_per_mm, grain.floor_per_mm
    return 2 * math.pi * (p**3 * math.sqrt(math.pi / 2) + floor * p**2)


def _interpolation(frequency: torch.Tensor, pixel_mm: float) -> torch.Tensor:
    """What linear interpolation between pixels leaves of the power."""
    return torch.sinc(frequency * pixel_mm) ** 4
