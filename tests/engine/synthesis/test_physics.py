"""The scanner's answer: blur, calibration, field of view, stored range."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from engine.synthesis.noise import draw_kernel
from engine.synthesis.physics import Response, blurred, calibrated, draw_response, round_view, stored
from engine.synthesis.raster import Raster

PLAIN = Response(0.0, 0.0, 0.0, 1.0, 1.0, (-1024.0, 3071.0), -1024.0)


def response(**changed: float) -> Response:
    return Response(**{**PLAIN.__dict__, **changed})


def volume(shape: tuple[int, int, int] = (3, 20, 24)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 100, shape).astype(np.float32))


@given(st.floats(0.4, 2.5), st.sampled_from([0.7, 1.0, 1.3]))
@settings(max_examples=20, deadline=None)
def test_blur_equals_scipy(blur_mm: float, pixel_mm: float) -> None:
    hu = volume()
    found = blurred(Raster(hu, (2.0, pixel_mm, pixel_mm)), response(blur_mm=blur_mm))
    sigma = blur_mm / pixel_mm
    reach = max(1, round(3 * sigma))
    expected = gaussian_filter(hu.numpy(), (0, sigma, sigma), mode="nearest", radius=(0, reach, reach))
    np.testing.assert_allclose(found.numpy(), expected, atol=0.05)


def test_a_blur_far_below_a_pixel_is_none() -> None:
    hu = volume()
    assert torch.equal(blurred(Raster(hu, (2.0, 2.0, 2.0)), response(blur_mm=0.5)), hu)


def test_a_sharp_kernel_overshoots_at_an_edge_and_nowhere_else() -> None:
    hu = torch.zeros(1, 5, 60)
    hu[..., 30:] = 100
    found = blurred(Raster(hu, (1.0, 0.6, 0.6)), response(blur_mm=0.25, edge=0.5))[0, 2]
    assert found.max() > 105 and found.min() < -5
    torch.testing.assert_close(found[[5, 55]], torch.tensor([0.0, 100.0]), atol=0.1, rtol=0)


@given(st.integers(0, 2**31))
@settings(max_examples=40)
def test_air_stays_air_and_water_water(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = draw_response(rng, draw_kernel(rng))
    air, water, bone = calibrated(torch.tensor([-1000.0, 0.0, 1000.0]), drawn).tolist()
    assert abs(air + 1000) <= 12.1
    assert abs(water) <= 33
    assert 700 < bone < 1500


def test_what_is_stored_fits_twelve_bits_and_is_whole() -> None:
    found = stored(torch.tensor([-5000.0, -1.4, 0.6, 9000.0]), PLAIN)
    assert found.dtype == torch.int16
    assert found.tolist() == [-1024, -1, 1, 3071]


def test_nothing_is_known_outside_the_round_view() -> None:
    hu = Raster(torch.zeros(2, 41, 41), (1.0, 1.0, 1.0), (0.0, -20.0, -20.0))
    found = round_view(hu, (0.0, 5.0), 10.0, -1024.0)
    inside = found[0] == 0
    assert abs(int(inside.sum()) - np.pi * 100) < 12
    assert inside[20, 25] and not inside[20, 13]
    assert torch.equal(round_view(hu, (0.0, 0.0), 30.0, -1024.0), hu.values)
