"""Rendering: codes and attenuation lie at the same places in the patient, however the grid lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.labels import Side
from engine.synthesis.anatomy import upright_grid
from engine.synthesis.person import Person
from engine.synthesis.pose import Pose, draw_pose
from engine.synthesis.rendering import SLAB, PosedPerson, part_of, segments_of
from engine.synthesis.tissues import AIR_HU, tissue_table
from engine.volume import FloatArray, Grid

SHAPE, SPACING_MM = (66, 64, 96), (12.0, 5.0, 5.0)
UNTURNED = np.stack([np.eye(3)] * 2)
STILL = Pose(np.ones(3), np.eye(3), np.zeros(3), UNTURNED, UNTURNED, (0.0, 40.0), (), False)
LARGE = ("vastus_lateralis", "gluteus_maximus", "adductor_magnus", "femur")


def straight_grid() -> Grid:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING_MM
    affine[:, 3] = (-237.5, -157.5, -110.0, 1.0)
    return Grid(SHAPE, affine)


def about_its_middle(matrix: FloatArray) -> Grid:
    """The straight grid, its axes multiplied by a matrix, about the same middle."""
    grid = straight_grid()
    middle = (np.array(SHAPE) - 1) / 2
    affine = grid.affine.copy()
    affine[:3, :3] = matrix @ affine[:3, :3]
    affine[:3, 3] = grid.to_patient(middle) - affine[:3, :3] @ middle
    return Grid(SHAPE, affine)


def turn(axis: int, degrees: float) -> FloatArray:
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[a, b], [a, b]] = np.cos(np.radians(degrees))
    matrix[a, b], matrix[b, a] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
    return matrix


GRIDS = {
    "straight": np.eye(3),
    "slices downwards": np.diag([1.0, 1.0, -1.0]),
    "rows to the front": np.diag([1.0, -1.0, 1.0]),
    "columns to the right": np.diag([-1.0, 1.0, 1.0]),
    "turned in the plane": turn(2, 15),
    "oblique": turn(0, 15),
    "oblique sideways": turn(1, -15),
    "all at once": turn(0, 10) @ turn(2, 15) @ np.diag([-1.0, 1.0, -1.0]),
}


@pytest.fixture(scope="module")
def posed(person: Person) -> PosedPerson:
    return PosedPerson(person, draw_pose(np.random.default_rng(6)))


def centre_mm(weight: NDArray[np.generic], grid: Grid) -> FloatArray:
    index = np.argwhere(weight)
    weights = weight[tuple(index.T)].astype(np.float64)
    return np.asarray(np.average(grid.to_patient(index.astype(np.float64)), axis=0, weights=weights))


def code_centres(posed: PosedPerson, grid: Grid) -> FloatArray:
    numbers = segments_of(posed.codes(grid)).numpy()
    wanted = [tissue_table().code(key, side) for key in LARGE for side in Side]
    return np.stack([centre_mm(numbers == number, grid) for number in wanted])


@pytest.mark.parametrize("matrix", GRIDS.values(), ids=GRIDS.keys())
def test_structures_lie_at_the_same_place_on_every_grid(posed: PosedPerson, matrix: FloatArray) -> None:
    straight = code_centres(posed, straight_grid())
    np.testing.assert_allclose(code_centres(posed, about_its_middle(matrix)), straight, atol=3.0)


@pytest.mark.parametrize("matrix", GRIDS.values(), ids=GRIDS.keys())
def test_attenuation_lies_where_codes_do(posed: PosedPerson, matrix: FloatArray) -> None:
    grid = about_its_middle(matrix)
    femur = tissue_table().is_one_of("femur", "femur_spongy", "femur_marrow")[: 4 * 64]
    own = torch.from_numpy(femur)[posed.person.codes.int()].float()
    share = posed.sampled(own, grid).numpy()
    codes = torch.from_numpy(femur)[posed.codes(grid).int()].numpy()
    np.testing.assert_allclose(centre_mm(share, grid), centre_mm(codes, grid), atol=2.0)
    assert abs(share.sum() / codes.sum() - 1) < 0.05


def test_attenuation_is_that_of_the_codes(posed: PosedPerson) -> None:
    grid = straight_grid()
    hu, codes = posed.attenuation(grid).numpy(), posed.codes(grid).numpy()
    table = tissue_table()
    assert np.median(hu[codes == 0]) == AIR_HU
    assert -130 < np.median(hu[codes == table.code("subcutaneous_fat")]) < -80
    assert -20 < np.median(hu[table.muscles[codes]]) < 90
    assert np.median(hu[table.is_one_of("femur")[codes]]) > 500


def test_on_its_own_grid_a_person_who_lies_still_is_itself(person: Person) -> None:
    start = np.array([100.0, 40.0, 60.0])
    grid = part_of(person.grid, start, (5, 60, 70))
    posed = PosedPerson(person, STILL)
    box = (slice(100, 105), slice(40, 100), slice(60, 130))
    assert torch.equal(posed.codes(grid), person.codes[box])
    torch.testing.assert_close(posed.attenuation(grid), person.hu[box], atol=2.0, rtol=0)


def test_a_part_of_a_grid_shows_that_part(posed: PosedPerson) -> None:
    grid = straight_grid()
    part = part_of(grid, np.array([20.0, 14.0, 24.0]), (10, 20, 48))
    np.testing.assert_allclose(part.to_patient(np.zeros(3)), grid.to_patient(np.array([20.0, 14.0, 24.0])))
    whole = posed.attenuation(grid)[20:30, 14:34, 24:72]
    assert (posed.attenuation(part) - whole).abs().mean() < 15
    codes = posed.codes(grid)[20:30, 14:34, 24:72]
    assert (posed.codes(part) == codes).float().mean() > 0.95


def test_a_part_may_reach_beyond(posed: PosedPerson) -> None:
    part = part_of(straight_grid(), np.array([0.0, -80.0, -80.0]), (3, 20, 20))
    assert not posed.codes(part).any() and (posed.attenuation(part) == AIR_HU).all()


def test_slabs_leave_no_seam(posed: PosedPerson) -> None:
    grid = upright_grid((SLAB + 4, 20, 20), 3.0, (30.0, -30.0, 150.0))
    whole = posed.attenuation(grid)
    across = posed.attenuation(part_of(grid, np.array([SLAB - 4.0, 0.0, 0.0]), (8, 20, 20)))
    assert (whole[SLAB - 4 :] - across).abs().mean() < 6


@pytest.mark.parametrize("slices", [1, 2, SLAB, SLAB + 1])
def test_any_number_of_slices(posed: PosedPerson, slices: int) -> None:
    grid = upright_grid((slices, 5, 6), 8.0, (60.0, -20.0, 200.0))
    assert posed.codes(grid).shape == posed.attenuation(grid).shape == (slices, 5, 6)
    assert posed.codes(grid).dtype == torch.uint8 and posed.attenuation(grid).dtype == torch.float32
    assert (posed.codes(grid) > 0).any()


def test_segments_are_the_truth_of_codes() -> None:
    table = tissue_table()
    codes = torch.arange(256, dtype=torch.uint8).view(4, 8, 8)
    found = segments_of(codes)
    np.testing.assert_array_equal(found.numpy().ravel(), table.truth)
    assert found.dtype == torch.uint8 and found.shape == codes.shape


def test_a_mirrored_person_keeps_its_sides(person: Person) -> None:
    posed = PosedPerson(person, replace(STILL, mirrored=True))
    centres = code_centres(posed, straight_grid())
    assert (centres[0::2, 0] < -30).all() and (centres[1::2, 0] > 30).all()
