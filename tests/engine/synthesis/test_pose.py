"""Poses: rigid where a body is, smooth where it bends, and nothing is folded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.labels import Side
from engine.synthesis.anatomy import Anatomy, Joints, upright_grid
from engine.synthesis.person import Person
from engine.synthesis.pose import (
    BEND_MM,
    FIELD_SPACE_MM,
    KNEE_BEND_MM,
    Pose,
    draw_pose,
    place_map,
    places,
    rotation,
)
from engine.synthesis.rendering import PosedPerson, segments_of
from engine.synthesis.tissues import tissue_table
from engine.volume import FloatArray, Grid

JOINTS = Joints(
    hip_mm=np.array([[-88.0, 5.0, 402.0], [88.0, 5.0, 402.0]]),
    knee_mm=np.array([[-87.0, 10.0, 0.0], [87.0, 10.0, 0.0]]),
)
BACK_MM = 110.0
UNTURNED = np.stack([np.eye(3)] * 2)
STILL = Pose(np.ones(3), np.eye(3), np.zeros(3), UNTURNED, UNTURNED, (0.0, 40.0), (), False)
"""A person who lies as the anatomy does."""
SEEDS = st.integers(0, 2**32 - 1)
ANGLES = st.floats(-25, 25)
TURNS = st.tuples(ANGLES, ANGLES, ANGLES)
SIDES = st.sampled_from([0, 1])


def placed(pose: Pose, points_mm: FloatArray) -> FloatArray:
    found = places(pose, JOINTS, BACK_MM, torch.from_numpy(points_mm.astype(np.float32)))
    return np.asarray(found.numpy(), dtype=np.float64)


def scattered(seed: int, low: tuple[float, float, float], high: tuple[float, float, float]) -> FloatArray:
    return np.random.default_rng(seed).uniform(low, high, (60, 3))


def turned(side: int, turn: tuple[float, float, float], joint: str) -> Pose:
    turns = UNTURNED.copy()
    turns[side] = rotation(*turn)
    return replace(STILL, hip=turns) if joint == "hip" else replace(STILL, knee=turns)


def volume_change(pose: Pose, points_mm: FloatArray) -> FloatArray:
    """Determinant of the map's derivative at points; not above 0 where it folds."""
    columns = []
    for axis in range(3):
        step = 0.5 * np.eye(3)[axis]
        columns.append(placed(pose, points_mm + step) - placed(pose, points_mm - step))
    return np.asarray(np.linalg.det(np.stack(columns, axis=-1)))


def test_who_lies_still_is_the_anatomy() -> None:
    points = scattered(1, (-200, -150, -60), (200, 150, 600))
    np.testing.assert_allclose(placed(STILL, points), points, atol=1e-3)


def test_place_map_gives_each_voxel_its_own_place() -> None:
    grid = Grid((7, 9, 11), np.array([[1.0, 0, 4, -30], [0, 5, 1, 20], [6, 0, 0, 300], [0, 0, 0, 1]]))
    found = place_map(STILL, JOINTS, BACK_MM, grid, torch.device("cpu"))
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    np.testing.assert_allclose(found.numpy(), grid.to_patient(index), atol=1e-3)


@given(SEEDS)
@settings(max_examples=10)
def test_place_map_is_places_at_every_voxel(seed: int) -> None:
    pose = draw_pose(np.random.default_rng(seed))
    grid = upright_grid((9, 20, 20), 3.0, (40.0, -30.0, 200.0))
    found = place_map(pose, JOINTS, BACK_MM, grid, torch.device("cpu"))
    index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
    away = np.linalg.norm(found.numpy() - placed(pose, grid.to_patient(index)), axis=-1)
    assert away.mean() < 0.5 and away.max() < 3.0


@pytest.mark.parametrize(
    ("angles", "start", "end"),
    [((90, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 90, 0), (0, 0, 1), (1, 0, 0)), ((0, 0, 90), (1, 0, 0), (0, 1, 0))],
)
def test_rotations_turn_the_right_way(
    angles: tuple[float, float, float], start: tuple[float, ...], end: tuple[float, ...]
) -> None:
    np.testing.assert_allclose(rotation(*angles) @ np.array(start), np.array(end), atol=1e-12)


