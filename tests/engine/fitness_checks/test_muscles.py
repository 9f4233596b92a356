from __future__ import annotations

import pytest

from engine.fitness_checks.muscles import LEAST_SIDE_RATIO, muscle_flags
from engine.flags import Flag
from engine.labels import Side, thigh29
from engine.measure import Measurements, SegmentMeasurement


def found(right_ml: float, left_ml: float, truncated: frozenset[str] = frozenset()) -> dict[str, Flag]:
    rows = []
    for segment in thigh29().segments:
        ml = right_ml if segment.side is Side.RIGHT else left_ml
        cut = segment.structure.key in truncated
        rows.append(SegmentMeasurement(segment, round(ml), ml, 50.0, 10.0, cut))
    return {flag.code: flag for flag in muscle_flags(Measurements(tuple(rows))) if flag is not None}


def test_sides_alike_and_whole_raise_nothing() -> None:
    assert found(100.0, 100.0 * LEAST_SIDE_RATIO + 0.1) == {}


@pytest.mark.parametrize(("right", "left", "smaller"), [(60.0, 100.0, "right"), (100.0, 0.0, "left")])
def test_a_side_with_much_less_muscle_is_told(right: float, left: float, smaller: str) -> None:
    flag = found(right, left)["muscle_asymmetry"]
    assert flag.number == pytest.approx(min(right, left) / 100)
    assert f"{smaller} side" in flag.words


def test_what_is_cut_off_is_counted_and_not_compared() -> None:
    muscles = frozenset(structure.key for structure in thigh29().structures)
    flags = found(60.0, 100.0, muscles)
    assert set(flags) == {"truncated"}
    assert flags["truncated"].number == 2 * len(muscles)
    one = frozenset({"sartorius"})
    assert set(found(60.0, 100.0, one)) == {"truncated", "muscle_asymmetry"}
