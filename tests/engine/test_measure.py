from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import VolumeError
from engine.labels import thigh29
from engine.measure import measure
from engine.segmentation import Segmentation
from engine.volume import Grid, UnevenPlanes, Volume

GRID = Grid((7, 9, 11), np.array([[0, 0.2, 0.8, 0], [0, 0.9, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1]], dtype=float))


def random_scan(seed: int) -> tuple[Volume, Segmentation]:
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1400, 4000, GRID.shape).astype(np.int16)
    labels = (rng.integers(0, 59, GRID.shape) * (rng.random(GRID.shape) < 0.6)).astype(np.uint8)
    return Volume(hu, GRID), Segmentation(labels, GRID, thigh29())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_it_equals_a_loop_over_the_segments(seed: int) -> None:
    volume, segmentation = random_scan(seed)
    measurements = measure(volume, segmentation)
    assert [row.segment.number for row in measurements.segments] == list(range(1, 59))
    for row in measurements.segments:
        inside = segmentation.labels == row.segment.number
        values = np.clip(volume.hu[inside].astype(np.int64), -1024, 3071)
        assert row.voxels == values.size
        assert row.volume_ml == pytest.approx(values.size * 0.8 * 0.9 * 2.5 / 1000)
        assert row.truncated == (inside.sum() > inside[1:-1, 1:-1, 1:-1].sum())
        if values.size:
            assert row.mean_hu == int(values.sum()) / values.size
            assert row.sd_hu == pytest.approx(values.std(), abs=1e-9)
        else:
            assert (row.mean_hu, row.sd_hu) == (None, None)


def test_a_structure_inside_the_scan_is_not_truncated() -> None:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[1:-1, 1:-1, 1:-1] = 8
    row = measure(Volume(np.full(GRID.shape, 50, np.int16), GRID), Segmentation(labels, GRID, thigh29())).segments[7]
    assert (row.voxels, row.mean_hu, row.sd_hu, row.truncated) == (5 * 7 * 9, 50.0, 0.0, False)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_a_structure_that_touches_any_face_of_the_scan_is_truncated(axis: int, end: int) -> None:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[3, 4, 5] = 7
    place = [3, 4, 5]
    place[axis] = end
    labels[tuple(place)] = 8
    scan = Volume(np.full(GRID.shape, 50, np.int16), GRID)
    rows = measure(scan, Segmentation(labels, GRID, thigh29())).segments
    assert [row.segment.number for row in rows if row.truncated] == [8]


def test_labels_of_another_grid_are_refused() -> None:
    volume, segmentation = random_scan(1)
    moved = GRID.affine.copy()
    moved[0, 3] = 3.0
    with pytest.raises(VolumeError, match="different grids"):
        measure(volume, replace(segmentation, grid=Grid(GRID.shape, moved)))


PLACES = np.array([0.0, 0.5, 1.0, 1.5, 3.0, 4.5, 6.0])
"""Of the slices of `GRID`, in steps of 2.5 mm: 1.25 and 3.75 mm apart."""


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_voxel_weighs_what_its_slice_stands_for(seed: int, axis: int) -> None:
    volume, segmentation = random_scan(seed)
    places = PLACES if axis == 0 else np.concatenate([np.linspace(0, 1, 6), np.linspace(2.8, 10, 5)])
    grid = Grid(GRID.shape, GRID.affine, UnevenPlanes(axis, places))
    thick = np.concatenate([[places[1]], (places[2:] - places[:-2]) / 2, [places[-1] - places[-2]]])
    weight_ml = np.moveaxis(np.ones((*np.delete(GRID.shape, axis), 1)) * thick, -1, axis) * 0.8 * 0.9 * 2.5 / 1000
    for row in measure(Volume(volume.hu, grid), replace(segmentation, grid=grid)).segments:
        inside = segmentation.labels == row.segment.number
        values, weights = np.clip(volume.hu[inside].astype(float), -1024, 3071), weight_ml[inside]
        assert row.voxels == values.size
        assert row.volume_ml == pytest.approx(weights.sum())
        if values.size:
            mean = np.average(values, weights=weights)
            assert row.mean_hu == pytest.approx(mean)
            assert row.sd_hu == pytest.approx(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
        else:
            assert (row.mean_hu, row.sd_hu) == (None, None)


def test_evenly_placed_slices_measure_the_same_either_way() -> None:
    volume, segmentation = random_scan(3)
    grid = Grid(GRID.shape, GRID.affine, UnevenPlanes(0, np.arange(7.0)))
    for one, other in zip(
        measure(volume, segmentation).segments,
        measure(Volume(volume.hu, grid), replace(segmentation, grid=grid)).segments,
        strict=True,
    ):
        assert (one.voxels, one.truncated) == (other.voxels, other.truncated)
        assert (one.volume_ml, one.mean_hu, one.sd_hu) == pytest.approx((other.volume_ml, other.mean_hu, other.sd_hu))


def test_labels_with_other_planes_are_refused() -> None:
    volume, segmentation = random_scan(1)
    with pytest.raises(VolumeError, match="different grids"):
        measure(volume, replace(segmentation, grid=Grid(GRID.shape, GRID.affine, UnevenPlanes(0, PLACES))))