@given(TURNS)
def test_a_rotation_is_one(turn: tuple[float, float, float]) -> None:
    matrix = rotation(*turn)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    x, y, z = (rotation(*np.eye(3)[axis] * turn[axis]) for axis in range(3))
    np.testing.assert_allclose(matrix, z @ y @ x, atol=1e-12)


@given(SEEDS, SIDES, TURNS)
@settings(max_examples=30)
def test_a_thigh_keeps_its_distances_from_the_hip(seed: int, side: int, turn: tuple[float, float, float]) -> None:
    sign = (-1, 1)[side]
    points = scattered(seed, (70, -70, 40), (160, 70, 402 - BEND_MM[1])) * [sign, 1, 1]
    moved = placed(turned(side, turn, "hip"), points)
    hip = JOINTS.hip_mm[side]
    np.testing.assert_allclose(np.linalg.norm(moved - hip, axis=1), np.linalg.norm(points - hip, axis=1), atol=0.01)
    np.testing.assert_allclose(moved - hip, (points - hip) @ rotation(*turn).T, atol=0.01)


@given(SEEDS, SIDES, TURNS)
@settings(max_examples=30)
def test_a_shin_keeps_its_distances_from_the_knee(seed: int, side: int, turn: tuple[float, float, float]) -> None:
    sign = (-1, 1)[side]
    points = scattered(seed, (70, -50, -80), (130, 50, -KNEE_BEND_MM[1])) * [sign, 1, 1]
    moved = placed(turned(side, turn, "knee"), points)
    knee = JOINTS.knee_mm[side]
    np.testing.assert_allclose(np.linalg.norm(moved - knee, axis=1), np.linalg.norm(points - knee, axis=1), atol=0.01)


@given(SEEDS, SIDES, TURNS, TURNS)
@settings(max_examples=30)
def test_legs_do_not_move_the_pelvis(
    seed: int, side: int, hip: tuple[float, float, float], knee: tuple[float, float, float]
) -> None:
    pose = replace(turned(side, hip, "hip"), knee=turned(side, knee, "knee").knee)
    points = scattered(seed, (-200, -150, 402 + BEND_MM[0]), (200, 150, 640))
    np.testing.assert_allclose(placed(pose, points), points, atol=1e-3)


@given(SEEDS, SIDES, TURNS)
@settings(max_examples=30)
def test_a_leg_does_not_move_the_other(seed: int, side: int, turn: tuple[float, float, float]) -> None:
    points = scattered(seed, (110, -80, -60), (180, 80, 640)) * [(1, -1)[side], 1, 1]
    np.testing.assert_allclose(placed(turned(side, turn, "hip"), points), points, atol=1e-3)


@given(SEEDS, TURNS, st.floats(0.8, 1.2), st.booleans())
@settings(max_examples=30)
def test_the_whole_body_is_tilted_shifted_scaled_and_mirrored(
    seed: int, tilt: tuple[float, float, float], stature: float, mirrored: bool
) -> None:
    shift, scale = np.array([5.0, -3.0, 8.0]), np.array([0.9, 1.1, stature])
    pose = replace(STILL, tilt=rotation(*tilt), shift_mm=shift, scale=scale, mirrored=mirrored)
    body = scattered(seed, (-180, -120, -60), (180, 120, 600))
    scan = (body * [-1 if mirrored else 1, 1, 1] * scale) @ pose.tilt.T + shift
    np.testing.assert_allclose(placed(pose, scan), body, atol=0.01)


