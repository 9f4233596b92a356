"""Where the slices of a series lie in the patient, from position and orientation alone (PS3.3 C.7.6.2).

Neither PatientPosition, InstanceNumber nor SliceLocation takes part: they are labels, and scanners disagree on them.
The Standard bounds neither slice distance nor tilt; the limits below are ours (docs/decisions/0014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dicom_io.checks import Headers, SeriesRules, name_of, numbers
from dicom_io.errors import Refusal
from engine.volume import FloatArray, Grid, UnevenPlanes

# Two slices nearer than this are at the same place: no scanner reconstructs that finely.
SAME_PLACE_MM = 0.01
# How far a slice may lie from its place in the regular stack, along the normal. Some scanners round positions to
# 0.1 mm; 5 % of a spacing changes the share of one slice in a volume by as much, and that of a muscle by far less.
PLACE_TOLERANCE_MM = 0.1
PLACE_TOLERANCE = 0.05
# How far a slice may be displaced sideways from the straight line of its stack: a quarter of a pixel of usual size.
SIDEWAYS_TOLERANCE_MM = 0.2
# Gantries tilt by up to 30 degrees; beyond, the images are reformatted, or positions and orientation disagree.
LARGEST_TILT_DEG = 30.0
# Between slices further apart more of a muscle is guessed than seen; nearer ones no scanner of thighs makes.
LARGEST_STEP_MM, LEAST_STEP_MM = 10.0, 0.3
# Equal steps in a row that make a slice distance of its own; fewer may be slices that are missing or misplaced.
LEAST_RUN = 3
_GAPS_SHOWN = 3


def _tolerance_mm(spacing_mm: float) -> float:
    return max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE * spacing_mm)


@dataclass(frozen=True)
class Run:
    """Equal steps in a row: from `start` to before `stop` of `Stack.gaps_mm`, and their mean in mm."""

    start: int
    stop: int
    step_mm: float


@dataclass(frozen=True)
class _Gap:
    """Missing slices: the step that leads over them, how many they are, and how far apart."""

    step: int
    missing: int
    spacing_mm: float


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
    def heights_mm(self) -> FloatArray:
        """Distance of each slice from the first along the normal, mm."""
        return np.asarray((self.positions - self.positions[0]) @ self.normal)

    @cached_property
    def gaps_mm(self) -> FloatArray:
        """Distance from each slice to the next along the normal, mm."""
        return np.asarray(np.diff(self.positions @ self.normal))

    @cached_property
    def spacing_mm(self) -> float:
        """The spacing that most slices keep, mm; where it varies, that of the middle one."""
        middle = np.sort(self.gaps_mm)[(len(self.gaps_mm) - 1) // 2]
        return float(self.gaps_mm[np.abs(self.gaps_mm - middle) <= 0.2 * middle].mean())

    @cached_property
    def tolerance_mm(self) -> float:
        """How far a slice may lie from its place, mm."""
        return _tolerance_mm(self.spacing_mm)

    @cached_property
    def step(self) -> FloatArray:
        """Mean vector from one slice to the next, LPS mm; with a tilted gantry it does not run along the normal."""
        return np.asarray((self.positions[-1] - self.positions[0]) / (len(self.positions) - 1))

    @cached_property
    def is_regular(self) -> bool:
        """Whether every slice lies where one distance between all of them puts it."""
        counts = np.rint(self.gaps_mm / self.spacing_mm)
        away = np.abs(self.gaps_mm - self.spacing_mm)
        if (counts != 1).any() or (away > self.tolerance_mm).any():
            return False
        regular = np.arange(len(self.positions)) * float(self.step @ self.normal)
        return bool(np.abs(self.heights_mm - regular).max() <= self.tolerance_mm)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The steps in runs of equal ones."""
        runs: list[Run] = []
        for index, gap in enumerate(self.gaps_mm.tolist()):
            mean = float(self.gaps_mm[runs[-1].start : index].mean()) if runs else math.inf
            if runs and abs(gap - mean) <= _tolerance_mm(mean):
                start = runs[-1].start
                runs[-1] = Run(start, index + 1, float(self.gaps_mm[start : index + 1].mean()))
            else:
                runs.append(Run(index, index + 1, gap))
        return tuple(runs)


