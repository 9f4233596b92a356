"""Where slices lie: from positions alone, steps and tilt as they are; gaps and disorder refused in people's words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset

from dicom_io.checks import SeriesRules
from dicom_io.errors import Refusal
from dicom_io.geometry import Stack, grid_of, refusal_of, stack_of

ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)


def stack(steps_mm: Sequence[float], tilt_deg: float = 0.0, sideways_mm: dict[int, float] | None = None) -> Stack:
    """Axial slices with these distances along their normal, the gantry tilted about the patient's left-right axis."""
    heights = np.concatenate([[0.0], np.cumsum(steps_mm)])
    turn = np.deg2rad(tilt_deg)
    down, normal = np.array([0, np.cos(turn), np.sin(turn)]), np.array([0, -np.sin(turn), np.cos(turn)])
    headers = []
    for k, height in enumerate(heights):
        header = FileDataset("slice.dcm", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
        place = np.array([0, 0, height / np.cos(turn)]) + np.array([(sideways_mm or {}).get(k, 0.0), 0, 0])
        header.ImagePositionPatient = [float(f"{value:.9g}") for value in place]
        header.ImageOrientationPatient = [1, 0, 0, *(float(f"{value:.9g}") for value in down)]
        header.PixelSpacing, header.Rows, header.Columns, header.InstanceNumber = [0.8, 0.7], 6, 5, k + 1
        headers.append(header)
    made = stack_of(headers[::-1])
    assert made.normal @ normal == pytest.approx(1)
    return made


def refused(*arguments: object, **named: object) -> Refusal:
    refusal = refusal_of(stack(*arguments, **named), ANY)  # type: ignore[arg-type]
    assert refusal is not None and refusal.remedy
    return refusal


BLOCKS = [
    [2.0] * 4 + [6.0] * 5 + [1.0] * 6,  # one paper's scans
    [4.002] * 13 + [1.081] + [6.999] * 13,  # a GE HiSpeed's blocks
    [2.0] * 3 + [4.0] + [6.0] * 3,
    [1.0] * 30 + [1.05] * 29,
    [3.0] * 3 + [1.5] * 3,
    [1.5] + [3.0] * 4,
]


@pytest.mark.parametrize("steps_mm", BLOCKS)
@pytest.mark.parametrize("tilt_deg", [0.0, 18.5, -29.9])
def test_slices_in_blocks_lie_where_they_are(steps_mm: list[float], tilt_deg: float) -> None:
    made = stack(steps_mm, tilt_deg)
    assert refusal_of(made, ANY) is None
    grid = grid_of(made)
    assert grid.uneven is not None and grid.uneven.axis == 0
    first_voxels = np.array([[k, 0.0, 0.0] for k in range(grid.shape[0])])
    np.testing.assert_allclose(grid.to_patient(first_voxels), made.positions, atol=1e-6)
    volumes = grid.voxel_volumes_mm3.ravel()
    assert volumes[0] == pytest.approx(0.8 * 0.7 * steps_mm[0], rel=1e-6)
    assert volumes[1] == pytest.approx(0.8 * 0.7 * (steps_mm[0] + steps_mm[1]) / 2, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(3, 8), st.floats(0.3, 10)), min_size=1, max_size=4), st.floats(-30, 30))
def test_any_blocks_at_any_tilt_are_taken(blocks: list[tuple[int, float]], tilt_deg: float) -> None:
    made = stack([step for count, step in blocks for _ in range(count)], tilt_deg)
    assert refusal_of(made, ANY) is None
    grid = grid_of(made)
    found = grid.to_patient(np.array([[k, 0.0, 0.0] for k in range(grid.shape[0])]))
    assert np.abs(found - made.positions).max() <= (1e-6 if grid.uneven is not None else made.tolerance_mm)


@pytest.mark.parametrize("tilt_deg", [0.3, 16.5, -30.0])
def test_a_tilted_gantry_is_a_sheared_regular_grid(tilt_deg: float) -> None:
    made = stack([2.5] * 9, tilt_deg)
    assert refusal_of(made, ANY) is None
    grid = grid_of(made)
    assert grid.uneven is None
    np.testing.assert_allclose(grid.affine[:3, 0], (0, 0, 2.5 / np.cos(np.deg2rad(tilt_deg))), atol=1e-6)
    assert grid.voxel_volume_mm3 == pytest.approx(2.5 * 0.8 * 0.7, rel=1e-6)


