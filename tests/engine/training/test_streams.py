"""Synthetic batches are drawn by number, whoever draws them and wherever they begin."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs.training import boxes, source, tiny

from engine.preprocessing import normalise
from engine.training.draws import Batch, Start, seed_of
from engine.training.errors import TrainingError
from engine.training.stream import Reuse
from engine.training.synthetic import LaneBatches, Lanes, SyntheticSource


def taken(workers: int, start: Start, count: int) -> list[Batch]:
    return list(islice(source(workers=workers).batches(start), count))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left.image, right.image) and torch.equal(left.classes, right.classes)


@given(st.integers(0, 9))
@settings(max_examples=5)
def test_a_stream_that_begins_later_goes_on_the_same(first: int) -> None:
    assert_same(taken(0, Start(0, 2, 0), first + 3)[first:], taken(0, Start(0, 2, first), 3))


def test_a_process_of_its_own_draws_the_same() -> None:
    assert_same(taken(0, Start(2, 1, 1), 6), taken(1, Start(2, 1, 1), 6))


def test_several_processes_go_on_the_same_from_any_step() -> None:
    whole = taken(2, Start(0, 1, 0), 9)
    for first in (1, 4, 5):
        assert_same(whole[first:], taken(2, Start(0, 1, first), 9 - first))


def test_phases_and_seeds_have_draws_of_their_own() -> None:
    starts = [(1, Start(0, 1, 0)), (1, Start(2, 1, 0)), (2, Start(0, 1, 0))]
    images = [next(source(seed).batches(start)).image for seed, start in starts]
    assert not any(torch.equal(images[0], other) for other in images[1:])


def test_a_chunk_ends_where_the_preset_says() -> None:
    lanes = Lanes(seed=1, chunk=2, count=1, reuse=Reuse())
    found = list(islice(LaneBatches(boxes, tiny().preprocessing, lanes, Start(0, 1, 0)), 4))
    hu, _ = next(boxes(seed_of(1, 0, 0, 1), Reuse()))
    assert torch.equal(found[2].image[0, 0], normalise(torch.from_numpy(hu), tiny().preprocessing))


def test_a_batch_is_what_the_network_sees() -> None:
    batch = next(source().batches(Start(0, 3, 0)))
    assert batch.image.shape == batch.classes.shape == (3, 1, 32, 32, 32)
    assert batch.image.dtype == torch.float32 and batch.classes.dtype == torch.uint8
    assert batch.image.min() >= 0 and batch.image.max() <= 1


def test_what_is_held_out_is_always_the_same_and_never_trained_on() -> None:
    first, again = list(source().held_out()), list(source().held_out())
    assert len(first) == 2
    assert_same(first, again)
    trained = taken(0, Start(2, 1, 0), 5)
    assert not any(torch.equal(held.image, batch.image) for held in first for batch in trained)


def test_a_preset_without_synthetic_scans_is_refused() -> None:
    with pytest.raises(TrainingError, match="--data"):
        SyntheticSource(boxes, replace(tiny(), synthetic=None), 1, 0)
