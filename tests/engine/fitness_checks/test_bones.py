"""Femora drawn as rods: what of them the scan shows, whether they are whole and straight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.fitness_checks.bones import (
    LARGEST_ANGLE_DEG,
    bone_flags,
    find_femora,
    shaft_parts,
    sharpest_angle_deg,
)
from engine.flags import Flag
from engine.labels import LabelSet, Side, Structure, thigh29
from engine.segmentation import Segmentation
from engine.volume import Grid, UnevenPlanes

Line = Callable[[np.ndarray], np.ndarray]
GRID = plain_grid((60, 40, 64), (6.0, 3.0, 3.0))
STRAIGHT: Line = np.zeros_like
HIGH = 54  # levels 5 to 54: the femora end within the scan


def number(side: Side) -> int:
    return 2 * thigh29().structure("femur").value - (side is Side.RIGHT)


def femora(
    shape: Line = STRAIGHT, right: tuple[int, int] = (5, HIGH), left: tuple[int, int] = (5, HIGH), grid: Grid = GRID
) -> np.ndarray:
    """Two rods of 14 mm radius; `shape` shifts the right one to the back by mm, for each level's height in mm."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    points = grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))
    for side, x_mm, levels in ((Side.RIGHT, 50.0, right), (Side.LEFT, 140.0, left)):
        shift = shape(points[..., 2]) if side is Side.RIGHT else 0.0
        inside = np.hypot(points[..., 0] - x_mm, points[..., 1] - 60.0 - shift) < 14.0
        inside[: levels[0]] = inside[levels[1] + 1 :] = False
        labels[inside] = number(side)
    return labels


def codes(labels: np.ndarray, grid: Grid = GRID) -> dict[str, Flag]:
    found = bone_flags(Segmentation(labels, grid, thigh29()))
    return {flag.code: flag for flag in found if flag is not None}


def bent(degrees: float) -> Line:
    """A line that turns by an angle in the middle of the scan."""
    return lambda z: np.tan(np.deg2rad(degrees)) * np.maximum(z - 180.0, 0.0)


def bow(z: np.ndarray) -> np.ndarray:
    """The natural bow, of a radius of 1.2 m."""
    return (z - 180.0) ** 2 / 2400.0


@pytest.mark.parametrize("shape", [STRAIGHT, bow])
def test_whole_straight_and_bowed_femora_raise_nothing(shape: Line) -> None:
    assert codes(femora(shape)) == {}


@pytest.mark.parametrize(
    ("right", "left", "code"),
    [((5, 59), (5, 59), "hip_missing"), ((0, HIGH), (0, HIGH), "knee_missing"), ((1, HIGH), (5, HIGH), "knee_missing")],
)
def test_a_femur_that_runs_on_past_an_end_is_told_with_its_length(
    right: tuple[int, int], left: tuple[int, int], code: str
) -> None:
    found = codes(femora(right=right, left=left))
    assert set(found) == {code}
    assert found[code].number == pytest.approx((right[1] - right[0] + 1) * 6.0)


def test_up_is_up_in_whatever_order_the_slices_come() -> None:
    affine = np.diag([-1.0, 1.0, -1.0, 1.0]) @ GRID.affine  # slices run to the feet
    found = codes(femora(right=(0, HIGH), left=(0, HIGH)), Grid(GRID.shape, affine))
    assert set(found) == {"hip_missing"}


def test_a_fracture_is_angled_and_a_smaller_bend_is_not() -> None:
    assert set(codes(femora(bent(LARGEST_ANGLE_DEG - 4)))) == set()
    found = codes(femora(bent(30)))
    assert set(found) == {"shaft_angled"}
    assert found["shaft_angled"].number == pytest.approx(30, abs=3)
    assert "right femur" in found["shaft_angled"].words


def test_the_two_ends_of_a_broken_shaft_are_counted() -> None:
    labels = femora()
    labels[28:31][labels[28:31] == number(Side.LEFT)] = 0
    found = codes(labels)
    assert found["shaft_broken"].number == 2.0
    assert "left femur" in found["shaft_broken"].words


def test_a_head_that_is_broken_off_is_no_broken_shaft() -> None:
    labels = femora()
    labels[49:51][labels[49:51] == number(Side.LEFT)] = 0
    assert "shaft_broken" not in codes(labels)


def test_a_speck_is_no_part_of_a_shaft() -> None:
    labels = femora()
    labels[30, 2:4, 2:4] = number(Side.LEFT)
    (_, left) = find_femora(Segmentation(labels, GRID, thigh29()))
    assert shaft_parts(left) == 1


@pytest.mark.parametrize(("top", "raised"), [(HIGH, False), (HIGH - 5, False), (HIGH - 10, True), (20, True)])
def test_femora_of_different_length_are_told(top: int, raised: bool) -> None:
    found = codes(femora(left=(5, top)))
    assert ("limb_asymmetry" in found) == raised
    if raised:
        assert found["limb_asymmetry"].number == pytest.approx((HIGH - top) * 6.0)
        assert "left femur is shorter" in found["limb_asymmetry"].words


def test_a_leg_that_is_not_there_is_told() -> None:
    labels = femora()
    labels[labels == number(Side.RIGHT)] = 0
    assert "no femur on the right side" in codes(labels)["limb_asymmetry"].words


def test_a_shaft_too_short_for_a_centre_line_has_no_angle() -> None:
    (right, _) = find_femora(Segmentation(femora(bent(30), right=(20, 40)), GRID, thigh29()))
    assert sharpest_angle_deg(right) == 0.0


def test_lengths_and_angles_hold_where_slices_lie_unevenly() -> None:
    kept = np.r_[0:20, 20:40:2, 40:60]
    places = kept * (len(kept) - 1) / 59.0
    affine = GRID.affine.copy()
    affine[:3, 0] *= 59.0 / (len(kept) - 1)
    grid = Grid((len(kept), *GRID.shape[1:]), affine, UnevenPlanes(0, places))
    found = codes(femora(bent(30))[kept], grid)
    assert found["shaft_angled"].number == pytest.approx(30, abs=3)
    (right, _) = find_femora(Segmentation(femora()[kept], grid, thigh29()))
    assert right.length_mm == pytest.approx(300, abs=3)


def test_a_label_set_without_femora_raises_nothing() -> None:
    label_set = LabelSet("flat", (Structure(1, "fat", "Fat", "tissue", paired=False),))
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    assert list(bone_flags(Segmentation(labels, GRID, label_set))) == []
