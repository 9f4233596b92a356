"""Overlap and volume against hand counts, each other's identities, and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_bodies import Mask, ball_mask, box_mask, plain_grid
from monai.metrics.meandice import DiceMetric
from monai.metrics.meaniou import MeanIoU

from engine.evaluation import overlap
from engine.evaluation.overlap import Counts

SHAPE = (4, 5, 6)
masks = arrays(np.bool_, SHAPE)


def counted(prediction: Mask, truth: Mask) -> Counts:
    table = overlap.confusion(prediction.astype(np.uint8), truth.astype(np.uint8))
    return overlap.counts_of(table, (1,))


def known(value: float | None) -> float:
    assert value is not None
    return value


def test_a_shifted_cube() -> None:
    """A cube of 4 moved by 1: 48 of 64 voxels in common."""
    shape = (8, 8, 8)
    counts = counted(box_mask(shape, (2, 2, 2), (4, 4, 4)), box_mask(shape, (2, 2, 3), (4, 4, 4)))
    assert counts == Counts(both=48, prediction=64, truth=64, volume=512)
    assert overlap.dice(counts) == 0.75
    assert overlap.jaccard(counts) == 48 / 80
    assert overlap.hamming_distance(counts) == 32 / 512
    assert overlap.hamming_similarity(counts) == 1 - 32 / 512
    assert overlap.relative_volume_difference(counts) == 0


def test_false_positives_weigh_as_much_as_false_negatives() -> None:
    """The printed 2TP / (2TP + 2FP + FN) would give 2 / 5 and 2 / 4."""
    small, large = box_mask(SHAPE, (0, 0, 0), (1, 1, 1)), box_mask(SHAPE, (0, 0, 0), (1, 1, 2))
    assert overlap.dice(counted(small, large)) == overlap.dice(counted(large, small)) == 2 / 3


def test_concentric_balls() -> None:
    """Volumes of 10 and 15 mm: Dice 2 r^3 / (r^3 + R^3), RVD 100 (r^3 - R^3) / R^3, to the grain of the voxels."""
    grid = plain_grid((41, 41, 41), (1.0, 1.0, 1.0))
    counts = counted(ball_mask(grid, 10.0), ball_mask(grid, 15.0))
    assert overlap.dice(counts) == pytest.approx(2 * 10**3 / (10**3 + 15**3), abs=0.01)
    assert overlap.relative_volume_difference(counts) == pytest.approx(100 * (10**3 / 15**3 - 1), abs=1.0)


def test_rvd_keeps_its_sign() -> None:
    assert overlap.relative_volume_difference(Counts(10, 10, 20, 100)) == -50
    assert overlap.relative_volume_difference(Counts(10, 30, 20, 100)) == 50


def test_empty_against_empty_says_nothing() -> None:
    counts = Counts(0, 0, 0, 100)
    functions = (overlap.dice, overlap.jaccard, overlap.hamming_distance, overlap.hamming_similarity)
    assert all(function(counts) is None for function in functions)
    assert overlap.relative_volume_difference(counts) is None


def test_empty_against_full_is_0() -> None:
    for counts in (Counts(0, 7, 0, 100), Counts(0, 0, 7, 100)):
        assert overlap.dice(counts) == overlap.jaccard(counts) == 0
        assert overlap.hamming_distance(counts) == 0.07
    assert overlap.relative_volume_difference(Counts(0, 0, 7, 100)) == -100
    assert overlap.relative_volume_difference(Counts(0, 7, 0, 100)) is None


def test_a_union_is_counted_without_its_inner_confusion() -> None:
    truth = np.array([[[1, 1, 2, 2, 0, 3]]], dtype=np.uint8)
    prediction = np.array([[[1, 2, 1, 0, 2, 3]]], dtype=np.uint8)
    table = overlap.confusion(prediction, truth)
    assert overlap.counts_of(table, (1,)) == Counts(1, 2, 2, 6)
    assert overlap.counts_of(table, (1, 2)) == Counts(3, 4, 4, 6)
    assert overlap.counts_of(table, (58,)) == Counts(0, 0, 0, 6)


@given(masks, masks)
def test_symmetry_range_and_the_identity_of_dice_and_jaccard(one: Mask, other: Mask) -> None:
    there, back = counted(one, other), counted(other, one)
    assert overlap.dice(there) == overlap.dice(back)
    assert overlap.hamming_distance(there) == overlap.hamming_distance(back)
    if not one.any() and not other.any():
        return
    dice, jaccard = known(overlap.dice(there)), known(overlap.jaccard(there))
    assert 0 <= jaccard <= dice <= 1
    assert jaccard == pytest.approx(dice / (2 - dice))
    assert (dice == 1) == bool(np.array_equal(one, other))
    assert known(overlap.hamming_distance(there)) == np.mean(one != other)


@given(arrays(np.uint8, SHAPE, elements=st.integers(0, 5)), arrays(np.uint8, SHAPE, elements=st.integers(0, 5)))
def test_the_table_agrees_with_masks(one: np.ndarray, other: np.ndarray) -> None:
    table = overlap.confusion(one, other)
    for values in ((1,), (2, 4), (1, 2, 3, 4, 5)):
        assert overlap.counts_of(table, values) == counted(np.isin(one, values), np.isin(other, values))


@given(masks, masks)
def test_monai_agrees(one: Mask, other: Mask) -> None:
    """But for an empty truth: MONAI gives NaN there whatever was predicted, and the case drops out of its mean."""
    tensors = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (one, other)]
    dice = float(DiceMetric()(*tensors))  # type: ignore[arg-type]
    jaccard = float(MeanIoU()(*tensors))  # type: ignore[arg-type]
    counts = counted(one, other)
    if not other.any():
        assert np.isnan(dice) and np.isnan(jaccard)
        assert overlap.dice(counts) == (0 if one.any() else None)
        return
    assert dice == pytest.approx(known(overlap.dice(counts)), abs=1e-6)
    assert jaccard == pytest.approx(known(overlap.jaccard(counts)), abs=1e-6)
