"""How a person lies in the scanner: from a place in the scan to a place in the anatomy.

The map runs backwards, from the scan to the body, so that every voxel of the scan has one place. It is evaluated on a
lattice of a few millimetres and interpolated: everything in it is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from engine.synthesis.anatomy import Joints
from engine.volume import FloatArray, Grid

LATTICE_MM = 8.0
FIELD_SPACE_MM = np.array([[-320.0, -220.0, -160.0], [320.0, 220.0, 720.0]])
"""Corners (x, y, z) of the box in which the elastic fields live."""
BEND_MM = (50.0, 45.0)
"""Above and below the hip joint a leg goes over from the pelvis's pose to its own."""
KNEE_BEND_MM = (30.0, 30.0)
MIDLINE_MM = 30.0
"""Half of the width in which the pose goes over from one leg to the other."""


@dataclass(frozen=True, eq=False)
class Elastic:
    """A smooth displacement: knots [3 (x, y, z), nz, ny, nx] in mm over `FIELD_SPACE_MM`."""

    knots_mm: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pose:
    """How a person lies.

    Attributes:
        scale: size of the person along x, y, z against the anatomy.
        tilt: rotation of the whole body, 3 x 3.
        shift_mm: where the anatomy's origin comes to lie, LPS.
        hip: rotation of each leg about its hip joint, [2, 3, 3], from the scan back to the anatomy.
        knee: rotation of each lower leg about its knee joint, likewise.
        flattening: by which share the side that lies on the table is pressed flat, and its depth in mm.
        elastic: displacements, coarse to fine.
        mirrored: left and right swapped.
    """

    scale: FloatArray
    tilt: FloatArray
    shift_mm: FloatArray
    hip: FloatArray
    knee: FloatArray
    flattening: tuple[float, float]
    elastic: tuple[Elastic, ...]
    mirrored: bool


