"""Strokes and paths: their distances are true, and their boxes hold all that is near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.synthesis.painting import Half, Part, distances, parts

AXIS = np.arange(-30, 31, 2, dtype=np.float32)
HALF = Half(AXIS, AXIS, AXIS)
TABLES = ("builtin_muscles.csv", "builtin_bones.csv", "builtin_context.csv")
places = st.floats(-20, 20)
radii = st.floats(2, 8)


def nearest(part: Part, reach_mm: float) -> NDArray[np.float32]:
    found = np.full(HALF.shape, np.inf, dtype=np.float32)
    for box, distance in distances(part, HALF, reach_mm):
        found[box] = np.minimum(found[box], distance)
    return found


@given(places, places, places, radii)
@settings(max_examples=25)
def test_a_path_of_one_point_is_a_ball(x: float, y: float, z: float, r: float) -> None:
    found = nearest(Part("ball", "nerve", np.empty(0), np.array([[x, y, z, r]])), 4.0)
    true = np.sqrt((AXIS - x) ** 2 + (AXIS[:, None] - y) ** 2 + (AXIS[:, None, None] - z) ** 2) - r
    assert np.isfinite(found[true < 3.9]).all()
    near = np.isfinite(found)
    np.testing.assert_allclose(found[near], true[near], atol=1e-3)


@given(st.tuples(places, places), st.tuples(places, places), radii)
@settings(max_examples=25)
def test_a_stroke_is_all_that_is_near_its_line(start: tuple[float, float], end: tuple[float, float], r: float) -> None:
    stroke = [[*start, r], [*end, r]]
    found = nearest(Part("stroke", "nerve", np.array([-10.0, 10.0]), np.array([stroke, stroke])), 4.0)
    assert not np.isfinite(found[:10]).any(), "nothing below its first level"
    assert not np.isfinite(found[21:]).any(), "nor above its last"
    on_line = np.linspace(start, end, 400)
    away = np.hypot(AXIS[:, None] - on_line[:, 0], AXIS[:, None, None] - on_line[:, 1]).min(axis=-1) - r
    assert np.isfinite(found[15][away < 3.9]).all()
    near = np.isfinite(found[15])
    np.testing.assert_allclose(found[15][near], away[near], atol=0.1)


@pytest.mark.parametrize("table", TABLES)
def test_tables_rise_and_have_a_width(table: str) -> None:
    names = [part.name for part in parts(table)]
    assert len(set(names)) == len(names)
    for part in parts(table):
        assert (np.diff(part.levels) > 0).all(), part.name
        assert (part.points[..., -1] > 0).all(), part.name
