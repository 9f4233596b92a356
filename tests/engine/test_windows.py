from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BackendError
from engine.windows import (
    Sweep,
    Triple,
    classes_of,
    classify,
    importance_map,
    occupied_windows,
    plan_windows,
    window_starts,
    winning_class,
)
from engine.workspace import Workspace


@given(st.integers(1, 700), st.integers(8, 128), st.floats(0.0, 0.9))
def test_windows_cover_everything_with_the_wanted_overlap_and_spread_evenly(
    length: int, window: int, overlap: float
) -> None:
    starts = window_starts(length, window, overlap)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] + window == max(length, window)
    assert all(1 <= step <= max(1, window * (1 - overlap)) for step in steps)
    assert steps.size == 0 or steps.max() - steps.min() <= 1


def test_the_measured_example_needs_24_windows() -> None:
    assert plan_windows((225, 121, 249), (96, 96, 96), 0.25).count == 24
    assert plan_windows((225, 121, 249), (96, 96, 96), 0.5).count == 40


def test_the_middle_weighs_most_and_no_voxel_nothing() -> None:
    weight = importance_map((8, 10, 12))
    assert weight.shape == (8, 10, 12)
    assert float(weight.max()) == 1.0 == float(weight[4, 5, 6])
    assert float(weight.min()) > 0
    assert torch.equal(weight, weight.flip((0, 1, 2)))


@given(st.integers(0, 1000))
def test_the_winning_class_is_argmax(seed: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, (7, 3, 4, 5)).astype(np.float32))
    assert torch.equal(winning_class(logits).long(), torch.from_numpy(logits.numpy().argmax(axis=0)))


def local_logits(windows: torch.Tensor) -> torch.Tensor:
    """A network of five classes whose logits depend on the voxel and a little on its place in the window."""
    image = windows[:, 0]
    place = torch.linspace(0, 0.3, image.shape[3])
    return torch.stack([-(image - k / 4).abs() + place * k for k in range(5)], dim=1)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(5, 40)] * 3), st.sampled_from((0.0, 0.25, 0.6)), st.integers(0, 99))
def test_layer_by_layer_is_the_same_as_all_logits_at_once(
    shape: tuple[int, int, int], overlap: float, seed: int
) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))
    window = (16, 12, 14)
    plan = plan_windows(shape, window, overlap)
    calls: list[tuple[int, int]] = []
    labels = classify(image, local_logits, plan, lambda done, total: calls.append((done, total)))

    padded = np.zeros(plan.shape, dtype=np.float32)
    padded[: shape[0], : shape[1], : shape[2]] = image.numpy()
    sums = np.zeros((5, *plan.shape))
    for z in plan.starts[0]:
        for y in plan.starts[1]:
            for x in plan.starts[2]:
                place = (slice(z, z + 16), slice(y, y + 12), slice(x, x + 14))
                logits = local_logits(torch.from_numpy(padded[place][None, None]))[0].numpy()
                sums[(slice(None), *place)] += logits * importance_map(window).numpy()
    expected = sums.argmax(axis=0)[: shape[0], : shape[1], : shape[2]]

    assert labels.dtype == np.uint8
    assert labels.shape == shape
    assert (labels == expected).mean() > 0.999  # sums of float32 may decide a tie otherwise
    assert calls == [(n + 1, plan.count) for n in range(plan.count)]


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers_are_refused(spoilt: float) -> None:
    def run(windows: torch.Tensor) -> torch.Tensor:
        logits = local_logits(windows)
        if windows[0, 0, 0].any():
            logits[0, 3, 7, 5, 2] = spoilt
        return logits

    image, plan = torch.zeros(20, 8, 8), plan_windows((20, 8, 8), (8, 8, 8), 0.0)
    image[12] = 1
    calls: list[tuple[int, int]] = []
    with pytest.raises(BackendError, match=r"window 3 of 3.*not finite"):
        classify(image, run, plan, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3)]


def patchy(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """A mask of a few small balls: most windows see none of it."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(2):
        middle = rng.random(3) * shape
        mask |= ((grid - middle[:, None, None, None]) ** 2).sum(axis=0) < 9
    return torch.from_numpy(mask)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(20, 60)] * 3), st.sampled_from((0.0, 0.25, 0.6)), st.integers(1, 5), st.integers(0, 99))
def test_windows_without_body_change_nothing_where_the_body_is_in_batches_of_any_size(
    shape: Triple, overlap: float, batch: int, seed: int
) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))
    plan, inside = plan_windows(shape, (8, 12, 14), overlap), patchy(shape, seed)
    sizes: list[int] = []

    def run(windows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(windows))
        return local_logits(windows)

    calls: list[tuple[int, int]] = []
    skipped = classes_of(Sweep(image, run, plan, lambda *call: calls.append(call), batch, inside)).numpy()
    everywhere = classify(image, local_logits, plan, lambda _done, _of: None)
    mask = inside.numpy()
    assert np.array_equal(skipped[mask], everywhere[mask])
    seen = len(occupied_windows(plan, inside))
    assert sum(sizes) == seen < plan.count
    assert all(size == batch for size in sizes[:-1]) and sizes[-1] <= batch
    assert calls[-1] == (seen, seen) and len(calls) == len(sizes)


def test_what_a_former_scan_left_in_the_workspace_does_not_matter() -> None:
    workspace = Workspace()
    for shape, seed in (((40, 30, 33), 1), ((25, 50, 20), 2), ((40, 30, 33), 3)):
        image = torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))
        plan, inside = plan_windows(shape, (16, 12, 14), 0.25), patchy(shape, seed)
        for name in ("sums", "weights"):  # as bad as memory can be
            workspace.tensor(name, (1 << 20,), torch.float32, torch.device("cpu")).fill_(float("nan"))
        again = Sweep(image, local_logits, plan, lambda _done, _of: None, 2, inside, workspace)
        fresh = Sweep(image, local_logits, plan, lambda _done, _of: None, 2, inside)
        assert torch.equal(classes_of(again), classes_of(fresh))


def test_a_scan_without_body_asks_the_network_nothing() -> None:
    image, plan = torch.rand(9, 9, 9), plan_windows((9, 9, 9), (8, 8, 8), 0.0)

    def run(windows: torch.Tensor) -> torch.Tensor:
        raise AssertionError(windows.shape)

    assert not classes_of(Sweep(image, run, plan, lambda _done, _of: None, 1, image > 2)).any()


def test_half_precision_logits_are_added_up_in_single() -> None:
    image, plan = torch.rand(20, 20, 20), plan_windows((20, 20, 20), (12, 12, 12), 0.5)
    single = classify(image, lambda windows: local_logits(windows).half().float(), plan, lambda _done, _of: None)
    assert np.array_equal(
        classify(image, lambda windows: local_logits(windows).half(), plan, lambda _done, _of: None), single
    )
