"""Arms: in air only, beside or on the body, bones inside, the same place whatever part of the scan is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from engine.synthesis.arms import SHARE, Arm, arm_image, arm_stock, draw_arms
from engine.synthesis.raster import Raster
from engine.synthesis.surroundings import in_air

PLACES = Raster(torch.zeros(40, 80, 130), (8.0, 4.0, 4.0), (100.0, -200.0, -258.0))
BESIDE = Arm(0, 1, False, 200.0, 60.0, 0.3, 20.0, 4.0, 90.0, (1.0, 1.0), 0.0)
ON = replace(BESIDE, on=True, twist_deg=180.0)
ARMS = (BESIDE, ON, replace(BESIDE, side=-1, number=1, twist_deg=170.0), replace(ON, side=-1, number=2))


def body() -> Raster:
    """Two legs that become one trunk; nobody is so simple."""
    z, y, x = (axis.view(shape) for axis, shape in zip(PLACES.axes_mm, ((-1, 1, 1), (-1, 1), (-1,)), strict=True))
    legs = ((x.abs() - 85) / 80).square() + (y / 80).square() < 1
    trunk = (x / 165).square() + (y / 100).square() < 1
    return PLACES.filled(torch.where(torch.where(z < 260, legs, trunk), 40.0, -1000.0))


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_lies_outside_the_body_and_touches_it_nearly(arm: Arm) -> None:
    around = body()
    image = arm_image((arm,), around, PLACES)
    there = image > -400
    assert there.sum() * 128 > 200_000
    assert (there & (around.values > -400)).float().sum() < 0.01 * there.float().sum()
    away = distance_transform_edt(around.values.numpy() < -400, sampling=(8, 4, 4))
    assert away[there.numpy()].min() < 30


@pytest.mark.parametrize("arm", ARMS)
def test_it_is_drawn_into_air_only(arm: Arm) -> None:
    filled = body().values
    around = torch.full_like(filled, 500.0)
    assert torch.equal(in_air(filled.clone(), around)[filled > -100], filled[filled > -100])
    image = arm_image((arm,), body(), PLACES)
    both = in_air(filled.clone(), image)
    assert torch.equal(both[filled > -100], filled[filled > -100])
    assert torch.allclose(both[filled < -999], image[filled < -999], atol=0.1)


def test_an_arm_lies_on_its_side_and_where_it_is_told() -> None:
    z, y, x = (axis.numpy() for axis in PLACES.axes_mm)
    for arm in ARMS:
        levels, rows, columns = np.nonzero((arm_image((arm,), body(), PLACES) > -400).numpy())
        assert arm.side * np.median(x[columns]) > 60
        assert z[levels.min()] >= arm.fingertips_mm - 8
        if arm.on:
            assert np.median(y[rows]) < -60


@pytest.mark.parametrize("number", range(3))
def test_bones_lie_inside_the_flesh(number: int) -> None:
    model = arm_stock("cpu")[number]
    hu = model.values.numpy()
    deep = distance_transform_edt(hu > -400, sampling=model.spacing_mm)
    bone = hu > 400
    level_of_forearm = int((330 - model.first_mm[0]) / model.spacing_mm[0])
    assert bone[level_of_forearm].any()
    assert (deep[bone] > 2.5).mean() > 0.98
    assert not (hu[0] > -400).any()
    flesh, fat = (hu > 0) & (hu < 150), (hu > -150) & (hu < -50)
    assert flesh[level_of_forearm].sum() > fat[level_of_forearm].sum() > 0


def test_a_part_of_the_scan_shows_the_same_arm() -> None:
    survey, whole = body(), arm_image(ARMS[:2], body(), PLACES)
    part = Raster(torch.zeros(12, 30, 60), PLACES.spacing_mm, (228.0, -100.0, 2.0))
    cut = whole[16:28, 25:55, 65:125]
    assert (cut > -400).any()
    assert torch.allclose(arm_image(ARMS[:2], survey, part), cut, atol=1.0)


def test_the_order_of_slices_does_not_matter() -> None:
    turned = Raster(torch.zeros(40, 80, 130), (-8.0, 4.0, 4.0), (412.0, -200.0, -258.0))
    image = arm_image((BESIDE,), body(), turned)
    assert torch.allclose(image.flip(0), arm_image((BESIDE,), body(), PLACES), atol=1.0)


def test_without_a_body_or_arms_nothing_breaks() -> None:
    empty = PLACES.filled(torch.full((40, 80, 130), -1000.0))
    assert (arm_image((), body(), PLACES) == -1000).all()
    assert torch.isfinite(arm_image(ARMS, empty, PLACES)).all()


def test_arms_are_drawn_as_often_as_told_and_again_the_same() -> None:
    draws = [draw_arms(np.random.default_rng(seed)) for seed in range(800)]
    assert draws[:20] == [draw_arms(np.random.default_rng(seed)) for seed in range(20)]
    assert np.mean([bool(arms) for arms in draws]) == pytest.approx(SHARE, abs=0.06)
    found = [arm for arms in draws for arm in arms]
    assert {arm.side for arm in found} == {-1, 1} and {arm.on for arm in found} == {False, True}
    assert all(len({arm.side for arm in arms}) == len(arms) <= 2 for arms in draws)