@given(SEEDS)
@settings(max_examples=25)
def test_elastic_fields_are_smooth(seed: int) -> None:
    pose = replace(STILL, elastic=draw_pose(np.random.default_rng(seed)).elastic)
    points = np.random.default_rng(seed).uniform(FIELD_SPACE_MM[0] + 20, FIELD_SPACE_MM[1] - 20, (4000, 3))
    change = volume_change(pose, points)
    assert change.min() > 0.15 and change.max() < 3
    moved = placed(pose, points) - points
    assert np.abs(moved).max() < 30 and np.abs(moved.mean(axis=0)).max() < 6


@given(st.floats(0, 0.6), st.floats(25, 70))
@settings(max_examples=30)
def test_flattening_never_folds(share: float, depth_mm: float) -> None:
    points = np.zeros((200, 3))
    points[:, 1] = np.linspace(-150, 200, 200)
    y = placed(replace(STILL, flattening=(share, depth_mm)), points)[:, 1]
    assert (np.diff(y) > 0).all()
    front = points[:, 1] < BACK_MM - depth_mm
    np.testing.assert_allclose(y[front], points[front, 1], atol=1e-3)
    pressed = y[~front] - points[~front, 1]
    assert (np.diff(pressed) >= -1e-3).all() and (share < 0.05 or pressed[-1] > 1)


@pytest.mark.parametrize("seed", range(12))
def test_no_muscle_is_shown_twice(built_in: Anatomy, seed: int) -> None:
    """Where one leg's pose goes over into the other's, muscle must not be folded."""
    pose = draw_pose(np.random.default_rng(seed))
    z, y, x = np.meshgrid(np.arange(0, 440, 8), np.arange(-100, 110, 8), np.arange(-80, 81, 4), indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float64)
    index = np.rint(built_in.grid.to_index(placed(pose, points))).astype(int)
    index = np.clip(index, 0, np.array(built_in.grid.shape) - 1)
    inside = built_in.codes[tuple(index.T)] > 0
    assert inside.sum() > 1000
    change = volume_change(pose, points[inside]) * (-1 if pose.mirrored else 1)
    assert change.min() > 0


def test_mirroring_swaps_left_and_right_in_the_truth(person: Person) -> None:
    grid = upright_grid((6, 30, 60), 8.0, (-236.0, -116.0, 180.0))
    straight = segments_of(PosedPerson(person, STILL).codes(grid))
    mirrored = segments_of(PosedPerson(person, replace(STILL, mirrored=True)).codes(grid))
    swapped = torch.from_numpy(tissue_table().mirrored)[mirrored.flip(2).long()]
    assert (straight == swapped).float().mean() > 0.98, "but for voxels half way between two of the anatomy's"
    left = tissue_table().code("vastus_lateralis", Side.LEFT)
    for codes in (straight, mirrored):
        assert torch.argwhere(codes == left)[:, 2].float().mean() > 30


@given(SEEDS)
@settings(max_examples=50)
def test_what_is_drawn_is_possible(seed: int) -> None:
    pose = draw_pose(np.random.default_rng(seed))
    assert pose.scale.min() > 0.75 and pose.scale.max() < 1.4
    for turn in (pose.tilt, *pose.hip, *pose.knee):
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        assert np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) < 30
    assert 0 <= pose.flattening[0] <= 0.55
    assert draw_pose(np.random.default_rng(seed), prone=True).flattening[0] == 0


def test_poses_follow_from_the_generator() -> None:
    one, same, other = (draw_pose(np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.elastic[0].knots_mm, same.elastic[0].knots_mm)
    np.testing.assert_array_equal(one.hip, same.hip)
    assert (one.hip != other.hip).any()


def test_legs_turn_outwards_on_average_and_both_alike() -> None:
    toes = np.array([0.0, -1.0, 0.0])
    out = []
    for seed in range(200):
        hip = draw_pose(np.random.default_rng(seed)).hip
        # Back from the anatomy to the scan: where its front points to, towards the outside of each leg.
        out.append([sign * (turn.T @ toes)[0] for sign, turn in zip((-1, 1), hip, strict=True)])
    degrees = np.degrees(np.array(out))
    assert np.corrcoef(degrees.T)[0, 1] > 0.4
    assert degrees.max() > 10
