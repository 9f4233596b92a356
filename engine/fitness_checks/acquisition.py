"""Flags from how the scan was made: position of the patient, slices, contrast medium, kernel, age."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from engine.fitness_checks.levels import steps_mm
from engine.flags import Flag, flag_of
from engine.volume import Grid

THICK_SLICE_MM = 5.0
"""Thicker slices blur muscle and fat along the thigh; Kreher 2022 measured on 5 mm."""
LARGEST_TURN_DEG = 45.0
"""Beyond this a patient on the back lies nearer to another side: half of the right angle between two positions."""

POSITIONS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "HFS": ("on the back, head first", 0.0),
        "FFS": ("on the back, feet first", 0.0),
        "HFP": ("on the front, head first", 180.0),
        "FFP": ("on the front, feet first", 180.0),
        "HFDR": ("on the right side, head first", 90.0),
        "FFDR": ("on the right side, feet first", 90.0),
        "HFDL": ("on the left side, head first", 90.0),
        "FFDL": ("on the left side, feet first", 90.0),
    }
)
"""Patient Position (0018,5100) in words, and the turn about the body's length from supine in degrees."""

_DOWN: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {"S": (0.0, 1.0, 0.0), "P": (0.0, -1.0, 0.0), "DR": (-1.0, 0.0, 0.0), "DL": (1.0, 0.0, 0.0)}
)
"""Where gravity points in the patient (LPS), by the end of the term; PS3.3 C.7.3.1.1.2."""


@dataclass(frozen=True)
class Acquisition:
    """What the header says of how the scan was made.

    Attributes:
        position: Patient Position (0018,5100), as `HFS`; None where it is not stated.
        erect: whether the header says that the patient stood.
        thickness_mm: of a slice; None where it is not stated.
        contrast: whether a contrast medium is stated.
        sharp_kernel: whether the reconstruction kernel is known to be a sharp one.
        age_years: of the patient; None where it is not stated.
        population_years: lowest and highest age that the model is for; None where it names none.
    """

    position: str | None = None
    erect: bool = False
    thickness_mm: float | None = None
    contrast: bool = False
    sharp_kernel: bool = False
    age_years: float | None = None
    population_years: tuple[float, float] | None = None


def acquisition_flags(acquisition: Acquisition, grid: Grid) -> Iterator[Flag | None]:
    """Every check of this module."""
    yield not_supine(acquisition, grid)
    yield position_conflict(acquisition, grid)
    yield thick_slices(acquisition, grid)
    yield contrast_medium(acquisition)
    yield age_outside(acquisition)
    yield sharp_kernel(acquisition)


def not_supine(acquisition: Acquisition, grid: Grid) -> Flag | None:
    """Whether the patient lay otherwise than on the back, or stood; where nothing is stated, what the images show."""
    if acquisition.erect:
        return flag_of("not_supine", "The patient stood during the scan.")
    if acquisition.position is not None and acquisition.position in POSITIONS:
        words, turn_deg = POSITIONS[acquisition.position]
        if turn_deg <= LARGEST_TURN_DEG:
            return None
        return flag_of("not_supine", f"The patient lay {words}: turned by {turn_deg:.0f} degrees.", turn_deg)
    turn_deg = _angle_deg(grid, _DOWN["S"])
    if turn_deg <= LARGEST_TURN_DEG:
        return None
    words = f"The position is not stated, and the images are turned by {turn_deg:.0f} degrees from supine."
    return flag_of("not_supine", words, turn_deg)


def position_conflict(acquisition: Acquisition, grid: Grid) -> Flag | None:
    """Whether the columns of the images run elsewhere than gravity does in the stated position.

    They do in images that were turned or mirrored after the scan, which is allowed, and where the position is wrong.
    """
    if acquisition.position is None or acquisition.position not in POSITIONS:
        return None
    angle_deg = _angle_deg(grid, _DOWN[acquisition.position[2:]])
    if angle_deg <= LARGEST_TURN_DEG:
        return None
    words = f"Stated position {acquisition.position} and orientation of the images differ by {angle_deg:.0f} degrees."
    return flag_of("position_conflict", words, angle_deg)


def thick_slices(acquisition: Acquisition, grid: Grid) -> Flag | None:
    """Whether slices are thicker, or further apart, than `THICK_SLICE_MM`."""
    largest_mm = max(acquisition.thickness_mm or 0.0, float(steps_mm(grid).max()))
    if largest_mm <= THICK_SLICE_MM + 0.01:  # positions are decimal strings
        return None
    return flag_of("thick_slices", f"The slices are {largest_mm:.1f} mm thick or apart.", largest_mm)


def contrast_medium(acquisition: Acquisition) -> Flag | None:
    """Whether a contrast medium is stated: attenuation and fat depend on it."""
    return flag_of("contrast_medium", "The scan was made with a contrast medium.") if acquisition.contrast else None


def age_outside(acquisition: Acquisition) -> Flag | None:
    """Whether the patient is younger or older than those whom the model is for."""
    age, population = acquisition.age_years, acquisition.population_years
    if age is None or population is None or population[0] <= age <= population[1]:
        return None
    words = f"The patient is {age:.0f} years old; the model is for {population[0]:.0f} to {population[1]:.0f} years."
    return flag_of("age_outside", words, age)


def sharp_kernel(acquisition: Acquisition) -> Flag | None:
    """Whether the kernel is a sharp one, as for bone: it raises noise and shifts attenuation at edges."""
    words = "The images were made with a sharp reconstruction kernel."
    return flag_of("sharp_kernel", words) if acquisition.sharp_kernel else None


def _angle_deg(grid: Grid, down: tuple[float, float, float]) -> float:
    """Angle between the direction down the columns and a direction in the patient, across the body's length."""
    column = grid.affine[:2, 1]
    length = float(np.linalg.norm(column))
    if length < 0.5 * grid.spacing_mm[1]:  # columns run along the body: coronal or sagittal images
        return 0.0
    return float(np.rad2deg(np.arccos(np.clip(column @ np.array(down[:2]) / length, -1.0, 1.0))))