def stack_of(headers: Headers) -> Stack:
    """Sort the headers along the normal; they must have passed `HEADER_CHECKS`, and be at least two."""
    orientation = np.array(numbers(headers[0], "ImageOrientationPatient", 6)).reshape(2, 3)
    positions = np.array([numbers(header, "ImagePositionPatient", 3) for header in headers])
    order = np.argsort(positions @ np.cross(*orientation), kind="stable")
    row, column = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    return Stack(tuple(headers[index] for index in order), row, column, positions[order])


def grid_of(stack: Stack) -> Grid:
    """The grid of a stack that passed `refusal_of`; slice 0 is the lowest along the normal.

    A tilted gantry gives a sheared affine, a distance that varies uneven planes.

    The first value of PixelSpacing is the distance between rows, the second that between columns (PS3.3 10.7.1.3).
    """
    first = stack.headers[0]
    spacing = numbers(first, "PixelSpacing", 2) or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0] = stack.step
    affine[:3, 1] = stack.column_direction * spacing[0]
    affine[:3, 2] = stack.row_direction * spacing[1]
    affine[:3, 3] = stack.positions[0]
    shape = (len(stack.headers), int(first.Rows), int(first.Columns))
    if stack.is_regular:
        return Grid(shape, affine)
    return Grid(shape, affine, UnevenPlanes(0, stack.heights_mm / stack.heights_mm[-1] * (shape[0] - 1)))


