"""Surface distances against closed forms, a distance map, and MONAI."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_bodies import Mask, ball_mask, box_mask, plain_grid
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_distance import compute_average_surface_distance
from scipy.ndimage import binary_erosion, distance_transform_edt

from engine.evaluation.surface import (
    SurfaceDistances,
    as_far_as_can_be,
    label_boxes,
    surface_distances,
    surface_points,
    union_box,
)
from engine.volume import FloatArray, Grid

SHAPE = (5, 6, 7)
masks = arrays(np.bool_, SHAPE)
spacings = st.tuples(st.floats(0.5, 6), st.floats(0.5, 2), st.floats(0.5, 2))


def points_of(mask: Mask, grid: Grid) -> FloatArray:
    labels = mask.astype(np.uint8)
    return surface_points(labels, (1,), label_boxes(labels), grid)


def compare(one: Mask, other: Mask, grid: Grid) -> SurfaceDistances:
    return surface_distances(points_of(one, grid), points_of(other, grid))


@pytest.mark.parametrize(
    ("place", "expected"),
    [((3, 2, 2), 5.0), ((2, 3, 2), 0.7), ((2, 2, 3), 0.8), ((3, 4, 5), np.sqrt(25 + 1.96 + 5.76))],
)
def test_two_single_voxels(place: tuple[int, int, int], expected: float) -> None:
    grid = plain_grid((9, 9, 9), (5.0, 0.7, 0.8))
    found = compare(box_mask(grid.shape, (2, 2, 2), (1, 1, 1)), box_mask(grid.shape, place, (1, 1, 1)), grid)
    assert (found.assd_mm, found.masd_mm, found.hd_mm, found.hd95_mm) == pytest.approx([expected] * 4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_shifted_along_each_axis_of_an_uneven_grid(axis: int) -> None:
    """A cube of 6 moved by one step; its shell has 6^3 - 4^3 = 152 voxels.

    The 36 of the face that is left behind are a step from the other shell. The inner 16 of the opposite face now lie
    inside the other cube: a step from its end, or so many from its four walls. All others lie in both shells.
    """
    spacing = (4.0, 1.5, 0.5)
    grid = plain_grid((12, 12, 12), spacing)
    moved = [3, 3, 3]
    moved[axis] += 1
    found = compare(box_mask(grid.shape, (3, 3, 3), (6, 6, 6)), box_mask(grid.shape, moved, (6, 6, 6)), grid)
    step, (across, along) = spacing[axis], [spacing[other] for other in range(3) if other != axis]
    to_walls = [min(step, min(u, 5 - u) * across, min(v, 5 - v) * along) for u in range(1, 5) for v in range(1, 5)]
    assert found.assd_mm == pytest.approx((36 * step + sum(to_walls)) / 152)
    assert found.masd_mm == pytest.approx(found.assd_mm)  # shells of one size
    assert found.hd_mm == found.hd95_mm == step  # more than a twentieth of the shell is a step away


def test_two_plates_are_as_far_apart_as_they_are() -> None:
    """Sheets of one voxel: every distance is the same number, so every measure is."""
    grid = plain_grid((20, 8, 8), (2.5, 1.0, 1.0))
    found = compare(box_mask(grid.shape, (3, 0, 0), (1, 8, 8)), box_mask(grid.shape, (7, 0, 0), (1, 8, 8)), grid)
    assert (found.assd_mm, found.masd_mm, found.hd_mm, found.hd95_mm) == pytest.approx([10.0] * 4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8)])
def test_concentric_balls_lie_apart_by_the_difference_of_their_radii(spacing: tuple[float, float, float]) -> None:
    grid = plain_grid((int(46 / spacing[0]) | 1, int(46 / spacing[1]) | 1, int(46 / spacing[2]) | 1), spacing)
    found = compare(ball_mask(grid, 12.0), ball_mask(grid, 20.0), grid)
    assert found.assd_mm == pytest.approx(8.0, abs=0.5 * max(spacing))
    assert found.hd_mm == pytest.approx(8.0, abs=1.5 * max(spacing))
    assert found.hd95_mm <= found.hd_mm


def test_assd_is_pooled_and_masd_is_not() -> None:
    """One voxel against itself and one 3 steps away: directed means 0 and 1.5; pooled 3 over 3 distances."""
    grid = plain_grid((1, 1, 9))
    one = box_mask(grid.shape, (0, 0, 1), (1, 1, 1))
    found = compare(one, one | box_mask(grid.shape, (0, 0, 4), (1, 1, 1)), grid)
    assert found.assd_mm == pytest.approx(1.0)
    assert found.masd_mm == pytest.approx(0.75)
    assert found.hd_mm == pytest.approx(3.0)
    assert found.hd95_mm == pytest.approx(0.95 * 3.0)


def test_sheared_axes_are_measured_in_the_patient() -> None:
    """The second slice lies 3 mm up and 2 mm back: a voxel over another is sqrt(13) mm from it."""
    affine = np.array(plain_grid((2, 4, 4), (3.0, 1.0, 1.0)).affine)
    affine[1, 0] = 2.0
    grid = Grid((2, 4, 4), affine)
    one, other = box_mask(grid.shape, (0, 1, 1), (1, 1, 1)), box_mask(grid.shape, (1, 1, 1), (1, 1, 1))
    assert compare(one, other, grid).hd_mm == pytest.approx(np.sqrt(13))
    corners = [grid.to_patient(np.array(corner, dtype=float)) for corner in product((0, 2), (0, 4), (0, 4))]
    longest = max(np.linalg.norm(a - b) for a in corners for b in corners)
    assert as_far_as_can_be(grid).hd_mm == pytest.approx(longest)


def test_the_diagonal_of_a_plain_scan() -> None:
    far = as_far_as_can_be(plain_grid((10, 20, 30), (3.0, 2.0, 1.0)))
    assert far.hd_mm == far.hd95_mm == far.assd_mm == far.masd_mm == pytest.approx(np.sqrt(30**2 + 40**2 + 30**2))


def test_the_surface_of_a_box_is_its_shell_at_the_edge_of_the_scan_too() -> None:
    grid = plain_grid((8, 8, 8))
    for start in ((2, 2, 2), (0, 0, 0), (3, 0, 3)):
        assert len(points_of(box_mask(grid.shape, start, (5, 5, 5)), grid)) == 5**3 - 3**3


def test_a_union_has_no_surface_between_its_parts() -> None:
    labels = np.zeros((6, 6, 8), dtype=np.uint8)
    labels[1:5, 1:5, 1:4], labels[1:5, 1:5, 4:7] = 1, 2
    boxes, grid = label_boxes(labels), plain_grid((6, 6, 8))
    assert union_box((1, 2, 3), boxes) == (slice(1, 5), slice(1, 5), slice(1, 7))
    whole = points_of(labels > 0, grid)
    np.testing.assert_array_equal(surface_points(labels, (1, 2), boxes, grid), whole)
    assert len(surface_points(labels, (3,), boxes, grid)) == 0


@given(masks, masks, spacings)
def test_a_distance_map_of_the_whole_grid_agrees(one: Mask, other: Mask, spacing: tuple[float, float, float]) -> None:
    assume(one.any() and other.any())
    found = compare(one, other, plain_grid(SHAPE, spacing))
    edges = [mask & ~binary_erosion(mask) for mask in (one, other)]
    maps = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    directed = [maps[1][edges[0]], maps[0][edges[1]]]
    assert found.assd_mm == pytest.approx(np.concatenate(directed).mean(), abs=1e-9)
    assert found.masd_mm == pytest.approx(np.mean([each.mean() for each in directed]), abs=1e-9)
    assert found.hd_mm == pytest.approx(max(each.max() for each in directed), abs=1e-9)
    assert found.hd95_mm == pytest.approx(max(np.percentile(each, 95) for each in directed), abs=1e-9)


@given(masks, masks, spacings)
def test_symmetry_and_order(one: Mask, other: Mask, spacing: tuple[float, float, float]) -> None:
    assume(one.any() and other.any())
    grid = plain_grid(SHAPE, spacing)
    there, back = compare(one, other, grid), compare(other, one, grid)
    assert there.assd_mm == pytest.approx(back.assd_mm) and there.hd_mm == back.hd_mm
    assert there.hd95_mm == back.hd95_mm and there.masd_mm == pytest.approx(back.masd_mm)
    assert 0 <= there.hd95_mm <= there.hd_mm <= as_far_as_can_be(grid).hd_mm
    assert there.assd_mm <= there.hd_mm + 1e-9 and there.masd_mm <= there.hd_mm + 1e-9
    assert compare(one, one, grid) == SurfaceDistances(0, 0, 0, 0)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI calls what it deprecates
@given(masks, masks, spacings)
def test_monai_agrees(one: Mask, other: Mask, spacing: tuple[float, float, float]) -> None:
    """MONAI's symmetric average is our pooled ASSD; it has no MASD. An empty mask gives NaN or infinity there."""
    assume(one.any() and other.any())
    found = compare(one, other, plain_grid(SHAPE, spacing))
    pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (one, other)]
    ours = (found.assd_mm, found.hd_mm, found.hd95_mm)
    average = compute_average_surface_distance(pair[0], pair[1], True, symmetric=True, spacing=spacing)
    hausdorff = [compute_hausdorff_distance(pair[0], pair[1], True, percentile=p, spacing=spacing) for p in (None, 95)]
    assert [float(each) for each in (average, *hausdorff)] == pytest.approx(ours, abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class 0 is all 0:UserWarning")
def test_monai_has_no_finite_distance_to_a_surface_that_is_not_there() -> None:
    """Its NaN drops out of a mean, so that the mean improves as the model misses (Project-MONAI/MONAI#9095)."""
    full = torch.ones(1, 1, *SHAPE)
    missed = compute_hausdorff_distance(torch.zeros_like(full), full, True, percentile=95)
    assert not torch.isfinite(missed).any()
    assert np.isfinite(as_far_as_can_be(plain_grid(SHAPE)).hd95_mm)
