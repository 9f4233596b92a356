from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.refine import classify_finely, enlarged, fine_classes_of, refined_grid
from engine.volume import Grid
from engine.windows import Sweep, plan_windows


def pass_through(windows: torch.Tensor) -> torch.Tensor:
    """A network of three classes whose logits are the image itself."""
    image = windows[:, 0]
    return torch.stack([torch.zeros_like(image), image - 0.5, 2 * image - 1.5], dim=1)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(3, 30)] * 3), st.integers(0, 99))
def test_fine_classes_are_those_of_the_interpolated_logits(shape: tuple[int, int, int], seed: int) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))
    plan = plan_windows(shape, (16, 12, 14), 0.25)
    fine = classify_finely(image, pass_through, plan, lambda _done, _of: None)

    logits = pass_through(image[None, None])
    size = [2 * length for length in shape]
    expected = functional.interpolate(logits, size=size, mode="trilinear").argmax(1)[0].numpy()
    assert fine.shape == tuple(size) and fine.dtype == np.uint8
    # Only classes that win at a coarse voxel compete, and rounding decides ties.
    assert (fine == expected).mean() > 0.97


def test_a_border_between_two_voxels_is_found() -> None:
    depth = torch.arange(12, dtype=torch.float32)
    image = (0.5 + 0.1 * (depth - 5.2))[:, None, None].expand(12, 4, 4).contiguous()
    plan = plan_windows((12, 4, 4), (12, 4, 4), 0.25)

    def one_border(windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full_like(windows[:, 0], 0.5), windows[:, 0]], dim=1)

    fine = classify_finely(image, one_border, plan, lambda _done, _of: None)
    places = (np.arange(24) + 0.5) / 2 - 0.5
    np.testing.assert_array_equal(fine[:, 0, 0], places > 5.2)


@given(st.tuples(*[st.integers(1, 9)] * 3))
def test_the_refined_grid_covers_the_same_space(shape: tuple[int, int, int]) -> None:
    affine = np.diag([2.5, 2.0, 1.5, 1.0])
    affine[:3, 3] = (7, -3, 11)
    grid = Grid(shape, affine)
    fine = refined_grid(grid)
    for corner in (np.array([-0.5] * 3), np.array(shape) - 0.5):
        ours = np.where(corner < 0, -0.5, np.array(fine.shape) - 0.5)
        np.testing.assert_allclose(fine.to_patient(ours), grid.to_patient(corner))
    assert np.isclose(8 * fine.voxel_volume_mm3, grid.voxel_volume_mm3)


def test_an_enlarged_mask_has_eight_voxels_for_one() -> None:
    mask = np.zeros((2, 3, 4), dtype=bool)
    mask[1, 2, 0] = True
    fine = enlarged(mask)
    assert fine.shape == (4, 6, 8) and fine.sum() == 8 and fine[2:4, 4:6, 0:2].all()


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(20, 40)] * 3), st.integers(1, 4), st.integers(0, 99))
def test_fine_classes_inside_the_body_need_only_the_windows_that_see_it(
    shape: tuple[int, int, int], batch: int, seed: int
) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))
    plan = plan_windows(shape, (8, 12, 14), 0.25)
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[3:9, 7:16, 2:11] = True
    found = fine_classes_of(Sweep(image, pass_through, plan, lambda _done, _of: None, batch, inside))
    everywhere = classify_finely(image, pass_through, plan, lambda _done, _of: None)
    body = enlarged(inside.numpy())
    assert np.array_equal(found.spread(found.coarse)[body], everywhere[body])
    masked = found.masked(inside.numpy())
    fine = masked.spread(masked.coarse)
    assert fine[body].any() and not fine[~body].any()


def test_a_fine_voxel_has_the_number_of_the_nearest_voxel_of_its_class() -> None:
    image = torch.zeros(6, 6, 12)
    image[..., 4:8] = 0.9
    found = fine_classes_of(Sweep(image, pass_through, plan_windows((6, 6, 12), (6, 6, 12), 0.0), lambda *_: None))
    numbers = np.where(found.coarse > 0, 10 * found.coarse, 0).astype(np.uint8)
    numbers[..., 6:] += numbers[..., 6:] > 0  # the same class on the other side
    fine = found.spread(numbers)
    classes = found.spread(found.coarse)
    assert np.array_equal(fine // 10, classes)
    assert {int(number) for number in fine[..., :12].ravel()} == {0, 10 * int(classes.max())}
    assert not (fine[..., 12:] % 10 == 0)[fine[..., 12:] > 0].any()
    assert not found.spread(np.zeros_like(numbers)).any()  # an island that was removed