def test_more_than_a_gantry_can_tilt_is_refused() -> None:
    refusal = refused([2.5] * 9, 31.0)
    assert (refusal.code, "31.0 degrees" in refusal.reason, "30" in refusal.reason) == ("gantry_tilt", True, True)


@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
@pytest.mark.parametrize("steps_mm", [[5.0] * 8, [2.0] * 4 + [6.0] * 4])
def test_what_is_displaced_otherwise_than_by_tilt_is_no_volume(steps_mm: list[float], tilt_deg: float) -> None:
    refusal = refused(steps_mm, tilt_deg, {3: 1.0})
    assert (refusal.code, "image 4 is displaced sideways by 1.0 mm" in refusal.reason) == ("not_a_volume", True)


@pytest.mark.parametrize(
    ("steps_mm", "words"),
    [
        ([2.5] * 118 + [7.5] + [2.5] * 278, "slices 120 and 121 of 400 are missing, 2.5 mm each, counted from image 1"),
        ([5.0] * 4 + [10.0] + [5.0] * 4, "slice 6 of 11 is missing, 5 mm each"),
        ([5.0, 5.0, 15.0, 10.0, 5.0], "slices 4 and 5, 7 of 9 are missing, 5 mm each"),
        ([10.0] + [5.0] * 4, "slice 2 of 7 is missing"),
        ([2.0] * 3 + [12.0] + [6.0] * 3, "slice 5 of 9 is missing, 6 mm each"),
        ([1.0] * 3 + [20.0] + [1.0] * 3, "slices 5 to 23 of 27 are missing, 1 mm each"),
        (
            [2.0, 2.0, 2.0, 4.0] * 5 + [2.0],
            "slices 5, 10, 15 and 2 more in 2 other places of 27 are missing, 2 mm each",
        ),
    ],
)
def test_missing_slices_are_told_as_people_say_it(steps_mm: list[float], words: str) -> None:
    refusal = refused(steps_mm)
    assert refusal.code == "missing_slices"
    assert refusal.reason.startswith(words), refusal.reason


def test_a_gap_is_told_with_the_images_beside_it() -> None:
    assert "between image 4 and image 5" in refused([5.0] * 3 + [15.0] + [5.0] * 3, 10.0).reason


@pytest.mark.parametrize(
    "steps_mm",
    [
        [5.0, 5.0, 7.0, 3.0, 5.0, 5.0, 5.0],  # one slice out of place
        [2.0] * 3 + [9.0] + [6.0] * 3,  # more than either block's step, and no multiple
        [5.0] * 4 + [12.5] + [5.0] * 4,
        [2.0, 3.0, 4.0, 5.0, 6.0],
        [4.0, 5.0],
        [2.0] * 3 + [1.0, 1.0] + [2.0] * 3,  # two steps make no block
    ],
)
def test_disorder_is_refused(steps_mm: list[float]) -> None:
    refusal = refused(steps_mm)
    assert refusal.code == "irregular_spacing"
    assert f"varies from {min(steps_mm):.2f} to {max(steps_mm):.2f} mm" in refusal.reason


@pytest.mark.parametrize(
    ("steps_mm", "found"),
    [([12.0] * 5, "12.00 mm"), ([0.2] * 5, "0.20 mm"), ([2.0] * 4 + [11.0] * 4, "2.00 to 11.00 mm")],
)
def test_slices_too_far_apart_or_too_near_are_refused(steps_mm: list[float], found: str) -> None:
    refusal = refused(steps_mm)
    assert (refusal.code, found in refusal.reason, "0.3 to 10 mm" in refusal.reason) == ("slice_distance", True, True)


def test_the_coverage_of_uneven_slices_is_what_they_stand_for() -> None:
    made = stack([2.0] * 10 + [6.0] * 10)
    assert refusal_of(made, SeriesRules(2, 84.0)) is None
    refusal = refusal_of(made, SeriesRules(2, 84.5))
    assert refusal is not None and (refusal.code, "covers 84 mm" in refusal.reason) == ("short_coverage", True)