def rotation(x_deg: float, y_deg: float, z_deg: float) -> FloatArray:
    """The rotation about x, then y, then z, as 3 x 3."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians([x_deg, y_deg, z_deg])):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def draw_pose(rng: np.random.Generator, prone: bool = False) -> Pose:
    """Draw a pose.

    Stature 1.50 to 1.95 m about an anatomy of 1.73 m; girth apart from it. Legs at rest turn outwards by up to 30
    degrees, flex by up to 15 and stand together or apart; a knee roll flexes the knee by up to 20. Supine buttocks are
    pressed flat in most; one in five stands or lies on something soft.
    """
    stature = rng.uniform(0.87, 1.12)
    girth = rng.uniform(0.88, 1.14) * stature**0.5
    hips, knees = [], []
    both = rng.normal(0, 1, 3) * (5, 1.5, 8)
    for sign in (-1, 1):
        flexion, abduction, turn = both + rng.normal(0, 1, 3) * (2.5, 1.5, 5)
        abduction = float(np.clip(abduction - 1.0, -5, 5))
        hips.append(rotation(float(np.clip(flexion, -8, 14)), sign * abduction, sign * float(np.clip(turn, -14, 18))))
        knees.append(rotation(float(rng.uniform(-16, 3)), 0, 0))
    spacing = ((90.0, 3.4), (45.0, 1.6), (22.0, 0.6))
    extent = FIELD_SPACE_MM[1] - FIELD_SPACE_MM[0]
    fields = []
    for knot_mm, sd_mm in spacing:
        knots = [int(np.ceil(length / knot_mm)) + 1 for length in extent[::-1]]
        sd = sd_mm * rng.uniform(0.4, 1.3)
        fields.append(Elastic((sd * rng.standard_normal((3, *knots))).astype(np.float32)))
    return Pose(
        scale=np.array([girth * rng.uniform(0.96, 1.05), girth * rng.uniform(0.94, 1.06), stature]),
        tilt=rotation(*(rng.normal(0, 2.5, 3) * (1.2, 0.8, 1.2))),
        shift_mm=rng.normal(0, 6, 3),
        hip=np.stack(hips),
        knee=np.stack(knees),
        flattening=(float(rng.uniform(0.0, 0.55)) * (rng.random() < 0.8) * (not prone), float(rng.uniform(30, 60))),
        elastic=tuple(fields),
        mirrored=bool(rng.random() < 0.5),
    )


def places(pose: Pose, joints: Joints, back_mm: float, points_mm: torch.Tensor) -> torch.Tensor:
    """Where points of the scan lie in the anatomy.

    Args:
        pose: how the person lies.
        joints: of the anatomy.
        back_mm: y of the anatomy's back, where it touches the table.
        points_mm: LPS mm of the scan, float32 [..., 3] (x, y, z).

    Returns:
        LPS mm of the anatomy, same shape.
    """
    q = (points_mm - _as(pose.shift_mm, points_mm)) @ _as(pose.tilt, points_mm)
    q = q / _as(pose.scale, q)
    if pose.mirrored:
        q = q * _as(np.array([-1.0, 1.0, 1.0]), q)
    moved = q.clone()
    for side, (hip, knee) in enumerate(zip(joints.hip_mm, joints.knee_mm, strict=True)):
        sign = -1.0 if side == 0 else 1.0
        own = _ramp(sign * q[..., 0], -MIDLINE_MM, MIDLINE_MM)
        leg = own * _ramp(-q[..., 2], -(hip[2] + BEND_MM[0]), -(hip[2] - BEND_MM[1]))
        shin = own * _ramp(-q[..., 2], -(knee[2] + KNEE_BEND_MM[0]), -(knee[2] - KNEE_BEND_MM[1]))
        moved = moved + leg[..., None] * _turned(q, hip, pose.hip[side])
        moved = moved + shin[..., None] * _turned(q, knee, pose.knee[side])
    moved = _unflatten(moved, pose.flattening, back_mm)
    for field in pose.elastic:
        moved = moved + _displacement(field, moved)
    return moved


def place_map(pose: Pose, joints: Joints, back_mm: float, grid: Grid, device: torch.device) -> torch.Tensor:
    """`places` for every voxel of a grid, float32 [slice, row, column, 3], interpolated from a lattice."""
    counts = [
        max(2, int(np.ceil((length - 1) * step / LATTICE_MM)) + 1)
        for length, step in zip(grid.shape, grid.spacing_mm, strict=True)
    ]
    knots = [np.linspace(0, length - 1, count) for length, count in zip(grid.shape, counts, strict=True)]
    index = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1)
    points = torch.from_numpy(grid.to_patient(index).astype(np.float32)).to(device)
    lattice = places(pose, joints, back_mm, points).movedim(-1, 0)[None]
    fine = functional.interpolate(lattice, size=grid.shape, mode="trilinear", align_corners=True)
    return fine[0].movedim(0, -1)


def _turned(points: torch.Tensor, centre: FloatArray, turn: FloatArray) -> torch.Tensor:
    """By how much a rotation about a centre moves each point."""
    about = points - _as(centre, points)
    return about @ _as(turn.T - np.eye(3), points)


def _unflatten(points: torch.Tensor, flattening: tuple[float, float], back_mm: float) -> torch.Tensor:
    """Stretch again what the table presses flat: the deeper, the more."""
    share, depth_mm = flattening
    if share == 0:
        return points
    start = back_mm - depth_mm
    beyond = (points[..., 1] - start).clamp(min=0)
    y = points[..., 1] + beyond.square() * (share / (2 * depth_mm * (1 - share)))
    return torch.stack([points[..., 0], y, points[..., 2]], dim=-1)


def _displacement(field: Elastic, points: torch.Tensor) -> torch.Tensor:
    low, high = (_as(corner, points) for corner in FIELD_SPACE_MM)
    where = (points - low) / (high - low) * 2 - 1
    flat = where.reshape(1, -1, 1, 1, 3)
    knots = torch.from_numpy(field.knots_mm).to(points.device)[None]
    moved = functional.grid_sample(knots, flat, mode="bilinear", padding_mode="border", align_corners=True)
    return moved[0, :, :, 0, 0].T.reshape(points.shape)


def _ramp(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 below, 1 above, smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _as(array: FloatArray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)
