"""Noise: its strength, its spectrum, its direction; alike between slices as their thickness makes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.synthesis.noise import (
    KERNELS,
    MOST_HU,
    Grain,
    Noise,
    add_noise,
    correlated_noise,
    draw_kernel,
    draw_noise,
    noise_maps,
)
from engine.synthesis.raster import Raster
from engine.synthesis.slices import Slices, draw_slices, slicing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def body(planes: int = 6, pixel_mm: float = 4.0) -> Raster:
    """An ellipse of water, 360 x 200 mm."""
    y = (torch.arange(75) - 37.0) * pixel_mm
    x = (torch.arange(110) - 54.5) * pixel_mm
    inside = (y[:, None] / 100).square() + (x[None, :] / 180).square() < 1
    hu = torch.where(inside, 0.0, -1000.0).expand(planes, -1, -1).contiguous()
    return Raster(hu, (5.0, pixel_mm, pixel_mm), (0.0, float(y[0]), float(x[0])))


@pytest.mark.parametrize("pixel_mm", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("grain", [Grain(0.15), Grain(0.3, 0.1), Grain(0.4)])
def test_the_sum_of_both_fields_has_unit_sd(grain: Grain, pixel_mm: float) -> None:
    fields = correlated_noise((16, 96, 128), (3.0, pixel_mm, pixel_mm), grain, generator())
    assert float((fields[0] + fields[1]).std()) == pytest.approx(1.0, abs=0.03)
    assert float(fields[0].std()) == pytest.approx(float(fields[1].std()), rel=0.05)


@pytest.mark.parametrize("peak", [0.2, 0.3, 0.5])
def test_power_peaks_where_the_kernel_says(peak: float) -> None:
    noise = sum(correlated_noise((24, 160, 160), (1.0, 0.4, 0.4), Grain(peak), generator()))
    assert isinstance(noise, torch.Tensor)
    power = torch.fft.fft2(noise).abs().square().mean(0)
    frequency = torch.fft.fftfreq(160, 0.4)
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    rings = torch.arange(0.02, 0.8, 0.04)
    mean = torch.stack([power[(radius >= low) & (radius < low + 0.04)].mean() for low in rings])
    assert float(rings[mean.argmax()]) + 0.02 == pytest.approx(peak, abs=0.07)


def test_a_coarser_grid_smooths_the_scanner_s_noise() -> None:
    fields = correlated_noise((16, 96, 96), (2.5, 2.0, 2.0), Grain(0.3, pixel_mm=0.8), generator())
    assert 0.5 < float((fields[0] + fields[1]).std()) < 0.9


def test_each_field_lies_along_its_rays() -> None:
    sideways, upright = correlated_noise((16, 96, 96), (1.0, 1.0, 1.0), Grain(0.25), generator())

    def alike(field: torch.Tensor, axis: int) -> float:
        return float((field * field.roll(2, axis)).mean() / field.square().mean())

    assert alike(sideways, 2) > alike(sideways, 1) + 0.2
    assert alike(upright, 1) > alike(upright, 2) + 0.2


@given(st.floats(0.0, 1.0), st.floats(2.0, 60.0), st.booleans())
@settings(max_examples=15, deadline=None)
def test_maps_keep_the_sd_over_the_body(contrast: float, sd_hu: float, levelled: bool) -> None:
    slices = body()
    first, second = noise_maps(slices, Noise(sd_hu, Grain(0.25), contrast, levelled))
    square = (first.values.square() + second.values.square()) / 2
    assert float(square[first.filled(slices.at(first)).values > -500].mean().sqrt()) == pytest.approx(sd_hu, rel=0.02)


def test_the_middle_of_a_wide_body_is_noisier_and_its_grain_lies_sideways() -> None:
    slices = body()
    sideways, upright = noise_maps(slices, Noise(10.0, Grain(0.25), 0.6, True))
    row, column = (length // 2 for length in sideways.values.shape[1:])
    assert sideways.values[1, row, column] > 1.3 * upright.values[1, row, column]
    assert sideways.values[1, row, column] > 1.2 * sideways.values[1, 1, column]


def test_a_level_current_leaves_thin_parts_no_quieter() -> None:
    slices = body(planes=12)
    y, x = slices.axes_mm[1:]
    slices.values[6:][:, torch.hypot(y[:, None], x[None, :]) > 60] = -1000
    thin, thick = (slice(4, 5), slice(0, 1))
    for levelled, ratio in ((True, (0.9, 1.1)), (False, (0.0, 0.6))):
        first, _ = noise_maps(slices, Noise(10.0, Grain(0.25), 0.6, levelled))
        row, column = (length // 2 for length in first.values.shape[1:])
        found = float(first.values[thin, row, column] / first.values[thick, row, column])
        assert ratio[0] * 0.6 < found < ratio[1] + 0.15


def test_pure_air_has_noise_and_no_error() -> None:
    air = Raster(torch.full((4, 32, 32), -1000.0), (3.0, 2.0, 2.0))
    found = add_noise(air, air, Noise(10.0, Grain(0.25), 0.5, True), generator())
    assert torch.isfinite(found).all()


def test_the_same_seed_gives_the_same_noise_and_leaves_the_scan_alone() -> None:
    slices = body()
    before = slices.values.clone()
    noise = Noise(10.0, Grain(0.25), 0.5, True)
    once, again, other = (add_noise(slices, slices, noise, generator(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(once, again, rtol=0, atol=0)
    assert not torch.equal(once, other)
    torch.testing.assert_close(slices.values, before, rtol=0, atol=0)


def test_neighbours_of_overlapping_slices_share_noise_as_measured() -> None:
    places = np.arange(0.0, 80.0, 2.0)
    cut = slicing(Slices(3.0, places), torch.from_numpy(places.astype(np.float32)))
    noise = sum(correlated_noise((40, 64, 64), (2.0, 1.0, 1.0), Grain(0.25), generator(), cut.between))
    assert isinstance(noise, torch.Tensor)
    for lag, measured in ((1, 0.56), (2, 0.09), (3, 0.01)):
        assert float((noise[lag:] * noise[:-lag]).mean()) == pytest.approx(measured, abs=0.06)


@given(st.integers(0, 2**31))
@settings(max_examples=50)
def test_draws_stay_in_their_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = draw_kernel(rng)
    slices = draw_slices(rng, -30.0, 70.0)
    noise = draw_noise(rng, kernel, slices.thickness_mm, 0.8)
    assert 1.0 < noise.sd_hu <= MOST_HU
    assert 0.1 <= noise.grain.peak_per_mm <= 0.8
    assert 0.5 <= slices.thickness_mm <= 6.0
    assert slices.places_mm[0] <= -30.0 and slices.places_mm[-1] >= 70.0
    assert (np.diff(slices.places_mm) > 0).all()


def test_shares_of_kernels_sum_to_one() -> None:
    assert sum(kernel.share for kernel in KERNELS.values()) == pytest.approx(1.0)
