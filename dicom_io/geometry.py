"""Where the slices of a series lie in the patient, from position and orientation alone (PS3.3 C.7.6.2).

Neither PatientPosition, InstanceNumber nor SliceLocation takes part: they are labels, and scanners disagree on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dicom_io.checks import Headers, SeriesRules, name_of, numbers
from dicom_io.errors import Refusal
from engine.volume import FloatArray, Grid

# Two slices nearer than this are at the same place: no scanner reconstructs that finely.
SAME_PLACE_MM = 0.01
# How far a slice may lie from its place in the regular stack, along the normal. Some scanners round positions to
# 0.1 mm; 5 % of a spacing changes the share of one slice in a volume by as much, and that of a muscle by far less.
PLACE_TOLERANCE_MM = 0.1
PLACE_TOLERANCE = 0.05
# How far a slice may be displaced sideways: a quarter of a pixel of usual size.
SIDEWAYS_TOLERANCE_MM = 0.2
# Gantries tilt in steps of 0.5 degrees. Below this the grid keeps the tiny shear; a thigh is 0.9 mm askew over 500 mm.
TILT_TOLERANCE_DEG = 0.1


@dataclass(frozen=True, eq=False)
class Stack:
    """The slices of one series sorted along their normal.

    Attributes:
        headers: the sorted headers.
        row_direction: unit vector along a row (increasing column index), LPS.
        column_direction: unit vector down a column (increasing row index), LPS.
        positions: [slice, 3] centres of the first voxels, LPS mm.
    """

    headers: Headers
    row_direction: FloatArray
    column_direction: FloatArray
    positions: FloatArray

    @cached_property
    def normal(self) -> FloatArray:
        """Unit vector along which the slices are sorted, LPS."""
        normal = np.cross(self.row_direction, self.column_direction)
        return np.asarray(normal / np.linalg.norm(normal))

    @cached_property
    def gaps_mm(self) -> FloatArray:
        """Distance from each slice to the next along the normal, mm."""
        return np.asarray(np.diff(self.positions @ self.normal))

    @cached_property
    def spacing_mm(self) -> float:
        """The spacing that most slices keep, mm."""
        middle = np.sort(self.gaps_mm)[(len(self.gaps_mm) - 1) // 2]
        return float(self.gaps_mm[np.abs(self.gaps_mm - middle) <= 0.2 * middle].mean())

    @cached_property
    def tolerance_mm(self) -> float:
        """How far a slice may lie from its place, mm."""
        return max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE * self.spacing_mm)

    @cached_property
    def step(self) -> FloatArray:
        """Vector from one slice to the next in the regular stack, LPS mm."""
        return np.asarray((self.positions[-1] - self.positions[0]) / (len(self.positions) - 1))


def stack_of(headers: Headers) -> Stack:
    """Sort the headers along the normal; they must have passed `HEADER_CHECKS`, and be at least two."""
    orientation = np.array(numbers(headers[0], "ImageOrientationPatient", 6)).reshape(2, 3)
    positions = np.array([numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(positions @ np.cross(*orientation), kind="stable")
    row, column = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    return Stack(tuple(headers[index] for index in order), row, column, positions[order])


def grid_of(stack: Stack) -> Grid:
    """The grid of a stack that passed `refusal_of`; slice 0 is the lowest along the normal.

    The first value of PixelSpacing is the distance between rows, the second that between columns (PS3.3 10.7.1.3).
    """
    first = stack.headers[0]
    spacing = numbers(first, "PixelSpacing", 2) or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0] = stack.step
    affine[:3, 1] = stack.column_direction * spacing[0]
    affine[:3, 2] = stack.row_direction * spacing[1]
    affine[:3, 3] = stack.positions[0]
    return Grid((len(stack.headers), int(first.Rows), int(first.Columns)), affine)


def refusal_of(stack: Stack, rules: SeriesRules) -> Refusal | None:
    """Why these slices are no regular, straight and long enough stack; None where they are."""
    return (
        _duplicates(stack)
        or _short_coverage(stack, rules)
        or _tilt(stack)
        or _missing_or_irregular(stack)
        or _displaced(stack)
    )


def _duplicates(stack: Stack) -> Refusal | None:
    same = np.flatnonzero(stack.gaps_mm < SAME_PLACE_MM)
    if not len(same):
        return None
    reason = (
        f"{len(same)} slices lie where another one lies, first {name_of(stack.headers[same[0]])} and "
        f"{name_of(stack.headers[same[0] + 1])}: it holds several scans or phases of the same place"
    )
    return Refusal("duplicate_positions", reason, "Send each scan or phase as a series of its own")


def _short_coverage(stack: Stack, rules: SeriesRules) -> Refusal | None:
    coverage = float(stack.gaps_mm.sum()) + stack.spacing_mm
    if coverage >= rules.min_coverage_mm:
        return None
    reason = f"it covers {coverage:.0f} mm of the body, and at least {rules.min_coverage_mm:.0f} mm are needed"
    return Refusal("short_coverage", reason, "Send the series that covers the thighs")


def _tilt(stack: Stack) -> Refusal | None:
    way = stack.positions[-1] - stack.positions[0]
    along = float(way @ stack.normal)
    sideways = float(np.linalg.norm(way - along * stack.normal))
    angle = math.degrees(math.atan2(sideways, along))
    if angle <= TILT_TOLERANCE_DEG or sideways <= SIDEWAYS_TOLERANCE_MM:
        return None
    reason = f"the gantry was tilted by {angle:.1f} degrees, so that its slices do not lie squarely above each other"
    return Refusal("gantry_tilt", reason, "Send a reconstruction without tilt")


def _missing_or_irregular(stack: Stack) -> Refusal | None:
    counts = np.rint(stack.gaps_mm / stack.spacing_mm)
    away = np.abs(stack.gaps_mm - counts * stack.spacing_mm)
    if (away > stack.tolerance_mm).any() or (counts < 1).any():
        return _irregular(stack)
    if (counts > 1).any():
        return _missing(stack, counts)
    regular = np.arange(len(stack.positions)) * float(stack.step @ stack.normal)
    found = (stack.positions - stack.positions[0]) @ stack.normal
    return _irregular(stack) if np.abs(found - regular).max() > stack.tolerance_mm else None


def _missing(stack: Stack, counts: NDArray[np.float64]) -> Refusal:
    gaps = np.flatnonzero(counts > 1)
    below, above = (name_of(stack.headers[gaps[0] + offset]) for offset in (0, 1))
    reason = (
        f"{int((counts - 1).sum())} slices are missing in {len(gaps)} places, first between {below} and {above}, which "
        f"lie {stack.gaps_mm[gaps[0]]:.2f} mm apart where the others lie {stack.spacing_mm:.2f} mm apart"
    )
    return Refusal("missing_slices", reason, "Send the missing slices, or the whole series again")


def _irregular(stack: Stack) -> Refusal:
    reason = f"the distance of its slices varies from {stack.gaps_mm.min():.2f} to {stack.gaps_mm.max():.2f} mm"
    return Refusal("irregular_spacing", reason, "Send a reconstruction with one slice distance")


def _displaced(stack: Stack) -> Refusal | None:
    regular = stack.positions[0] + np.arange(len(stack.positions))[:, None] * stack.step
    away = stack.positions - regular
    sideways = np.linalg.norm(away - np.outer(away @ stack.normal, stack.normal), axis=1)
    if sideways.max() <= SIDEWAYS_TOLERANCE_MM:
        return None
    worst = stack.headers[int(sideways.argmax())]
    reason = f"{name_of(worst)} is displaced sideways by {sideways.max():.1f} mm against the other slices"
    return Refusal("not_a_volume", reason, "Send the slices of one reconstruction as one series")
