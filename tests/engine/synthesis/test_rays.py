"""Rasters and rays: interpolation against NumPy, integrals against geometry, reconstruction against the original."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.synthesis.raster import Raster, linear_weights
from engine.synthesis.rays import filtered, integrals, rays_around, spread

MEASURES = st.floats(-50, 50, allow_nan=False, width=32)


def disc(radius_mm: float, pixel_mm: float = 4.0, planes: int = 2, size: int = 60) -> Raster:
    place = (torch.arange(size) - (size - 1) / 2) * pixel_mm
    inside = torch.hypot(place[:, None], place[None, :]) < radius_mm
    first = float(place[0])
    return Raster(inside.float().expand(planes, -1, -1).contiguous(), (5.0, pixel_mm, pixel_mm), (0.0, first, first))


@given(
    st.lists(MEASURES, min_size=2, max_size=8, unique_by=lambda each: round(each, 1)),
    st.lists(MEASURES, min_size=1, max_size=8),
    st.booleans(),
)
@settings(max_examples=60)
def test_interpolation_along_an_axis_equals_numpy(known: list[float], wanted: list[float], descending: bool) -> None:
    places = np.sort(np.array(known, dtype=np.float32))
    values = np.cos(places).astype(np.float32)
    expected = np.interp(wanted, places, values)
    order = slice(None, None, -1) if descending else slice(None)
    weights = linear_weights(torch.from_numpy(places[order].copy()), torch.tensor(wanted, dtype=torch.float32))
    np.testing.assert_allclose((weights @ torch.from_numpy(values[order].copy())).numpy(), expected, atol=2e-3)


def test_a_coarse_raster_holds_means_at_their_places() -> None:
    z, y, x = (torch.arange(length, dtype=torch.float32) for length in (4, 6, 9))
    ramp = 2 * z[:, None, None] + 3 * y[None, :, None] - x[None, None, :]
    fine = Raster(ramp, (2.0, 1.0, -1.0), (10.0, 20.0, 30.0))
    coarse = fine.coarse((4.0, 2.5, 3.0))
    assert coarse.values.shape == (2, 3, 3)
    assert coarse.spacing_mm == (4.0, 2.0, -3.0)
    torch.testing.assert_close(coarse.values, fine.at(coarse))


def test_integrals_are_lengths_of_chords() -> None:
    slices = disc(80.0)
    rays = rays_around(slices, 12, 4.0)
    along = (torch.arange(rays.bins) - (rays.bins - 1) / 2) * rays.bin_mm
    chord = 2 * (80.0**2 - along.square()).clamp(min=0).sqrt()
    found = integrals(slices, rays)
    assert found.shape == (12, rays.bins, 2)
    assert (found[:, :, 0].mean(0) - chord).abs().mean() < 2.5
    torch.testing.assert_close(found[..., 0], found[..., 1])


def test_nothing_has_no_integrals() -> None:
    empty = disc(0.0)
    assert not integrals(empty, rays_around(empty, 4, 4.0)).any()


@pytest.mark.parametrize("start_rad", [0.0, 0.3])
def test_filtered_rays_give_the_slice_back(start_rad: float) -> None:
    slices = disc(80.0)
    rays = rays_around(slices, 60, 4.0, start_rad)
    found = spread(filtered(integrals(slices, rays), rays), rays, slices) * math.pi
    middle = slices.values > 0
    inner, outer = disc(64.0).values > 0, disc(96.0).values == 0
    assert (found[inner] - 1).abs().max() < 0.05
    assert found[outer].abs().mean() < 0.03
    assert found[middle].mean() == pytest.approx(1.0, abs=0.05)


def test_any_part_of_a_slice_can_be_asked_for() -> None:
    slices = disc(80.0)
    rays = rays_around(slices, 30, 4.0)
    sinogram = filtered(integrals(slices, rays), rays)
    whole = spread(sinogram, rays, slices)
    part = Raster(torch.empty(1, 7, 5), (5.0, 4.0, 4.0), (0.0, slices.first_mm[1] + 40.0, slices.first_mm[2] + 80.0))
    torch.testing.assert_close(spread(sinogram, rays, part), whole[:, 10:17, 20:25], atol=1e-5, rtol=1e-4)