def refusal_of(stack: Stack, rules: SeriesRules) -> Refusal | None:
    """Why these slices are no straight stack without gaps and long enough; None where they are."""
    return (
        _duplicates(stack)
        or _short_coverage(stack, rules)
        or _tilt(stack)
        or _missing_or_irregular(stack)
        or _step_limits(stack)
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
    ends_mm = stack.spacing_mm if stack.is_regular else float(stack.gaps_mm[0] + stack.gaps_mm[-1]) / 2
    coverage = float(stack.gaps_mm.sum()) + ends_mm
    if coverage >= rules.min_coverage_mm:
        return None
    reason = f"it covers {coverage:.0f} mm of the body, and at least {rules.min_coverage_mm:.0f} mm are needed"
    return Refusal("short_coverage", reason, "Send the series that covers the thighs")


def _tilt(stack: Stack) -> Refusal | None:
    way = stack.positions[-1] - stack.positions[0]
    along = float(way @ stack.normal)
    angle = math.degrees(math.atan2(float(np.linalg.norm(way - along * stack.normal)), along))
    if angle <= LARGEST_TILT_DEG + 0.05:
        return None
    reason = f"the gantry was tilted by {angle:.1f} degrees, and at most {LARGEST_TILT_DEG:.0f} are taken"
    return Refusal("gantry_tilt", reason, "Send a reconstruction without tilt")


def _missing_or_irregular(stack: Stack) -> Refusal | None:
    """A stack is regular, or made of runs of at least `LEAST_RUN` equal steps.

    Between two runs, or at an end, there may be a lone step that is no longer than the longer run's: scanners put
    blocks together so. A step that is a multiple of its neighbours' leads over missing slices.
    """
    if stack.is_regular:
        return None
    kept = [run for run in stack.runs if run.stop - run.start >= LEAST_RUN]
    gaps: list[_Gap] = []
    for run in stack.runs:
        if run in kept:
            continue
        beside = _beside(run, kept)
        for step in range(run.start, run.stop):
            length = float(stack.gaps_mm[step])
            gap = _gap_of(step, length, beside or (stack.spacing_mm,))
            if gap is None and not _may_stay(run, length, beside, stack):
                return _irregular(stack, step)
            gaps += [] if gap is None else [gap]
    return _missing(stack, gaps) if gaps else None


def _beside(run: Run, kept: Sequence[Run]) -> tuple[float, ...]:
    """The steps of the nearest runs before and behind, mm."""
    before = [each.step_mm for each in kept if each.stop <= run.start][-1:]
    behind = [each.step_mm for each in kept if each.start >= run.stop][:1]
    return (*before, *behind)


def _gap_of(step: int, length_mm: float, beside_mm: tuple[float, ...]) -> _Gap | None:
    """The slices that a step leaves out: it is a multiple of one neighbour's step, and at least twice every one's."""
    if length_mm < 2 * max(beside_mm) - _tolerance_mm(max(beside_mm)):
        return None
    for spacing_mm in sorted(beside_mm, reverse=True):
        count = round(length_mm / spacing_mm)
        if abs(length_mm - count * spacing_mm) <= _tolerance_mm(spacing_mm):
            return _Gap(step, count - 1, spacing_mm)
    return None


def _may_stay(run: Run, length_mm: float, beside_mm: tuple[float, ...], stack: Stack) -> bool:
    usual = beside_mm or (stack.spacing_mm,)
    if any(abs(length_mm - each) <= _tolerance_mm(each) for each in usual):
        return True
    return bool(beside_mm) and run.stop - run.start == 1 and length_mm < max(beside_mm)


def _missing(stack: Stack, gaps: Sequence[_Gap]) -> Refusal:
    """Numbered along the whole stack as it should be, the missing slices counted."""
    names, before = [], 0
    for gap in gaps:
        names.append(_numbers(gap.step + 2 + before, gap.missing))
        before += gap.missing
    shown = gaps[:_GAPS_SHOWN]
    one = len(gaps) == 1 and before == 1
    rest = before - sum(gap.missing for gap in shown)
    more = f" and {rest} more in {len(gaps) - len(shown)} other places" if rest else ""
    spacing = " or ".join(dict.fromkeys(f"{gap.spacing_mm:.4g} mm" for gap in shown))
    below, above = (name_of(stack.headers[gaps[0].step + offset]) for offset in (0, 1))
    reason = (
        f"slice{'' if one else 's'} {', '.join(names[:_GAPS_SHOWN])}{more} of {len(stack.headers) + before} "
        f"{'is' if one else 'are'} missing, {spacing} each, counted from {name_of(stack.headers[0])}; the first gap "
        f"lies between {below} and {above}"
    )
    return Refusal("missing_slices", reason, "Send the missing slices, or the whole series again")


def _numbers(first: int, count: int) -> str:
    last = first + count - 1
    return str(first) if count == 1 else f"{first} {'and' if count == 2 else 'to'} {last}"


def _irregular(stack: Stack, step: int) -> Refusal:
    below, above = (name_of(stack.headers[step + offset]) for offset in (0, 1))
    reason = (
        f"the distance of its slices varies from {stack.gaps_mm.min():.2f} to {stack.gaps_mm.max():.2f} mm, and not "
        f"from one block to the next: first out of place are the {stack.gaps_mm[step]:.2f} mm from {below} to {above}"
    )
    return Refusal("irregular_spacing", reason, "Send a reconstruction whose slice distance is constant over blocks")


def _step_limits(stack: Stack) -> Refusal | None:
    steps = np.array([stack.heights_mm[-1] / len(stack.gaps_mm)]) if stack.is_regular else stack.gaps_mm
    least, largest = float(steps.min()), float(steps.max())
    if least >= LEAST_STEP_MM - SAME_PLACE_MM and largest <= LARGEST_STEP_MM + SAME_PLACE_MM:
        return None
    limits = f"from {LEAST_STEP_MM:g} to {LARGEST_STEP_MM:g} mm are taken"
    found = f"{least:.2f} mm" if largest - least < SAME_PLACE_MM else f"{least:.2f} to {largest:.2f} mm"
    return Refusal("slice_distance", f"its slices lie {found} apart, and {limits}", "Send another reconstruction")


def _displaced(stack: Stack) -> Refusal | None:
    """A tilted gantry displaces each slice in proportion to its height; anything else is no one scan."""
    along = float(stack.step @ stack.normal)
    away = stack.positions - stack.positions[0] - np.outer(stack.heights_mm / along, stack.step)
    sideways = np.linalg.norm(away, axis=1)
    if sideways.max() <= SIDEWAYS_TOLERANCE_MM:
        return None
    worst = stack.headers[int(sideways.argmax())]
    reason = f"{name_of(worst)} is displaced sideways by {sideways.max():.1f} mm against the other slices"
    return Refusal("not_a_volume", reason, "Send the slices of one reconstruction as one series")
