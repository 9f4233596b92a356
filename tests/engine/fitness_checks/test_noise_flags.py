from __future__ import annotations

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.fitness_checks.noise import noise_flags, tissues
from engine.flags import Flag
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.volume import Volume

GRID = plain_grid((12, 48, 64), (4.0, 3.0, 3.0))


def scan(sd_hu: float, muscle_hu: float = 50.0) -> tuple[Volume, Segmentation]:
    """A block of one muscle in fat, in air."""
    hu = np.full(GRID.shape, -1000.0)
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    hu[:, 6:42, 6:58] = -100.0
    hu[:, 15:33, 15:48], labels[:, 15:33, 15:48] = muscle_hu, 5
    hu += np.random.default_rng(1).normal(0, sd_hu, hu.shape)
    return Volume(hu.round().astype(np.int16), GRID), Segmentation(labels, GRID, thigh29())


def found(sd_hu: float, muscle_hu: float = 50.0) -> dict[str, Flag]:
    return {flag.code: flag for flag in noise_flags(*scan(sd_hu, muscle_hu)) if flag is not None}


def test_mean_and_noise_of_muscle_and_fat_are_those_of_the_scan() -> None:
    muscle, fat = tissues(*scan(12.0))
    assert muscle is not None and fat is not None
    assert (muscle.mean_hu, fat.mean_hu) == pytest.approx((50, -100), abs=2)
    assert (muscle.sd_hu, fat.sd_hu) == pytest.approx((12, 12), rel=0.1)


@pytest.mark.parametrize(
    ("sd_hu", "muscle_hu", "expected"),
    [
        (12.0, 50.0, set()),
        (24.0, 60.0, set()),
        (24.0, -20.0, {"low_contrast"}),
        (50.0, 50.0, {"noise", "low_contrast"}),
    ],
)
def test_noise_and_contrast(sd_hu: float, muscle_hu: float, expected: set[str]) -> None:
    flags = found(sd_hu, muscle_hu)
    assert set(flags) == expected
    if "noise" in flags:
        assert flags["noise"].number == pytest.approx(sd_hu, rel=0.15)
    if "low_contrast" in flags:
        assert flags["low_contrast"].number == pytest.approx((muscle_hu + 100) / sd_hu, rel=0.15)


def test_where_nothing_can_be_measured_nothing_is_said() -> None:
    volume, segmentation = scan(50.0)
    empty = Segmentation(np.zeros_like(segmentation.labels), GRID, thigh29())
    air = Volume(np.full(GRID.shape, -1000, dtype=np.int16), GRID)
    assert tissues(volume, empty)[0] is None
    assert list(noise_flags(air, empty)) == [None, None]
