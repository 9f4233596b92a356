from __future__ import annotations

import math

import pytest

from engine.indices import height_index_cm3_per_m2


def test_the_index_is_volume_over_height_squared() -> None:
    assert height_index_cm3_per_m2(1156.0, 1.7) == pytest.approx(400.0)
    assert height_index_cm3_per_m2(0.0, 1.7) == 0.0


def test_without_a_height_there_is_no_index() -> None:
    assert height_index_cm3_per_m2(1156.0, None) is None


@pytest.mark.parametrize(("volume", "height"), [(1.0, 0.0), (1.0, -1.7), (1.0, math.nan), (-1.0, 1.7), (math.inf, 1.7)])
def test_what_is_no_measure_is_refused(volume: float, height: float) -> None:
    with pytest.raises(ValueError, match=r"volume of|height of"):
        height_index_cm3_per_m2(volume, height)
