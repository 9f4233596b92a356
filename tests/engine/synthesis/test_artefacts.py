"""Artefacts: dark between what is dense, streaks from metal, nothing without."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.synthesis.artefacts import (
    MOST_BAND_HU,
    MOST_ERROR_HU,
    BeamHardening,
    MetalStreaks,
    beam_hardening,
    draw_beam_hardening,
    draw_metal_streaks,
    metal_streaks,
)
from engine.synthesis.raster import Raster

STREAKS = MetalStreaks(0.3, 8.0, 1e7, 1.0)
PLACE = (torch.arange(100) - 49.5) * 4.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two(radius_mm: float, planes: int = 6) -> torch.Tensor:
    """Two round things 160 mm apart from side to side, bool [z, y, x]."""
    away = torch.minimum(*(torch.hypot(PLACE[:, None], PLACE[None, :] + side) for side in (-80.0, 80.0)))
    return (away < radius_mm).expand(planes, -1, -1)


def body(bone_hu: float = 40.0) -> Raster:
    inside = (PLACE[:, None] / 100).square() + (PLACE[None, :] / 170).square() < 1
    hu = torch.where(inside, 40.0, -1000.0).expand(6, -1, -1)
    return Raster(torch.where(two(24.0), bone_hu, hu), (5.0, 4.0, 4.0), (0.0, -198.0, -198.0))


def metal(planes: slice = slice(None)) -> Raster:
    share = torch.zeros(6, 100, 100)
    share[planes] = two(10.0).float()[planes]
    return Raster(share, (5.0, 4.0, 4.0), (0.0, -198.0, -198.0))


def test_it_is_darker_between_two_hips_than_in_front_of_them() -> None:
    scan = body(700.0)
    change = (beam_hardening(scan, scan, BeamHardening(1.0)) - scan.values)[2]
    assert -MOST_BAND_HU <= float(change[49:51, 45:55].mean()) < -8
    assert abs(float(change[28:32, 45:55].mean())) < 4


def test_no_bone_or_full_correction_changes_nothing() -> None:
    soft, bony = body(), body(700.0)
    assert torch.equal(beam_hardening(soft, soft, BeamHardening(1.0)), soft.values)
    assert torch.equal(beam_hardening(bony, bony, BeamHardening(0.0)), bony.values)


def test_a_part_of_the_scan_gets_what_the_whole_gets() -> None:
    whole = body(700.0)
    part = Raster(whole.values[:, 40:60, 40:70], whole.spacing_mm, (0.0, -38.0, -38.0))
    draw = BeamHardening(1.0)
    torch.testing.assert_close(beam_hardening(part, whole, draw), beam_hardening(whole, whole, draw)[:, 40:60, 40:70])


def test_metal_darkens_between_and_brightens_beside() -> None:
    scan = body()
    change = (metal_streaks(scan, metal(), scan, STREAKS, generator()) - scan.values)[2]
    assert float(change[49:51, 40:60].mean()) < -60
    assert float(change[45:47, 60:80].mean()) > 15
    assert float(change[53:55, 60:80].mean()) > 15
    assert float(change.abs().max()) <= MOST_ERROR_HU + 1e-3


def test_metal_itself_stays() -> None:
    scan = body()
    full = metal().values == 1
    found = metal_streaks(scan, metal(), scan, STREAKS, generator())
    torch.testing.assert_close(found[full], scan.values[full], atol=1e-3, rtol=0)


def test_streaks_stay_in_the_slices_of_the_metal() -> None:
    scan = body()
    change = metal_streaks(scan, metal(slice(4, 6)), scan, STREAKS, generator()) - scan.values
    assert change[:3].abs().max() < 1e-3
    assert change[4].abs().max() > 50


@pytest.mark.parametrize("far", [False, True])
def test_no_metal_near_changes_nothing(far: bool) -> None:
    scan = body()
    none = Raster(metal().values * float(far), (5.0, 4.0, 4.0), (500.0, -198.0, -198.0))
    assert torch.equal(metal_streaks(scan, none, scan, STREAKS, generator()), scan.values)


def test_metal_beside_a_part_of_the_scan_counts() -> None:
    whole = body()
    part = Raster(whole.values[:, 40:60, 40:60], whole.spacing_mm, (0.0, -38.0, -38.0))
    found = metal_streaks(part, metal(), whole, STREAKS, generator())
    expected = metal_streaks(whole, metal(), whole, STREAKS, generator())[:, 40:60, 40:60]
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


def test_the_same_seed_gives_the_same_streaks() -> None:
    scan = body()
    once, again, other = (metal_streaks(scan, metal(), scan, STREAKS, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_draws_stay_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert 0 <= draw_beam_hardening(rng).strength <= 1
        drawn = draw_metal_streaks(rng)
        assert 0.05 <= drawn.left <= 0.75 and math.isfinite(drawn.photons) and 0.2 <= drawn.metal_per_mm <= 0.8
