"""Shapes: their inside, their mirror image, what is painted over what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.synthesis.painting import Half
from engine.synthesis.shapes import Ball, Column, Layer, Path, Shape, paint

AXIS = np.arange(-30, 31, 2, dtype=np.float32)
AXES = Half(AXIS, AXIS, AXIS)
Z, Y, X = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
ANY, NONE = np.ones(256, dtype=bool), np.zeros(256, dtype=bool)
BALL = Ball(np.array([3.0, -4, 5]), np.array([8.0, 12, 16]), (25.0, -10.0))
COLUMN = Column(np.array([[-20, 2, 4, 6, 12, 30], [0, 5, 0, 10, 8, 30], [20, 0, 0, 5, 5, 30.0]]))
PATH = Path(np.array([[-10, 0, -20, 4], [0, 5, 0, 6], [12, 0, 15, 3.0]]))


def layer(mark: int, wall: int = 0, wall_mm: float = 0.0) -> Layer:
    return Layer(wall, wall_mm, mark, ANY, 0.0, 0, NONE)


def painted(shape: Shape, how: Layer | None = None) -> NDArray[np.uint8]:
    marks = np.zeros(AXES.shape, dtype=np.uint8)
    paint(marks, AXES, [shape], how or layer(1))
    return marks


@given(st.tuples(*[st.floats(-8, 8)] * 3), st.tuples(*[st.floats(5, 16)] * 3))
def test_a_ball_holds_what_its_equation_says(centre: tuple[float, ...], radii: tuple[float, ...]) -> None:
    square = np.sum([((at - c) / r) ** 2 for at, c, r in zip((X, Y, Z), centre, radii, strict=True)], axis=0)
    sure = np.abs(square - 1) > 1e-3
    assert np.array_equal(painted(Ball(np.array(centre), np.array(radii)))[sure], (square < 1)[sure])


def test_a_turned_ball_keeps_its_volume() -> None:
    volume = painted(BALL).sum() * 8
    assert volume == pytest.approx(4 / 3 * np.pi * 8 * 12 * 16, rel=0.04)


def test_a_ball_turned_by_90_degrees_has_its_axes_exchanged() -> None:
    turned = Ball(np.zeros(3), np.array([6.0, 14, 10]), (90.0, 0.0))
    assert np.array_equal(painted(turned), painted(Ball(np.zeros(3), np.array([14.0, 6, 10]))))


def test_a_column_has_the_ellipse_of_each_level() -> None:
    straight = Column(np.array([[-20, 4, -2, 8, 12, 0], [20, 4, -2, 8, 12, 0.0]]))
    ellipse = ((X - 4) / 8) ** 2 + ((Y + 2) / 12) ** 2
    sure = (np.abs(ellipse - 1) > 1e-3) & (np.abs(Z) < 20)
    assert np.array_equal(painted(straight)[sure], (ellipse < 1)[sure])
    assert not painted(straight)[np.abs(Z) > 20].any()


@pytest.mark.parametrize("shape", [BALL, COLUMN, PATH])
def test_the_mirror_image_is_the_mirror_image(shape: Shape) -> None:
    assert np.array_equal(painted(shape.mirrored()), painted(shape)[:, :, ::-1])


@pytest.mark.parametrize("shape", [BALL, COLUMN, PATH])
def test_a_shape_lies_within_its_bounds_and_moves_as_told(shape: Shape) -> None:
    low, high = shape.bounds_mm()
    z, y, x = np.nonzero(painted(shape))
    for axis, index in enumerate((x, y, z)):
        assert low[axis] <= AXIS[index.min()] and AXIS[index.max()] <= high[axis]
    moved = painted(shape.varied(1.0, np.array([2.0, 4.0, -6.0])))
    assert np.array_equal(np.roll(painted(shape), (-3, 2, 1), (0, 1, 2)), moved)


@pytest.mark.parametrize("shape", [BALL, COLUMN, PATH])
def test_a_wall_covers_the_inside(shape: Shape) -> None:
    whole = painted(shape, layer(1, wall=2, wall_mm=2.5))
    assert set(np.unique(whole)) == {0, 1, 2}
    assert np.array_equal(whole > 0, painted(shape) > 0)
    inside = whole == 1
    for axis in (1, 2):
        for step in (-1, 1):
            assert not (inside & (np.roll(whole, step, axis) == 0)).any()


def test_shapes_painted_together_have_no_wall_between_them() -> None:
    marks = np.zeros(AXES.shape, dtype=np.uint8)
    pair: list[Shape] = [Ball(np.array([x, 0.0, 0]), np.full(3, 10.0)) for x in (-4.0, 4.0)]
    paint(marks, AXES, pair, layer(1, wall=2, wall_mm=2.0))
    assert (marks[15, 15, 10:21] == 1).all()


def test_only_what_may_be_hidden_is_hidden() -> None:
    marks = np.where(X < 0, 3, 4).astype(np.uint8)
    only_three = NONE.copy()
    only_three[3] = True
    paint(marks, AXES, [BALL], Layer(0, 0.0, 1, only_three, 0.0, 0, NONE))
    assert set(np.unique(marks[X < 0])) == {1, 3}
    assert set(np.unique(marks[X >= 0])) == {4}


def test_a_seam_parts_neighbours() -> None:
    marks = np.where(X < 0, 3, 0).astype(np.uint8)
    three = NONE.copy()
    three[3] = True
    paint(marks, AXES, [Ball(np.zeros(3), np.full(3, 12.0))], Layer(0, 0.0, 1, ANY, 3.0, 7, three))
    assert not ((marks == 1) & (np.roll(marks, 1, 2) == 3)).any()
    assert not (marks[X > 0] == 7).any()
