from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.nn import functional

from engine import resample
from engine.resample import closest_orientation, is_aligned, network_grid, sample_linear, sample_nearest
from engine.volume import Grid, UnevenPlanes

SPACING_MM = (2.0, 1.5, 1.5)
BLOB_MM = 7.0
SMALL_BLOB_MM = 5.0


@st.composite
def scan_grids(
    draw: st.DrawFn,
    angles_deg: tuple[float, ...] = (0.0, 0.6, 7.0, 25.0),
    coarsest_mm: float = 2.5,
    extent_mm: float = 72,
) -> Grid:
    """Grids with any order and direction of axes, turned by one of the angles about any axis."""
    axes = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    spacing = draw(st.tuples(*[st.floats(1.0, coarsest_mm)] * 3))
    about = np.array(draw(st.tuples(*[st.floats(0.1, 1)] * 3)))
    turn = Rotation.from_rotvec(np.deg2rad(draw(st.sampled_from(angles_deg))) * about / np.linalg.norm(about))
    shape = tuple(int(np.ceil(extent_mm / step)) for step in spacing)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() @ np.eye(3)[:, axes] @ np.diag(np.array(signs) * spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Grid((shape[0], shape[1], shape[2]), affine)


BLOCKS = st.lists(st.tuples(st.integers(3, 9), st.floats(0.6, 2.0)), min_size=2, max_size=3)
"""Blocks of planes: how many steps, and how long they are against the mean."""


@st.composite
def uneven_grids(draw: st.DrawFn, angles_deg: tuple[float, ...] = (0.0, 0.6, 7.0, 25.0)) -> Grid:
    """`scan_grids` with blocks of different distances along any of the three axes."""
    even = draw(scan_grids(angles_deg=angles_deg, extent_mm=50))
    axis = draw(st.integers(0, 2))
    steps = np.concatenate([np.full(count, length) for count, length in draw(BLOCKS)])
    steps = np.resize(steps, even.shape[axis] - 1)
    places = np.concatenate([[0.0], np.cumsum(steps)])
    return Grid(even.shape, even.affine, UnevenPlanes(axis, places * ((places.size - 1) / places[-1])))


def points_of(grid: Grid) -> np.ndarray:
    return grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


def corners_of(grid: Grid) -> np.ndarray:
    return np.array(list(product(*((0.0, length - 1.0) for length in grid.shape))))


def centroid(weights: np.ndarray, grid: Grid) -> np.ndarray:
    return np.asarray((points_of(grid) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum())


@settings(max_examples=15, deadline=None)
@given(scan_grids(coarsest_mm=1.5), st.tuples(*[st.floats(0.42, 0.58)] * 3))
def test_a_blob_keeps_its_place_in_the_patient(scan: Grid, share: tuple[float, float, float]) -> None:
    middle = scan.to_patient(np.array(share) * (np.array(scan.shape) - 1))
    distance = np.linalg.norm(points_of(scan) - middle, axis=-1)
    hu = (1500 * np.exp(-0.5 * (distance / BLOB_MM) ** 2) - 1000).astype(np.int16)
    orientation = closest_orientation(scan)
    turned = orientation.turn_grid(scan)
    network = network_grid(turned, corners_of(turned), 0.0, SPACING_MM)

    image = sample_linear(orientation.turn(hu), turned, network).numpy()
    found = centroid(np.maximum(image + 990, 0), network)
    # Graded labels show where nearest neighbours lie; the edge of a ball would show the size of the voxels.
    away = np.linalg.norm(points_of(network) - middle, axis=-1)
    graded = np.rint(250 * np.exp(-0.5 * (away / BLOB_MM) ** 2)).astype(np.uint8)
    back = orientation.turn_back(sample_nearest(graded, network, turned))

    assert np.abs(found - middle).max() < 0.1 * min(SPACING_MM)
    assert back.shape == scan.shape
    # Nearest neighbours on an oblique lattice beat with it; half a voxel too far would still be three times this.
    assert np.abs(centroid(back, scan) - middle).max() < 0.15 * max(SPACING_MM)


@settings(max_examples=10, deadline=None)
@given(scan_grids())
def test_the_turned_grid_holds_the_same_voxels_in_the_same_places(scan: Grid) -> None:
    orientation = closest_orientation(scan)
    turned = orientation.turn_grid(scan)
    numbers = np.arange(np.prod(scan.shape)).reshape(scan.shape)
    places = np.stack([orientation.turn(points_of(scan)[..., axis]) for axis in range(3)], axis=-1)
    assert np.allclose(places, points_of(turned))
    assert np.array_equal(orientation.turn_back(orientation.turn(numbers)), numbers)


@settings(max_examples=15, deadline=None)
@given(scan_grids(angles_deg=(0.0, 0.6)), st.integers(0, 1000))
def test_both_ways_agree_on_aligned_grids(scan: Grid, seed: int) -> None:
    turned = closest_orientation(scan).turn_grid(scan)
    assert is_aligned(turned)
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 1000, turned.shape).astype(np.int16)
    network = network_grid(turned, corners_of(turned), 0.0, SPACING_MM)
    labels = rng.integers(0, 30, network.shape).astype(np.uint8)
    image, back = sample_linear(hu, turned, network), sample_nearest(labels, network, turned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_is_diagonal", lambda _: False)
        general_image, general_back = sample_linear(hu, turned, network), sample_nearest(labels, network, turned)
    assert torch.abs(image - general_image).max() < 0.5
    index = network.to_index(points_of(turned))
    half_way = (np.abs(index - np.floor(index) - 0.5) < 1e-5).any(axis=-1)
    assert np.array_equal(back[~half_way], general_back[~half_way])


@settings(max_examples=25, deadline=None)
@given(scan_grids(angles_deg=(7.0, 25.0)), st.tuples(*[st.floats(-80, 80)] * 3), st.integers(0, 1000))
def test_labels_on_an_oblique_grid_are_those_of_the_nearest_voxels(
    scan: Grid, moved_mm: tuple[float, float, float], seed: int
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = resample.PATIENT_AXES * (5.0, 4.0, 3.0)
    affine[:3, 3] = points_of(scan).mean(axis=(0, 1, 2)) - 20 + np.array(moved_mm)
    network = Grid((8, 9, 11), affine)
    labels = np.random.default_rng(seed).integers(1, 30, network.shape).astype(np.uint8)
    exact = network.to_index(points_of(scan)) + 0.5
    clear = np.all(np.abs(exact - np.rint(exact)) > 1e-6, axis=-1)  # half-way between two voxels either is nearest
    place = np.floor(exact).astype(int)
    inside = np.all((place >= 0) & (place < network.shape), axis=-1)
    within = np.clip(place, 0, np.array(network.shape) - 1)
    expected = np.where(inside, labels[within[..., 0], within[..., 1], within[..., 2]], 0)
    assert np.array_equal(sample_nearest(labels, network, scan)[clear], expected[clear])


def test_on_whole_voxels_it_is_torchs_interpolation() -> None:
    hu = np.random.default_rng(3).integers(-1000, 2000, (30, 40, 50)).astype(np.int16)
    grid = Grid(hu.shape, np.array([[0, 0, 0.8, 1], [0, 0.8, 0, 2], [1.0, 0, 0, 3], [0, 0, 0, 1]], dtype=float))
    network = network_grid(grid, np.array([[2.0, 3, 4], [27, 35, 41]]), 0.0, SPACING_MM)
    box = torch.from_numpy(hu[2:28, 3:36, 4:42].astype(np.float32))[None, None]
    expected = functional.interpolate(box, size=network.shape, mode="trilinear", align_corners=False)[0, 0]
    assert torch.allclose(sample_linear(hu, grid, network), expected, atol=1e-2)
    assert network.spacing_mm == pytest.approx(SPACING_MM, rel=0.03)


def test_the_network_sees_the_patient_upright() -> None:
    affine = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])  # sagittal, all reversed
    scan = Grid((60, 50, 40), affine)
    turned = closest_orientation(scan).turn_grid(scan)
    assert turned.shape == (40, 50, 60)
    assert np.allclose(turned.affine[:3, :3], resample.PATIENT_AXES)


def test_an_oblique_scan_gets_an_upright_grid_with_air_around() -> None:
    turn = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ resample.PATIENT_AXES * 3.0
    grid = Grid((20, 30, 30), affine)
    corners = np.array([[0.0, 0, 0], [19, 29, 29], [0, 29, 0], [0, 0, 29]])
    network = network_grid(grid, corners, 6.0, (3.0, 3.0, 3.0))
    image = sample_linear(np.full(grid.shape, 40, dtype=np.int16), grid, network)
    assert np.allclose(network.affine[:3, :3], resample.PATIENT_AXES * 3.0)
    assert np.unique(image[0].numpy()).tolist() == [resample.AIR_HU]
    assert set(np.unique(image.round().numpy()).tolist()) == {resample.AIR_HU, 40.0}


def weighed_centroid(weights: np.ndarray, grid: Grid) -> np.ndarray:
    return centroid(weights * grid.voxel_volumes_mm3, grid)


@settings(max_examples=10, deadline=None)
@given(uneven_grids(), st.tuples(*[st.floats(0.42, 0.58)] * 3))
def test_a_blob_keeps_its_place_among_uneven_planes(scan: Grid, share: tuple[float, float, float]) -> None:
    middle = scan.to_patient(np.array(share) * (np.array(scan.shape) - 1))
    distance = np.linalg.norm(points_of(scan) - middle, axis=-1)
    hu = (1500 * np.exp(-0.5 * (distance / SMALL_BLOB_MM) ** 2) - 1000).astype(np.int16)
    orientation = closest_orientation(scan)
    turned = orientation.turn_grid(scan)
    network = network_grid(turned, corners_of(turned), 0.0, SPACING_MM)
    image = sample_linear(orientation.turn(hu), turned, network).numpy()
    away = np.linalg.norm(points_of(network) - middle, axis=-1)
    graded = np.rint(250 * np.exp(-0.5 * (away / SMALL_BLOB_MM) ** 2)).astype(np.uint8)
    back = orientation.turn_back(sample_nearest(graded, network, turned))
    assert network.uneven is None and scan.uneven is not None
    widest_mm = scan.spacing_mm[scan.uneven.axis] * float(np.diff(scan.uneven.places).max())
    tolerance_mm = 0.1 * max(*SPACING_MM, widest_mm)
    assert np.abs(centroid(np.maximum(image + 990, 0), network) - middle).max() < tolerance_mm
    here = 250 * np.exp(-0.5 * (distance / SMALL_BLOB_MM) ** 2)
    # Where both have nearly one spacing, nearest voxels all lie to one side; half a voxel too far would be twice this.
    assert np.abs(weighed_centroid(back, scan) - weighed_centroid(here, scan)).max() < 2 * tolerance_mm


@settings(max_examples=10, deadline=None)
@given(uneven_grids())
def test_a_turned_uneven_grid_holds_the_same_voxels_in_the_same_places(scan: Grid) -> None:
    orientation = closest_orientation(scan)
    places = np.stack([orientation.turn(points_of(scan)[..., axis]) for axis in range(3)], axis=-1)
    assert np.allclose(places, points_of(orientation.turn_grid(scan)))


@settings(max_examples=10, deadline=None)
@given(uneven_grids(angles_deg=(0.0, 0.6)), st.integers(0, 1000))
def test_both_ways_agree_on_aligned_uneven_grids(scan: Grid, seed: int) -> None:
    turned = closest_orientation(scan).turn_grid(scan)
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 1000, turned.shape).astype(np.int16)
    ends = np.array([[0.0, 0.0, 0.0], np.array(turned.shape) - 1.0])
    assert turned.uneven is not None
    ends[:, turned.uneven.axis] += (5, -6)  # the others whole: at a cut through them the quick way sees less
    network = network_grid(turned, ends, 0.0, SPACING_MM)
    labels = rng.integers(1, 30, network.shape).astype(np.uint8)
    image, back = sample_linear(hu, turned, network), sample_nearest(labels, network, turned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_is_diagonal", lambda _: False)
        general_image, general_back = sample_linear(hu, turned, network), sample_nearest(labels, network, turned)
    assert image.is_contiguous() and (image > resample.AIR_HU).all()
    assert torch.abs(image - general_image).max() < 0.5
    index = network.to_index(points_of(turned))
    half_way = (np.abs(index - np.floor(index) - 0.5) < 1e-5).any(axis=-1)
    assert np.array_equal(back[~half_way], general_back[~half_way])
    place = np.floor(index + 0.5).astype(int)
    inside = np.all((place >= 0) & (place < network.shape), axis=-1)
    within = np.clip(place, 0, np.array(network.shape) - 1)
    expected = np.where(inside, labels[within[..., 0], within[..., 1], within[..., 2]], 0)
    assert np.array_equal(back[~half_way], expected[~half_way])


@settings(max_examples=10, deadline=None)
@given(uneven_grids(angles_deg=(0.0, 0.6, 25.0)), st.integers(0, 1000))
def test_labels_of_uneven_planes_are_those_of_the_nearest_plane(scan: Grid, seed: int) -> None:
    turned = closest_orientation(scan).turn_grid(scan)
    labels = np.random.default_rng(seed).integers(1, 30, turned.shape).astype(np.uint8)
    target = network_grid(turned, corners_of(turned), 0.0, (5.0, 5.0, 5.0))
    exact = turned.to_index(points_of(target)) + 0.5
    clear = np.all(np.abs(exact - np.rint(exact)) > 1e-6, axis=-1)
    place = np.floor(exact).astype(int)
    inside = np.all((place >= 0) & (place < turned.shape), axis=-1)
    within = np.clip(place, 0, np.array(turned.shape) - 1)
    expected = np.where(inside, labels[within[..., 0], within[..., 1], within[..., 2]], 0)
    assert np.array_equal(sample_nearest(labels, turned, target)[clear], expected[clear])


def test_a_ramp_is_a_ramp_whatever_the_planes() -> None:
    places = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 3.0, 5.0, 7.0])
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    scan = Grid((8, 6, 6), affine, UnevenPlanes(0, places))
    hu = np.broadcast_to(np.rint(40 * places)[:, None, None], scan.shape).astype(np.int16)
    network = network_grid(scan, np.array([[0.0, 0, 0], [7, 5, 5]]), 0.0, (2.0, 1.0, 1.0))
    assert network.shape == (16, 6, 6)
    assert network.spacing_mm == pytest.approx((2.0, 1.0, 1.0), rel=0.05)
    heights = points_of(network)[..., 2]
    image = sample_linear(hu, scan, network).numpy()
    assert (heights.min(), heights.max()) == pytest.approx((-0.5 + 65 / 64, 32 - 65 / 64))
    np.testing.assert_allclose(image, np.clip(10 * heights, 0, 280), atol=1e-3)


def test_the_networks_grid_covers_whole_uneven_planes() -> None:
    places = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 3.0, 5.0, 7.0])
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    scan = Grid((8, 6, 6), affine, UnevenPlanes(0, places))
    network = network_grid(scan, np.array([[3.0, 0, 0], [5, 5, 5]]), 1.0, (0.5, 1.0, 1.0))
    ends = network.to_patient(np.array([[-0.5, 0, 0], [network.shape[0] - 0.5, 0, 0]]))[:, 2]
    assert ends == pytest.approx((1.5, 16.0))  # a margin of 1 mm reaches into the plane at 2 mm
