"""Regions: which there are, and what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.evaluation.cases import Case, EvaluationError, LabelScheme, RegionKind, regions_of
from engine.labels import Side, thigh29
from engine.volume import Grid, UnevenPlanes


def test_every_structure_and_group_is_there_by_side_and_whole() -> None:
    regions = regions_of(thigh29(), LabelScheme.SEGMENTS)
    assert len(regions) == 3 * (29 + 6)
    assert [region.side for region in regions[:3]] == [Side.RIGHT, Side.LEFT, None]
    for kind in RegionKind:  # both the structures and the groups share out all segments
        numbers = [number for each in regions if each.kind is kind and each.side is None for number in each.values]
        assert sorted(numbers) == list(range(1, 59))


def test_sides_follow_the_numbers_of_the_segments() -> None:
    regions = {(each.key, each.side): each.values for each in regions_of(thigh29(), LabelScheme.SEGMENTS)}
    assert regions["sartorius", Side.RIGHT] == (1,) and regions["sartorius", Side.LEFT] == (2,)
    assert regions["posterior", Side.LEFT] == (22, 24, 26) and regions["posterior", None] == tuple(range(21, 27))
    assert regions["bone", Side.RIGHT] == (55, 57)


def test_labels_without_sides_have_regions_without_sides() -> None:
    regions = regions_of(thigh29(), LabelScheme.STRUCTURES)
    assert len(regions) == 29 + 6 and {each.side for each in regions} == {None}
    assert {each.key: each.values for each in regions}["posterior"] == (11, 12, 13)
    assert regions[0].title == "Sartorius" and regions[0].side_name == "both"


def test_arrays_that_do_not_fit_are_refused() -> None:
    grid = plain_grid((2, 3, 4))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    with pytest.raises(EvaluationError, match="case a: its truth"):
        Case("a", grid, labels, labels[:1])
    with pytest.raises(EvaluationError, match="its prediction is int64"):
        Case("a", grid, labels.astype(np.int64), labels)
    with pytest.raises(EvaluationError, match="its CT"):
        Case("a", grid, labels, labels, np.zeros((2, 3, 5), dtype=np.int16))


def test_slices_at_different_distances_are_not_scored() -> None:
    even = plain_grid((4, 5, 6), (2.0, 1.0, 1.0))
    grid = Grid(even.shape, even.affine, UnevenPlanes(0, np.array([0.0, 0.5, 1.0, 3.0])))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    with pytest.raises(EvaluationError, match="distance of its slices varies"):
        Case("a", grid, labels, labels)
