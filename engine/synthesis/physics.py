"""What a scanner makes of attenuation: the kernel's blur and edges, calibration, field of view, stored range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.synthesis.noise import Kernel
from engine.synthesis.raster import Raster

STORED_HU = (-1024.0, 3071.0)
"""What 12 bits hold."""
EDGE_MM = 1.0
"""Width of the overshoot of sharp kernels."""
SEEN = 0.3
"""A blur whose SD is a smaller part of a pixel is not seen."""
TISSUE_HU = 100.0
"""What attenuates more depends on the tube's voltage."""


@dataclass(frozen=True)
class Response:
    """How a scanner answers.

    Attributes:
        blur_mm: SD of the point spread in the slice.
        edge: overshoot at edges, as a share of the step.
        offset_hu: error of calibration, HU.
        scale: error of calibration, factor on attenuation (HU + 1000).
        dense: factor on what exceeds 100 HU: bone and contrast at another voltage than 120 kV.
        stored_hu: least and greatest value stored.
        outside_hu: what stands outside the round field of view.
    """

    blur_mm: float
    edge: float
    offset_hu: float
    scale: float
    dense: float
    stored_hu: tuple[float, float]
    outside_hu: float


def draw_response(rng: np.random.Generator, kernel: Kernel) -> Response:
    """Draw how a scanner answers.

    Water within +-4 HU is what quality assurance asks for (IEC 61223-3-5); the fat of one phantom differs by some 10 HU
    between scanners and voltages. From 80 to 140 kV the attenuation of bone and iodine goes from 1.4 to 0.85 of that at
    120 kV. One in thirty series was cut to a smaller range by something on its way.
    """
    voltage = float(rng.choice([1.0, 1.18, 1.4, 0.85], p=[0.7, 0.15, 0.05, 0.1]))
    cut = rng.random() < 1 / 30
    stored = (-1000.0, float(rng.choice([1000.0, 1500.0, 2000.0]))) if cut else STORED_HU
    return Response(
        blur_mm=float(rng.uniform(*kernel.blur_mm)),
        edge=float(rng.uniform(*kernel.edge)),
        offset_hu=float(np.clip(rng.normal(0, 4), -12, 12)),
        scale=float(np.clip(rng.normal(1, 0.006), 0.98, 1.02)),
        dense=voltage * float(rng.uniform(0.95, 1.05)),
        stored_hu=stored,
        outside_hu=float(rng.choice([stored[0], -1000.0], p=[0.7, 0.3])),
    )


def blurred(hu: Raster, response: Response) -> torch.Tensor:
    """HU after the kernel's blur and overshoot in the slice, float32 [z, y, x]."""
    sharp = _smooth(hu.values, hu.spacing_mm, response.blur_mm)
    if response.edge == 0:
        return sharp
    return sharp + response.edge * (sharp - _smooth(sharp, hu.spacing_mm, EDGE_MM))


def calibrated(hu: torch.Tensor, response: Response) -> torch.Tensor:
    """HU on the scanner's own scale, of any shape; air stays air but for the offset."""
    dense = hu + (response.dense - 1) * (hu - TISSUE_HU).clamp(min=0)
    return dense.add_(1000).mul_(response.scale).add_(response.offset_hu - 1000)


def round_view(hu: Raster, centre_mm: tuple[float, float], radius_mm: float, outside_hu: float) -> torch.Tensor:
    """HU with nothing outside the circle that was reconstructed.

    Args:
        hu: the scan.
        centre_mm: y and x of the circle's centre.
        radius_mm: its radius.
        outside_hu: what stands outside.
    """
    _, y, x = hu.axes_mm
    away = (y[:, None] - centre_mm[0]).square() + (x[None, :] - centre_mm[1]).square()
    if bool(away.max() <= radius_mm**2):
        return hu.values
    return hu.values.masked_fill(away > radius_mm**2, outside_hu)


def stored(hu: torch.Tensor, response: Response) -> torch.Tensor:
    """Whole HU within the stored range, int16."""
    return hu.round().clamp_(*response.stored_hu).to(torch.int16)


def _smooth(values: torch.Tensor, spacing_mm: tuple[float, float, float], sd_mm: float) -> torch.Tensor:
    """Gaussian blur along y and x."""
    for axis in (1, 2):
        sigma, length = sd_mm / abs(spacing_mm[axis]), values.shape[axis]
        if sigma < SEEN or length == 1:
            continue
        reach = min(max(1, round(3 * sigma)), length - 1)
        taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
        taps /= 2 * taps.sum() - taps[0]
        # Shifted sums: the convolutions of torch take twenty times as long on a CPU for a single channel.
        result = values * taps[0]
        for lag in range(1, reach + 1):
            low, high = values.narrow(axis, 0, length - lag), values.narrow(axis, lag, length - lag)
            result.narrow(axis, lag, length - lag).add_(low, alpha=taps[lag])
            result.narrow(axis, 0, length - lag).add_(high, alpha=taps[lag])
            result.narrow(axis, 0, lag).add_(values.narrow(axis, 0, 1), alpha=taps[lag])
            result.narrow(axis, length - lag, lag).add_(values.narrow(axis, length - 1, 1), alpha=taps[lag])
        values = result
    return values
