from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SideError
from engine.labels import thigh29
from engine.resample import PATIENT_AXES
from engine.sides import find_mid_plane, number_sides
from engine.volume import Grid

FEMUR = thigh29().structure("femur").value
GRACILIS = thigh29().structure("gracilis").value
RECTUS = thigh29().structure("rectus_abdominis").value


def patient_grid() -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES * (5.0, 3.0, 3.0)
    affine[:3, 3] = (-195.0, -90.0, -400.0)
    return Grid((80, 60, 130), affine)


GRID = patient_grid()
POINTS = GRID.to_patient(np.moveaxis(np.indices(GRID.shape), 0, -1).astype(np.float64))


def rod(x_mm: np.ndarray, y_mm: float, radius_mm: float, levels_mm: tuple[float, float]) -> np.ndarray:
    near = np.hypot(POINTS[..., 0] - x_mm, POINTS[..., 1] - y_mm) < radius_mm
    return np.asarray(near & (POINTS[..., 2] > levels_mm[0]) & (POINTS[..., 2] < levels_mm[1]))


@settings(max_examples=15, deadline=None)
@given(
    middle_mm=st.floats(-40, 40),
    lean=st.floats(-0.15, 0.15),
    half_mm=st.floats(55, 110),
    converge=st.floats(0.0, 0.1),
)
def test_each_leg_gets_its_side_however_the_patient_lies(
    middle_mm: float, lean: float, half_mm: float, converge: float
) -> None:
    z = POINTS[..., 2] + 200
    legs = {side: middle_mm + lean * z + sign * (half_mm + converge * z) for side, sign in (("right", -1), ("left", 1))}
    classes = np.zeros(GRID.shape, dtype=np.uint8)
    truth = np.zeros(GRID.shape, dtype=np.uint8)
    for left, middle in enumerate(legs.values()):
        inner = middle + (0.6 if left == 0 else -0.6) * (half_mm + converge * z)
        for value, mask in ((GRACILIS, rod(inner, 20, 9, (-390, -80))), (FEMUR, rod(middle, 0, 14, (-380, -60)))):
            classes[mask] = value
            truth[mask] = 2 * value - 1 + left
    assert np.array_equal(number_sides(classes, GRID, thigh29()), truth)


def test_a_part_that_joins_both_sides_is_cut_and_one_that_reaches_over_is_not() -> None:
    classes = np.zeros(GRID.shape, dtype=np.uint8)
    classes[rod(np.array(-80.0), 0, 14, (-400, -100)) | rod(np.array(80.0), 0, 14, (-400, -100))] = FEMUR
    classes[70:75, 5:10, 35:95] = RECTUS  # x from -90 to 87 mm
    classes[60:65, 40:45, 40:68] = GRACILIS  # x from -75 to 6 mm
    numbers = number_sides(classes, GRID, thigh29())
    assert set(numbers[70:75, 5:10, 35:65].ravel()) == {2 * RECTUS - 1}
    assert set(numbers[70:75, 5:10, 66:95].ravel()) == {2 * RECTUS}
    assert set(numbers[60:65, 40:45, 40:68].ravel()) == {2 * GRACILIS - 1}


def test_femora_joined_in_some_levels_still_tell_the_sides() -> None:
    femora = rod(np.array(-80.0), 0, 14, (-400, -100)) | rod(np.array(80.0), 0, 14, (-400, -100))
    femora[10, 30, 38:92] = True
    plane = find_mid_plane(femora, GRID)
    assert plane.is_left(np.array([[-5.0, 0, -200], [5.0, 0, -200]])).tolist() == [False, True]


STRAYS = {  # x of the two middles, radius, levels; mm
    "a part of the hip bone on each side, over a third of the levels": (-170.0, 0.0, 12.0, (-150.0, -20.0)),
    "the same below": (-170.0, 0.0, 12.0, (-400.0, -290.0)),
    "crumbs far out, at every other level": (-180.0, -150.0, 7.0, (-400.0, -150.0)),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_stray_bones_do_not_move_the_plane(stray: str) -> None:
    one_mm, two_mm, radius_mm, levels_mm = STRAYS[stray]
    below = stray == "the same below"
    levels = (-290.0, -20.0) if below else (-400.0, -150.0)
    femora = rod(np.array(-80.0), 0, 14, levels) | rod(np.array(80.0), 0, 14, levels)
    strays = rod(np.array(one_mm), 0, radius_mm, levels_mm) | rod(np.array(two_mm), 0, radius_mm, levels_mm)
    if stray.startswith("crumbs"):
        strays[::2] = False
    plane = find_mid_plane(femora | strays, GRID)
    heights = np.array([-390.0, -250.0, -20.0])
    assert plane.is_left(np.stack([np.full(3, -6.0), np.zeros(3), heights], axis=-1)).tolist() == [False] * 3
    assert plane.is_left(np.stack([np.full(3, 6.0), np.zeros(3), heights], axis=-1)).tolist() == [True] * 3
    assert levels[0] - 5 <= plane.lowest_mm < plane.highest_mm <= levels[1] + 5


@pytest.mark.parametrize("bones", ["none", "one leg", "one broken leg", "one leg, head and trochanter"])
def test_without_two_femora_there_are_no_sides(bones: str) -> None:
    classes = np.zeros(GRID.shape, dtype=np.uint8)
    if bones != "none":
        classes[rod(np.array(80.0), 0, 14, (-400, -100))] = FEMUR
    if bones == "one broken leg":
        classes[30:34] = 0
    if bones == "one leg, head and trochanter":
        classes[rod(np.array(5.0), 0, 20, (-120, -90))] = FEMUR
    with pytest.raises(SideError, match="two femora"):
        number_sides(classes, GRID, thigh29())
