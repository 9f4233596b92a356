"""Implants: metal lies where surgeons put it, and the truth follows the rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import VolumeError
from engine.labels import Side
from engine.synthesis.anatomy import Joints, upright_grid
from engine.synthesis.hardware import KINDS
from engine.synthesis.implants import (
    FEMUR,
    HIP_BONE,
    SHARE_WITH_IMPLANT,
    Implant,
    Implanted,
    draw_implants,
    implant,
)
from engine.synthesis.solids import Ball, Bowl, Cone, Path, Rod, Solid, Space
from engine.synthesis.tissues import tissue_table

SPACING_MM = 3.0
SHAPE = (180, 50, 100)
GRID = upright_grid(SHAPE, SPACING_MM, (-150.0, -75.0, -60.0))
HIP, KNEE = np.array([88.0, 5.0, 402.0]), np.array([92.0, 8.0, 0.0])
MIRROR = np.array([-1.0, 1.0, 1.0])
JOINTS = Joints(np.stack([HIP * MIRROR, HIP]), np.stack([KNEE * MIRROR, KNEE]))
METAL_HU = 5000.0


def space() -> Space:
    return Space(SHAPE, SPACING_MM, np.array(GRID.affine[:3, 3]), torch.device("cpu"))


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    """Two legs of muscle with femora (head, neck, trochanter, shaft, condyles) and a hip bone around the heads."""
    table = tissue_table()
    result = torch.zeros(SHAPE, dtype=torch.uint8)
    middle = Path(np.array([[0.0, 0.0, -60.0], [0.0, 0.0, 480.0]]))
    legs = Rod(middle, -60, 480, (140, 140), flat=(1.0, 0.45))
    for side, mirror in ((Side.RIGHT, MIRROR), (Side.LEFT, np.ones(3))):
        shaft = Path(np.array([KNEE, [120.0, 4.0, 330.0], [126.0, 10.0, 395.0]]) * mirror)
        bones: list[tuple[Solid, str]] = [
            (legs, "gluteus_maximus"),
            (Ball((HIP + np.array([-12.0, 0, 12])) * mirror, 34.0), "ilium"),
            (Rod(shaft, 0, 50, (32, 22)), "femur"),
            (Rod(shaft, 50, 400, (15, 16)), "femur"),
            (Cone(shaft.at(370.0), HIP * mirror, (18, 15)), "femur"),
            (Ball(HIP * mirror, 23.0), "femur"),
            (Rod(shaft, 40, 330, (8, 8)), "femur_marrow"),
        ]
        for solid, key in bones:
            box = space().box(solid)
            inside = solid.inside(space().axes(box))
            if key == "gluteus_maximus":
                inside = inside & (space().axes(box)[2] * mirror[0] > 0)
            result[box].masked_fill_(inside, table.code(key, side))
    return result


def bone(codes: torch.Tensor, keys: tuple[str, ...]) -> torch.Tensor:
    return torch.from_numpy(tissue_table().is_one_of(*keys))[codes.long()]


def put(codes: torch.Tensor, kind: str, side: Side = Side.LEFT, seed: int = 0) -> Implanted:
    hu = torch.full(codes.shape, 40.0)
    return implant(hu, codes, GRID, JOINTS, (Implant(kind, side, METAL_HU, seed),))


@pytest.mark.parametrize("kind", list(KINDS))
@given(seed=st.integers(0, 2**31), side=st.sampled_from(list(Side)))
@settings(max_examples=4, deadline=None)
def test_metal_is_on_its_side_and_displaces_no_bone_that_it_replaces(
    codes: torch.Tensor, kind: str, seed: int, side: Side
) -> None:
    found = put(codes, kind, side, seed)
    volume_cm3 = float(found.metal.sum()) * SPACING_MM**3 / 1000
    assert 2 < volume_cm3 < 150
    x = GRID.to_patient(found.metal.nonzero().double().numpy())[:, 0]
    assert ((x < 0) == (side is Side.RIGHT)).all()
    assert (found.hu[found.metal] == METAL_HU).all()
    bones = bone(codes, (*FEMUR, *HIP_BONE))
    assert not (found.displaced & found.metal & bones).any()
    assert ((found.metal & ~bones) <= found.displaced).all()


@pytest.mark.parametrize(
    ("kind", "least"), [("nail", 0.8), ("half_hip", 0.8), ("neck_screws", 0.7), ("total_hip", 0.45)]
)
def test_metal_lies_in_the_femur(codes: torch.Tensor, kind: str, least: float) -> None:
    found = put(codes, kind)
    inside = found.metal & bone(codes, FEMUR)
    assert float(inside.sum() / found.metal.sum()) > least


def test_a_nail_follows_the_shaft(codes: torch.Tensor) -> None:
    metal, femur = put(codes, "nail").metal, bone(codes, FEMUR)
    femur[..., : SHAPE[2] // 2] = False
    levels = [plane for plane in range(SHAPE[0]) if metal[plane].any() and plane * SPACING_MM - 60 < 320]
    assert len(levels) > 20
    for plane in levels[14:]:  # above the locks
        nail, shaft = (mask[plane].nonzero().double().mean(0) * SPACING_MM for mask in (metal, femur))
        assert float((nail - shaft).norm()) < 4


def test_a_plate_lies_outside_the_bone(codes: torch.Tensor) -> None:
    found = put(codes, "plate")
    assert float((found.metal & bone(codes, FEMUR)).sum() / found.metal.sum()) < 0.6
    assert found.displaced.any()


def test_a_cup_replaces_hip_bone_and_head_and_neck_are_gone(codes: torch.Tensor) -> None:
    found = put(codes, "total_hip")
    assert (found.metal & bone(codes, HIP_BONE)).sum() > 50
    sawn = found.displaced & bone(codes, FEMUR)
    assert sawn.sum() > 100
    assert not (sawn & found.metal).any()
    z = GRID.to_patient(sawn.nonzero().double().numpy())[:, 2]
    assert z.min() > 340


def test_what_was_there_is_not_changed_and_seeds_repeat(codes: torch.Tensor) -> None:
    hu = torch.full(codes.shape, 40.0)
    draw = (Implant("nail", Side.RIGHT, METAL_HU, 3), Implant("total_hip", Side.LEFT, METAL_HU, 4))
    once, again = (implant(hu, codes, GRID, JOINTS, draw) for _ in range(2))
    assert (hu == 40).all()
    assert torch.equal(once.hu, again.hu) and torch.equal(once.metal, again.metal)
    assert torch.equal(once.displaced, again.displaced)


def test_a_body_without_femur_is_refused(codes: torch.Tensor) -> None:
    with pytest.raises(VolumeError, match="femur"):
        implant(torch.zeros(SHAPE), torch.zeros_like(codes), GRID, JOINTS, (Implant("nail", Side.LEFT, 4000.0, 0),))


def test_a_third_of_the_patients_have_implants_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_implants(rng) for _ in range(600)]
    assert np.mean([bool(each) for each in drawn]) == pytest.approx(SHARE_WITH_IMPLANT, abs=0.06)
    assert {each.kind for each in sum(drawn, ())} == set(KINDS)
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("solid", "volume_mm3"),
    [
        (Ball(np.zeros(3), 20.0), 4 / 3 * np.pi * 20**3),
        (Cone(np.array([-20.0, -10, 0]), np.array([20.0, 10, 30]), (8.0, 8.0)), np.pi * 64 * np.sqrt(2900)),
        (Bowl(np.zeros(3), 15.0, 25.0, np.array([0.6, 0.0, 0.8])), 2 / 3 * np.pi * (25**3 - 15**3)),
        (Rod(Path(np.array([[0.0, 0, -30], [10, 5, 30]])), -30, 30, (10, 10), flat=(1.0, 0.5)), np.pi * 50 * 60),
    ],
)
def test_solids_have_their_volume(solid: Solid, volume_mm3: float) -> None:
    fine = Space((100, 100, 100), 1.0, np.full(3, -49.5), torch.device("cpu"))
    box = fine.box(solid)
    assert float(solid.inside(fine.axes(box)).sum()) == pytest.approx(volume_mm3, rel=0.03)


def test_a_solid_outside_the_grid_has_no_voxels() -> None:
    small = Space((10, 10, 10), 1.0, np.zeros(3), torch.device("cpu"))
    ball = Ball(np.array([50.0, 5.0, -40.0]), 5.0)
    assert ball.inside(small.axes(small.box(ball))).numel() == 0
