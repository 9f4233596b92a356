"""The built-in anatomy: one body painted from the tables beside this file.

The measures follow an adult of about 1.73 m and 65 kg; the volumes of muscles those of Handsfield et al. 2014 for that
size. One half is painted, the other is its mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, find_objects, label

from engine.labels import Side
from engine.synthesis.anatomy import Anatomy, Joints, prepare, upright_grid
from engine.synthesis.distance import distance_mm
from engine.synthesis.painting import Half, Part, distances, parts
from engine.synthesis.tissues import tissue_table
from engine.volume import Grid

Codes = NDArray[np.uint8]
MUSCLES, BONES, CONTEXT = "builtin_muscles.csv", "builtin_bones.csv", "builtin_context.csv"
SPACING_MM = 2.0
FIRST_MM, LAST_MM = (-80.0, -109.0, 1.0), (640.0, 127.0, 181.0)
"""First and last voxel centre of the painted half along z, y (to the back) and x (to the side)."""
ROOM_MM = 60.0
"""Air added around it, for subjects with more fat."""
JOINTS = Joints(
    hip_mm=np.array([[-88.0, 5.0, 402.0], [88.0, 5.0, 402.0]]),
    knee_mm=np.array([[-87.0, 10.0, 0.0], [87.0, 10.0, 0.0]]),
)
GROW_MM = 3.0
"""How far a muscle fills the room between it and its neighbours."""
FASCIA_MM = 40.0
"""Radius of the ball that the deep fascia keeps out: it spans grooves that are narrower."""
FIRM = ("artery", "vein", "nerve", "tendon")
"""What muscles give way to."""
JOINT_SPACE_MM = 3.0
INSIDE = {"femur": "femur_spongy", "ilium": "ilium_spongy"}
"""What fills a bone; `other_spongy` where it is not named."""
CORTEX_MM = 2.1
SHAFT_MM = (75.0, 320.0)
"""Levels between which the femur holds fatty marrow, and its cortex is thicker:"""
SHAFT_CORTEX_MM = ((60.0, CORTEX_MM), (110.0, 5.0), (200.0, 6.5), (300.0, 5.5), (345.0, CORTEX_MM))
"""Level and thickness."""


@dataclass(frozen=True)
class BuiltIn:
    """The anatomy of the tables: an AnatomySource."""

    def anatomy(self) -> Anatomy:
        """Paint it and prepare it to draw subjects from."""
        codes, grid = whole()
        return prepare("built-in", "", codes, grid, JOINTS)


def whole() -> tuple[Codes, Grid]:
    """The painted half and its mirror image with air around them: tissue codes [z, y, x] and where they lie."""
    left = paint(painted_half())
    room = round(ROOM_MM / SPACING_MM)
    both = np.concatenate([tissue_table().mirrored[left[..., ::-1]], left], axis=2)
    codes = np.pad(_filled(both), ((0, 0), (room, room), (room, room)))
    first_mm = (-LAST_MM[2] - ROOM_MM, FIRST_MM[1] - ROOM_MM, FIRST_MM[0])
    return codes, upright_grid((codes.shape[0], codes.shape[1], codes.shape[2]), SPACING_MM, first_mm)


def painted_half() -> Half:
    """The left half's voxels."""
    z, y, x = (
        np.arange(first, last + SPACING_MM / 2, SPACING_MM, dtype=np.float32)
        for first, last in zip(FIRST_MM, LAST_MM, strict=True)
    )
    return Half(z, y, x)


def paint(half: Half) -> Codes:
    """Tissue codes of the left half inside the deep fascia, uint8 with the half's axes.

    Later layers hide earlier ones: organs, muscles, vessels and nerves, bones.
    """
    codes = np.zeros(half.shape, dtype=np.uint8)
    _overlay(codes, half, [part for part in parts(CONTEXT) if part.tissue not in FIRM])
    muscles = _muscles(half)
    np.copyto(codes, muscles, where=muscles > 0)
    _overlay(codes, half, [part for part in parts(CONTEXT) if part.tissue in FIRM])
    bones = _bones(half)
    np.copyto(codes, bones, where=bones > 0)
    codes[(codes == 0) & _fascia(codes > 0)] = _code("intermuscular_fat")
    _drop_fragments(codes)
    return codes


