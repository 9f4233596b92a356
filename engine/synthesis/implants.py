"""Metal in the hip, the thigh and the knee.

The rule of truth: labels stay what they were. Metal and cement inside the femur count as femur, the cup inside the hip
bone as hip bone: the implant takes the place of the bone, and its volume is what a reader wants. Where metal lies
outside these bones, the voxels it displaces become background; so does bone that was sawn off and that no metal
replaces. Both are told in `Implanted.displaced`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from engine.errors import VolumeError
from engine.labels import Side
from engine.synthesis.anatomy import Joints
from engine.synthesis.hardware import KINDS, PLASTIC_HU, Femur, Parts, Shell
from engine.synthesis.solids import Axes, Box, Path, Space
from engine.synthesis.tissues import SIDES, tissue_table
from engine.volume import FloatArray, Grid

FEMUR = ("femur", "femur_marrow", "femur_spongy")
HIP_BONE = ("ilium", "ilium_spongy")
HEAD_BOX_MM = 40.0
SCAR_HU = 35.0
TITANIUM_HU, STEEL_HU = (3500.0, 8000.0), (8000.0, 14000.0)
"""What an extended scale shows; 12 bits end at 3071."""
SHARE_WITH_IMPLANT = 0.35
SHARE_BOTH_SIDES = 0.2


@dataclass(frozen=True)
class Implant:
    """One implant.

    Attributes:
        kind: a key of `KINDS`.
        side: of the patient.
        hu: of its metal.
        seed: of its measures.
    """

    kind: str
    side: Side
    hu: float
    seed: int


@dataclass(frozen=True, eq=False)
class Implanted:
    """A body with metal.

    Attributes:
        hu: float32 [z, y, x].
        metal: bool, where metal is.
        displaced: bool, where what was there is gone: these voxels become background.
    """

    hu: torch.Tensor
    metal: torch.Tensor
    displaced: torch.Tensor


def draw_implants(rng: np.random.Generator) -> tuple[Implant, ...]:
    """Draw the implants of a patient: none in 65 %, one in most others, on both sides in a fifth of them."""
    if rng.random() >= SHARE_WITH_IMPLANT:
        return ()
    sides = list(SIDES) if rng.random() < SHARE_BOTH_SIDES else [SIDES[int(rng.integers(2))]]
    names = list(KINDS)
    found = []
    for side in sides:
        name = names[int(rng.choice(len(names), p=[KINDS[each].share for each in names]))]
        hu = rng.uniform(*(TITANIUM_HU if rng.random() < KINDS[name].titanium else STEEL_HU))
        found.append(Implant(name, side, float(hu), int(rng.integers(2**31))))
    return tuple(found)


def implant(
    hu: torch.Tensor, codes: torch.Tensor, grid: Grid, joints: Joints, implants: tuple[Implant, ...]
) -> Implanted:
    """Put implants into a body; see above for what becomes of the truth.

    Args:
        hu: float32 [z, y, x] in the anatomy's space, not changed.
        codes: tissue codes, uint8, same shape.
        grid: upright and isotropic.
        joints: of the anatomy.
        implants: what to put in.

    Raises:
        VolumeError: a side has no femur from its hip joint down.
    """
    space = Space(grid.shape, grid.spacing_mm[0], np.array(grid.affine[:3, 3]), hu.device)
    result = Implanted(hu.clone(), *(torch.zeros(hu.shape, dtype=torch.bool, device=hu.device) for _ in range(2)))
    for each in implants:
        bone = _bone(codes, space, joints, each)
        _put(result, codes, space, KINDS[each.kind].build(bone), each)
    return result


def _bone(codes: torch.Tensor, space: Space, joints: Joints, draw: Implant) -> Femur:
    """Measure the femur of an implant's side."""
    side = SIDES.index(draw.side)
    index = _is(codes, FEMUR, draw.side).nonzero().cpu().numpy()
    points = index[:, ::-1] * space.spacing_mm + space.first_mm
    hip, head_mm = _head(points, joints.hip_mm[side], space.spacing_mm)
    knee = joints.knee_mm[side]
    length = hip[2] - knee[2]
    levels = np.linspace(knee[2] + 0.18 * length, hip[2] - 0.2 * length, 15)
    known = []
    for level in levels:
        near = points[np.abs(points[:, 2] - level) < 4.0]
        if len(near):
            known.append([*((near[:, :2].min(0) + near[:, :2].max(0)) / 2), level])
    sign = -1.0 if side == 0 else 1.0
    trochanter = points[sign * (points[:, 0] - hip[0]) > head_mm + 4]
    trochanter = trochanter[np.abs(trochanter[:, 2] - hip[2] + 15) < 5]
    if len(trochanter):
        known.append([*trochanter[:, :2].mean(0), hip[2] - 15])
    if len(known) < 2:
        raise VolumeError("femur", "it has no shaft", "Give a femur from hip to knee")
    return Femur(sign, hip, head_mm, knee, Path(np.array(known)), points, np.random.default_rng(draw.seed))


