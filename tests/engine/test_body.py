from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from engine.body import body_on, find_body
from engine.errors import VolumeError
from engine.resample import PATIENT_AXES, closest_orientation, network_grid, sample_linear
from engine.volume import Grid, UnevenPlanes, Volume


def upright_grid() -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES * (4.0, 2.0, 2.0)
    affine[:3, 3] = (-200.0, -120.0, 0.0)
    return Grid((30, 130, 200), affine)


def test_the_table_falls_away_and_the_legs_stay(legs: Callable[[Grid], Volume]) -> None:
    volume = legs(upright_grid())
    hu = volume.hu.copy()
    patient = hu > -900
    hu[:, 104:106, 10:190] = 100  # a table's shell of 4 mm, 13 mm under the skin
    hu[:, 106:112, 10:190] = -930  # its foam
    hu[:, 112:114, 10:190] = 100
    hu[5:25, 60:63, 54:57] = -1000  # gas inside
    body = find_body(hu, volume.grid)
    network = network_grid(volume.grid, body.points(), 8.0, (4.0, 2.0, 2.0))
    assert network.shape[1:] < (95, 190)
    inside = body_on(network, body, sample_linear(hu, volume.grid, network))
    expected = sample_linear(np.where(patient, 0, -1000).astype(np.int16), volume.grid, network).numpy() > -500
    wrong = inside != ndimage.binary_fill_holes(expected)
    assert wrong.mean() < 0.02
    assert not (inside & ~ndimage.binary_dilation(expected, iterations=2)).any()


def test_noise_does_not_eat_the_fat(legs: Callable[[Grid], Volume]) -> None:
    volume = legs(upright_grid())
    noise = np.random.default_rng(1).normal(0, 80, volume.hu.shape)
    clean, noisy = (find_body(hu, volume.grid).mask for hu in (volume.hu, (volume.hu + noise).astype(np.int16)))
    assert (clean != noisy).mean() < 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("extra", [0, 1, 2, 3])
@pytest.mark.parametrize("reversed_axis", [False, True])
def test_a_body_cut_by_the_scan_reaches_its_last_planes(axis: int, extra: int, reversed_axis: bool) -> None:
    shape = [20, 20, 20]
    shape[axis] += extra
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES
    affine[:3, axis] *= -1 if reversed_axis else 1
    orientation = closest_orientation(Grid((shape[0], shape[1], shape[2]), affine))
    scan = orientation.turn_grid(Grid((shape[0], shape[1], shape[2]), affine))
    hu = orientation.turn(np.full(shape, 50, dtype=np.int16))
    body = find_body(hu, scan)
    assert body.step == (4, 4, 4)
    network = network_grid(scan, body.points(), 8.0, (1.0, 1.0, 1.0))
    assert network.shape == scan.shape
    assert body_on(network, body, sample_linear(hu, scan, network)).all()
    assert body.on(scan).all()


@pytest.mark.parametrize("axis", [0, 2])
def test_uneven_planes_show_the_same_body(legs: Callable[[Grid], Volume], axis: int) -> None:
    """Blocks of thin and thick planes: the coarse grid is even, and lies where the scan does."""
    even = upright_grid()
    blocks = np.concatenate([np.full(9, 0.5), np.full(even.shape[axis] - 10, 1.0)])
    places = np.concatenate([[0.0], np.cumsum(blocks)])
    uneven = UnevenPlanes(axis, places * ((places.size - 1) / places[-1]))
    grid = Grid(even.shape, even.affine, uneven)
    one, other = find_body(legs(grid).hu, grid), find_body(legs(even).hu, even)
    assert one.grid.uneven is None
    seen = one.on(even)
    assert (seen != other.on(even)).mean() < 0.02
    expected = grid.to_patient(one.points()).mean(axis=0)
    np.testing.assert_allclose(expected, even.to_patient(other.points()).mean(axis=0), atol=2.0)
    assert one.points()[:, axis].max() <= even.shape[axis] - 1


def test_air_holds_no_body() -> None:
    with pytest.raises(VolumeError, match="nothing but air"):
        find_body(np.full((10, 20, 20), -1000, dtype=np.int16), Grid((10, 20, 20), np.eye(4)))