def _code(key: str) -> int:
    return tissue_table().code(key, Side.LEFT)


def _overlay(codes: Codes, half: Half, layer: list[Part]) -> None:
    for part in layer:
        for box, distance in distances(part, half, 0.0):
            codes[box][distance < 0] = _code(part.tissue)


def _muscles(half: Half) -> Codes:
    """The nearest muscle of each voxel; 0 where none is within `GROW_MM`."""
    nearest = np.full(half.shape, GROW_MM, dtype=np.float32)
    codes = np.zeros(half.shape, dtype=np.uint8)
    for part in parts(MUSCLES):
        for box, distance in distances(part, half, GROW_MM):
            codes[box][distance < nearest[box]] = _code(part.tissue)
            np.minimum(nearest[box], distance, out=nearest[box])
    return codes


def _bones(half: Half) -> Codes:
    """Cortex and inside of the bones; the socket keeps its distance from the head of the femur."""
    solid = np.zeros(half.shape, dtype=np.uint8)
    for part in sorted(parts(BONES), key=lambda part: part.tissue == "femur"):
        space = JOINT_SPACE_MM if part.name == "femur_head" else 0.0
        for box, distance in distances(part, half, space):
            solid[box][(distance < space) & (solid[box] == _code("ilium"))] = 0
            solid[box][distance < 0] = _code(part.tissue)
    codes = solid.copy()
    for key in sorted({part.tissue for part in parts(BONES)}):
        _hollow(codes, solid == _code(key), key, half)
    return codes


def _hollow(codes: Codes, bone: NDArray[np.bool_], key: str, half: Half) -> None:
    """Fill the inside of a bone; where the painted half ends, the bone does not."""
    z, y, x = (slice(max(side.start - 1, 0), side.stop + 1) for side in find_objects(bone.astype(np.uint8))[0])
    depth = distance_mm(~bone[z, y, x], SPACING_MM)
    level = half.z[z][:, None, None]
    filling = np.full(level.shape, _code(INSIDE.get(key, "other_spongy")), dtype=np.uint8)
    cortex = np.full(level.shape, CORTEX_MM)
    if key == "femur":
        cortex = np.interp(level, *np.transpose(SHAFT_CORTEX_MM))
        filling[(level > SHAFT_MM[0]) & (level < SHAFT_MM[1])] = _code("femur_marrow")
    np.copyto(codes[z, y, x], filling, where=depth > cortex)


def _fascia(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What lies under the deep fascia. The other half is not seen, that the legs stay apart."""
    margin = round(FASCIA_MM / SPACING_MM) + 2
    wide = np.pad(body, ((margin, margin), (0, 0), (margin, 0)), mode="edge")
    wide = np.pad(wide, ((0, 0), (margin, margin), (0, margin)))
    outside = distance_mm(wide, SPACING_MM) >= FASCIA_MM
    kept = distance_mm(outside, SPACING_MM) >= FASCIA_MM
    return np.asarray(kept[margin:-margin, margin:-margin, margin:-margin])


def _filled(codes: Codes) -> Codes:
    """Fat in every hole of a level."""
    solid = np.stack([binary_fill_holes(level > 0) for level in codes])
    return np.where(solid & (codes == 0), _code("intermuscular_fat"), codes).astype(np.uint8)


def _drop_fragments(codes: Codes) -> None:
    """Of each structure keep the largest piece."""
    truth = tissue_table().truth[codes]
    for number, box in enumerate(find_objects(truth), start=1):
        if box is not None:
            pieces = label(truth[box] == number)[0]
            largest = int(np.argmax(np.bincount(pieces.ravel(), minlength=2)[1:])) + 1
            codes[box][(pieces > 0) & (pieces != largest)] = _code("intermuscular_fat")
