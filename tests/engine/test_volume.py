from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import VolumeError
from engine.volume import Grid, UnevenPlanes


def test_a_grid_keeps_its_own_affine_and_leaves_its_callers_alone() -> None:
    affine = np.eye(4)
    grid = Grid((2, 3, 4), affine)
    affine[0, 3] = 5.0
    assert grid.affine[0, 3] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 5.0


def uneven_grid(axis: int = 0, places: tuple[float, ...] = (0.0, 0.4, 0.8, 3.0)) -> Grid:
    """Four planes of one axis, 0.8, 0.8 and 4.4 mm apart."""
    shape = [3, 3, 3]
    shape[axis] = 4
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0.3, 1.0], [0.0, 1.5, 0.0], [2.0, 0.4, 0.0]])
    affine[:3, axis] *= 2.0 / np.linalg.norm(affine[:3, axis])
    affine[:3, 3] = (-3.0, 4.0, 50.0)
    return Grid((shape[0], shape[1], shape[2]), affine, UnevenPlanes(axis, np.array(places)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_uneven_planes_lie_where_they_are_said_to(axis: int) -> None:
    grid = uneven_grid(axis)
    index = np.zeros((4, 3))
    index[:, axis] = range(4)
    places = grid.to_patient(index)
    distances = np.linalg.norm(np.diff(places, axis=0), axis=1)
    np.testing.assert_allclose(distances, (0.8, 0.8, 4.4))
    np.testing.assert_allclose(places[0], grid.affine[:3, 3])
    between = np.array([1.0, 1.0, 1.0])
    between[axis] = 2.25
    there = grid.to_patient(between)
    one, two = (grid.to_patient(np.where(np.arange(3) == axis, plane, 1.0)) for plane in (2.0, 3.0))
    np.testing.assert_allclose(there, one + 0.25 * (two - one))
    np.testing.assert_allclose(grid.to_index(there), between)


@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=12), st.lists(st.floats(-3, 15), min_size=1, max_size=5))
def test_index_and_place_are_each_others_inverse(steps: list[float], wanted: list[float]) -> None:
    places = np.cumsum([0.0, *steps])
    planes = UnevenPlanes(0, places * (len(steps) / places[-1]))
    index = np.array(wanted)
    np.testing.assert_allclose(planes.index_of(planes.place_of(index)), index, atol=1e-9)
    np.testing.assert_allclose(planes.place_of(np.arange(float(len(places)))), planes.places, atol=1e-12)


def test_a_plane_stands_for_the_space_up_to_the_middles_between_its_neighbours() -> None:
    grid = uneven_grid()
    assert grid.uneven is not None
    np.testing.assert_allclose(grid.uneven.thickness * 2.0, (0.8, 0.8, 2.6, 4.4))
    pixel_mm2 = np.linalg.norm(np.cross(grid.affine[:3, 1], grid.affine[:3, 2]))
    along = abs(grid.affine[:3, 0] @ np.cross(grid.affine[:3, 1], grid.affine[:3, 2])) / pixel_mm2 / 2.0
    assert grid.voxel_volumes_mm3.shape == (4, 1, 1)
    np.testing.assert_allclose(grid.voxel_volumes_mm3.ravel(), np.array([0.8, 0.8, 2.6, 4.4]) * along * pixel_mm2)


def test_voxels_of_different_volume_have_no_single_one() -> None:
    with pytest.raises(VolumeError, match="distance of its planes varies"):
        _ = uneven_grid().voxel_volume_mm3
    even = Grid((2, 3, 4), np.diag([2.0, 1.0, 0.5, 1.0]))
    assert even.voxel_volume_mm3 == even.voxel_volumes_mm3.item() == 1.0


@pytest.mark.parametrize(
    "places",
    [
        (0.0, 1.0),
        (0.0, 1.0, 1.0, 3.0),
        (0.0, 2.0, 1.0, 3.0),
        (0.0, np.nan, 2.0, 3.0),
        (0.5, 1.0, 2.0, 3.0),
        (0, 1, 2, 4),
    ],
)
def test_places_that_cannot_be_are_refused(places: tuple[float, ...]) -> None:
    with pytest.raises(VolumeError, match="planes"):
        uneven_grid(0, places)


def test_an_axis_that_is_none_is_refused() -> None:
    with pytest.raises(VolumeError, match="planes"):
        UnevenPlanes(3, np.array([0.0, 0.5, 2.0]))


def test_grids_lie_alike_only_with_the_same_planes() -> None:
    grid, other = uneven_grid(), uneven_grid(places=(0.0, 0.4, 0.9, 3.0))
    even = Grid(grid.shape, grid.affine)
    assert grid.lies_as(uneven_grid()) and even.lies_as(Grid(grid.shape, grid.affine))
    assert not grid.lies_as(other) and not grid.lies_as(even) and not even.lies_as(grid)
    assert not even.lies_as(Grid((3, 3, 3), grid.affine))


def test_places_cannot_be_changed_afterwards() -> None:
    places = np.array([0.0, 0.5, 2.0])
    planes = UnevenPlanes(0, places)
    places[1] = 1.0
    assert planes.places[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        planes.places[1] = 1.0