def _head(points: FloatArray, joint_mm: FloatArray, spacing_mm: float) -> tuple[FloatArray, float]:
    """Centre and radius of the femoral head, mm: the largest ball inside the bone near the joint."""
    near = points[np.abs(points - joint_mm).max(1) < HEAD_BOX_MM]
    if len(near) == 0:
        raise VolumeError("femur", "no voxel of it lies near its hip joint", "Give the joints of this anatomy")
    first = near.min(0)
    index = np.rint((near - first) / spacing_mm).astype(int) + 1
    box = np.zeros(index.max(0) + 2, dtype=bool)
    box[tuple(index.T)] = True
    depth = distance_transform_edt(box, sampling=spacing_mm)
    deepest = depth >= depth.max() - spacing_mm / 2
    return first + (np.argwhere(deepest).mean(0) - 1) * spacing_mm, float(depth.max())


def _put(body: Implanted, codes: torch.Tensor, space: Space, parts: Parts, draw: Implant) -> None:
    """Put one implant's parts into a body, in place."""
    for solid in parts.sawn:
        box = space.box(solid)
        gone = solid.inside(space.axes(box)) & _is(codes[box], FEMUR, draw.side)
        body.hu[box].masked_fill_(gone, SCAR_HU)
        body.displaced[box].logical_or_(gone)
    for solid, value in parts.other:
        box = space.box(solid)
        inside = solid.inside(space.axes(box))
        if value != PLASTIC_HU:  # cement fills the bone only
            inside &= _is(codes[box], FEMUR, draw.side)
        body.hu[box].masked_fill_(inside, value)
        outside = inside & ~_in_bone(codes[box], draw.side)
        body.displaced[box].logical_or_(outside).logical_and_(~inside | outside)
    for solid in parts.metal:
        box = space.box(solid)
        _set_metal(body, codes, box, solid.inside(space.axes(box)), draw)
    for shell in parts.shells:
        box = space.box(shell.within)
        metal = _shell(_is(codes[box], FEMUR, draw.side), shell, space.axes(box), space.spacing_mm)
        _set_metal(body, codes, box, metal, draw)


def _set_metal(body: Implanted, codes: torch.Tensor, box: Box, metal: torch.Tensor, draw: Implant) -> None:
    body.hu[box].masked_fill_(metal, draw.hu)
    body.metal[box].logical_or_(metal)
    in_bone = _in_bone(codes[box], draw.side)
    body.displaced[box].logical_or_(metal & ~in_bone).logical_and_(~(metal & in_bone))


def _shell(bone: torch.Tensor, shell: Shell, axes: Axes, spacing_mm: float) -> torch.Tensor:
    kept = torch.ones_like(bone)
    for shift in shell.shifts_mm:
        steps = tuple(round(length / spacing_mm) for length in shift)
        kept &= torch.roll(bone, steps, (0, 1))
    return bone & ~kept & shell.within.inside(axes)


def _is(codes: torch.Tensor, keys: tuple[str, ...], side: Side) -> torch.Tensor:
    """Whether each voxel is one of these tissues on a side."""
    mask = torch.zeros(codes.shape, dtype=torch.bool, device=codes.device)
    for key in keys:
        mask |= codes == tissue_table().code(key, side)
    return mask


def _in_bone(codes: torch.Tensor, side: Side) -> torch.Tensor:
    return _is(codes, (*FEMUR, *HIP_BONE), side)
