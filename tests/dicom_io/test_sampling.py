"""Samples of planes: by rows and columns they are, to the last bit, what scipy finds point by point."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from dicom_io.boxes import boxes_of, label_boxes
from dicom_io.sampling import OUTSIDE_HU, Points, lines_of, sample
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.volume import Grid, UnevenPlanes

SHAPE = (7, 9, 11)
ORDERS = list(permutations(range(3)))


def a_grid(order: tuple[int, ...], signs: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Grid:
    affine = np.zeros((4, 4))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing_mm[axis]
    affine[:, 3] = (-12.5, 34.25, -700.0, 1.0)
    return Grid(SHAPE, affine)


def a_plane(grid: Grid, down: int, right: int, step_mm: float) -> Points:
    centre = grid.to_patient((np.array(SHAPE) - 1) / 2 + 0.25)
    along, across = np.arange(-40, 41) * step_mm, np.arange(-43, 44) * step_mm
    return Points(centre, along[:, None] * np.eye(3)[down], -across[:, None] * np.eye(3)[right])


@given(
    st.sampled_from(ORDERS),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 2.3])] * 3),
    st.sampled_from(ORDERS),
    st.sampled_from([0.375, 0.4, 1.0]),
)
def test_lines_give_what_points_give(
    order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...], view: tuple[int, ...], step_mm: float
) -> None:
    draw = np.random.default_rng(1)
    hu = draw.integers(-2000, 3000, SHAPE).astype(np.int16)
    labels = draw.integers(0, 59, SHAPE).astype(np.uint8)
    grid = a_grid(order, signs, spacing)
    points = a_plane(grid, view[0], view[1], step_mm)
    assert lines_of(grid, points) is not None
    index = np.moveaxis(grid.to_index(points.all()), -1, 0)
    found_hu, found_labels = sample(hu, labels, grid, points)
    options = {"mode": "grid-constant"}
    expected = ndimage.map_coordinates(hu, index, output=np.float32, order=1, cval=OUTSIDE_HU, **options)
    assert found_hu.dtype == np.float32
    assert np.array_equal(found_hu, expected)
    assert np.array_equal(found_labels, ndimage.map_coordinates(labels, index, order=0, cval=0, **options))
    assert (found_hu == OUTSIDE_HU).any() and (found_labels > 0).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_uneven_planes_are_sampled_where_they_lie(axis: int, turned: bool) -> None:
    """A ramp along the uneven axis is a ramp in the picture, and labels change half way between two planes."""
    even = a_grid((2, 1, 0), (1, -1, 1), (2.0, 1.0, 1.0))
    places = np.concatenate([np.linspace(0, 1, 4), np.linspace(1, SHAPE[axis] - 1, SHAPE[axis] - 3)[1:]])
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]] if turned else np.eye(2)
    grid = Grid(SHAPE, turn @ even.affine, UnevenPlanes(axis, places))
    along = np.rint(300 * places).astype(np.int16)
    hu = np.broadcast_to(np.moveaxis(along[:, None, None], 0, axis), SHAPE).copy()
    labels = np.broadcast_to(np.moveaxis(np.arange(SHAPE[axis])[:, None, None], 0, axis), SHAPE).astype(np.uint8)
    ways = turn[:3, :3] @ np.eye(3)[(even.affine[:3, :3] != 0).argmax(axis=0)].T  # the grid's axes, mm
    centre, steps = grid.to_patient((np.array(SHAPE) - 1) / 2), np.arange(-8, 9) * 0.21 + 0.013
    points = Points(centre, steps[:, None] * ways[:, axis], steps[:, None] * ways[:, (axis + 1) % 3])
    found_hu, found_labels = sample(hu, labels, grid, points)
    assert (lines_of(grid, points) is None) == turned
    place = np.linalg.solve(grid.affine[:3, :3], (points.all() - grid.affine[:3, 3]).reshape(-1, 3).T)[axis]
    place = place.reshape(found_hu.shape)
    inside = (place > 0) & (place < SHAPE[axis] - 1)
    np.testing.assert_allclose(found_hu[inside], np.interp(place, places, along)[inside], atol=0.01)
    nearest = np.abs(place[..., None] - places).argmin(axis=-1)
    assert np.array_equal(found_labels[inside], nearest[inside]) and inside.mean() > 0.5


def test_a_turned_grid_is_sampled_point_by_point() -> None:
    grid = a_grid((2, 1, 0), (1, 1, 1), (2.0, 1.0, 1.0))
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    turned = Grid(SHAPE, turn @ grid.affine)
    points = a_plane(turned, 1, 0, 0.5)
    assert lines_of(turned, points) is None
    hu = np.full(SHAPE, 40, dtype=np.int16)
    found_hu, found_labels = sample(hu, np.full(SHAPE, 3, dtype=np.uint8), turned, points)
    assert found_hu[40, 43] == 40 and found_labels[40, 43] == 3
    assert found_hu[0, 0] == OUTSIDE_HU and found_labels[0, 0] == 0


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
def test_boxes_are_those_of_scipy(share: float) -> None:
    draw = np.random.default_rng(3)
    labels = (draw.integers(1, 59, (6, 40, 48)) * (draw.random((6, 40, 48)) < share)).astype(np.uint8)
    labels[:, :5] = labels[:, :, -7:] = 0
    assert list(label_boxes(labels)) == ndimage.find_objects(labels)


def test_boxes_are_looked_for_once() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2, 3, 4] = 1
    segmentation = Segmentation(labels, a_grid((2, 1, 0), (1, 1, 1), (1.0, 1.0, 1.0)), thigh29())
    assert boxes_of(segmentation) is boxes_of(segmentation)
    assert boxes_of(segmentation) == ((slice(2, 3), slice(3, 4), slice(4, 5)),)
