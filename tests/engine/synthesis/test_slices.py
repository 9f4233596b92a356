"""Slices: what each averages, where it lies, and what a network's grid gets of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.synthesis.slices import THICKNESS_MM, Slices, slicing

BODY_MM = torch.arange(0.0, 100.0, 1.0)


@given(st.sampled_from(list(THICKNESS_MM)), st.floats(0.4, 8.0), st.floats(0.5, 3.0))
@settings(max_examples=40, deadline=None)
def test_every_slice_is_a_mean(thickness_mm: float, step_mm: float, body_step_mm: float) -> None:
    body_mm = torch.arange(0.0, 90.0, body_step_mm)
    slices = Slices(thickness_mm, np.arange(-5.0, 95.0, step_mm))
    for wanted in (None, torch.arange(0.0, 90.0, 2.5)):
        cut = slicing(slices, body_mm, wanted)
        assert (cut.weights >= 0).all()
        torch.testing.assert_close(cut.weights.sum(1), torch.ones(len(cut.weights)), atol=1e-4, rtol=0)
        assert torch.isfinite(cut.between).all()


@pytest.mark.parametrize("thickness_mm", [2.0, 3.0, 5.0])
def test_a_thin_plate_is_seen_over_the_thickness(thickness_mm: float) -> None:
    places = np.arange(30.0, 70.0, 0.5)
    plate = torch.zeros(len(BODY_MM), 1, 1)
    plate[50] = 1
    seen = slicing(Slices(thickness_mm, places), BODY_MM).averaged(plate)[:, 0, 0].numpy()
    wide = places[seen > seen.max() / 2]
    assert wide[-1] - wide[0] == pytest.approx(thickness_mm, abs=0.8)
    assert places[seen.argmax()] == 50.0


def test_slices_of_no_thickness_interpolate() -> None:
    ramp = BODY_MM[:, None, None] * 3.0
    places = np.array([10.25, 47.5, 80.0])
    found = slicing(Slices(1e-6, places), BODY_MM).averaged(ramp)[:, 0, 0]
    np.testing.assert_allclose(found.numpy(), places * 3, rtol=1e-3)


def test_a_symmetric_profile_keeps_a_ramp() -> None:
    places = np.array([20.0, 33.3, 61.7])
    found = slicing(Slices(5.0, places), BODY_MM).averaged(BODY_MM[:, None, None])[:, 0, 0]
    np.testing.assert_allclose(found.numpy(), places, atol=1e-3)


def test_a_network_s_planes_lie_between_slices() -> None:
    slices = Slices(1e-6, np.array([0.0, 10.0, 20.0]))
    edge = (BODY_MM >= 10).float()[:, None, None]
    found = slicing(slices, BODY_MM, torch.tensor([2.5, 5.0, 10.0])).averaged(edge)[:, 0, 0]
    np.testing.assert_allclose(found.numpy(), [0.25, 0.5, 1.0], atol=1e-3)


def test_noise_between_slices_is_less() -> None:
    slices = Slices(1.0, np.arange(0.0, 50.0, 5.0))
    cut = slicing(slices, BODY_MM, torch.tensor([10.0, 12.5]))
    torch.testing.assert_close(cut.between.square().sum(1), torch.tensor([1.0, 0.5]), atol=1e-3, rtol=0)
