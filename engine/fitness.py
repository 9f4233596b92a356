"""A cheap look at the pixels before the network is paid for: does the scan show two thighs?

A thigh is known by its femur: a round, dense bone of some 3 cm with soft tissue all around it. Levels with exactly
two such bones side by side must run over a good part of a thigh. Above them hip bones lie between the femora, below
them the femora widen to condyles: that tells how much of hip and knee the scan holds, whatever its header says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from engine.body import find_body
from engine.errors import VastusError, VolumeError
from engine.resample import closest_orientation, network_grid, sample_linear
from engine.volume import Grid, Volume

SPACING_MM = (6.0, 2.0, 2.0)
DENSE_HU = 250.0  # cortical bone has more, contrast medium and noise rarely
SOFT_HU = (-200.0, 250.0)
LEAST_LENGTH_MM = 150.0
LONGEST_GAP_MM = 45.0  # levels in between may be spoilt by metal
LEAST_GOOD_SHARE = 0.6  # of the levels in a run
SHAFT_DIAMETER_MM = (13.0, 65.0)
LEAST_ROUNDNESS = 0.5  # area of the bone over the area of a circle around it
RING_MM = 18.0
LEAST_SOFT_SHARE = 0.75  # of the ring around the bone
DISTANCE_MM = (60.0, 400.0)  # between the two bones
LARGEST_AREA_RATIO = 2.5
OTHER_BONE_MM2 = 250.0  # a third bone of this size means pelvis, spine, or leg below the knee
BETWEEN = (0.2, 0.8)  # of the way from one femur to the other: what lies there is no femur
CONDYLES_MM = 50.0  # width of the bones of one leg; a shaft has some 30, condyles 70 and more
KNEE_REACH_MM = 60.0  # bones nearer than this to a femur's axis are of its leg
SPONGY_HU = 170.0  # muscle has less, even with contrast medium
SMOOTHED = 3  # voxels, against noise
HIP_BONE_MM2 = 150.0  # the great vessels are thinner
LEAST_LEVELS = 2  # one after the other, or noise would do
HIP_JOINT_MM = 90.0  # from where hip bones begin, the ischium, to above the femoral head
KNEE_JOINT_MM = 45.0  # from where a femur has widened to below its condyles


class NotThighs(VastusError):  # noqa: N818 - a finding about the scan, named for what it says
    """The scan doesn't show two thighs."""


@dataclass(frozen=True)
class ThighSpan:
    """The levels that show two thighs, and what of hips and knees the scan holds; z in LPS mm, and lengths in mm.

    Attributes:
        lowest_mm: the lowest level with two shafts.
        highest_mm: the highest level with two shafts.
        bottom_mm: the lowest level of the body in the scan.
        top_mm: the highest level of the body in the scan.
        hip_mm: the level above the shafts at which hip bones begin; None where none are seen.
        knee_mm: the level below the shafts at which both femora have widened to condyles; None where they do not.
    """

    lowest_mm: float
    highest_mm: float
    bottom_mm: float
    top_mm: float
    hip_mm: float | None
    knee_mm: float | None

    @property
    def length_mm(self) -> float:
        """From the lowest to the highest level with two shafts."""
        return self.highest_mm - self.lowest_mm

    @property
    def pelvis_mm(self) -> float:
        """How much of the scan lies above the level at which hip bones begin; 0 where none are seen."""
        return 0.0 if self.hip_mm is None else self.top_mm - self.hip_mm

    @property
    def below_condyles_mm(self) -> float:
        """How much of the scan lies below the level at which both femora have widened; 0 where they do not."""
        return 0.0 if self.knee_mm is None else self.knee_mm - self.bottom_mm

    @property
    def pelvis_above(self) -> bool:
        """Whether the hip joints are in the scan, up to above the femoral heads."""
        return self.pelvis_mm >= HIP_JOINT_MM

    @property
    def knee_below(self) -> bool:
        """Whether the knee joints are in the scan, down to below the condyles."""
        return self.below_condyles_mm >= KNEE_JOINT_MM

    @property
    def covered_mm(self) -> float:
        """What of the stretch from hip joints to knee joints lies in the scan."""
        top = self.top_mm if self.hip_mm is None else min(self.top_mm, self.hip_mm + HIP_JOINT_MM)
        bottom = self.bottom_mm if self.knee_mm is None else max(self.bottom_mm, self.knee_mm - KNEE_JOINT_MM)
        return top - bottom


@dataclass(frozen=True)
class _Bone:
    """One dense region in one level: area in mm2, middle and sides in mm of the level's plane, whether a shaft."""

    area_mm2: float
    y_mm: float
    x_mm: float
    sides_mm: tuple[float, float]
    shaft: bool


@dataclass(frozen=True, eq=False)
class _Levels:
    """The levels of a scan: Hounsfield units `[level, row, column]`, where they lie, and the bones of each."""

    image: NDArray[np.float32]
    grid: Grid
    bones: list[list[_Bone]]


Shows = Callable[[_Levels, int, tuple[_Bone, _Bone]], bool]
"""Whether a level shows something, beside two femora."""


def find_thighs(volume: Volume) -> ThighSpan:
    """Find the levels with two thighs.

    Raises:
        NotThighs: too few levels show two femora with muscle around them.
    """
    orientation = closest_orientation(volume.grid)
    hu, scan = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
    try:
        body = find_body(hu, scan)
    except VolumeError as error:
        raise NotThighs("scan", error.reason, error.remedy) from error
    grid = network_grid(scan, body.points(), 0.0, SPACING_MM)
    image = sample_linear(hu, scan, grid).numpy()
    image[~body.on(grid)] = -1000.0
    bones = _bones(image, grid)
    levels = [_two_shafts(each) is not None for each in bones]
    first, last, good = _longest_run(levels, grid.spacing_mm[0])
    step_mm = grid.spacing_mm[0]
    run_mm = (last - first + 1) * step_mm
    if run_mm < LEAST_LENGTH_MM or good * step_mm < LEAST_LENGTH_MM * LEAST_GOOD_SHARE:
        raise _not_thighs(grid.shape[0] * step_mm, run_mm if good else 0.0)
    return _span(_Levels(image, grid, bones), first, last)


def _span(levels: _Levels, first: int, last: int) -> ThighSpan:
    """The run of shafts from level `first` to level `last`, and what lies above and below it."""

    def z_mm(level: int) -> float:
        return float(levels.grid.to_patient(np.array([level, 0.0, 0.0]))[2])

    end = len(levels.bones) - 1
    low, high, bottom, top = (first, last, 0, end) if z_mm(first) < z_mm(last) else (last, first, end, 0)
    upward = 1 if top > bottom else -1
    middle = (low + high) // 2
    hip = _first_of(levels, range(middle, top + upward, upward), _hip_bones)
    knee = _first_of(levels, range(middle, bottom - upward, -upward), _condyles)
    heights = (z_mm(low), z_mm(high), z_mm(bottom), z_mm(top))
    return ThighSpan(*heights, None if hip is None else z_mm(hip), None if knee is None else z_mm(knee))


def _first_of(levels: _Levels, path: range, shows: Shows) -> int | None:
    """The first level on the path from which on `LEAST_LEVELS` show it, beside the femora as they were seen last."""
    femora: tuple[_Bone, _Bone] | None = None
    seen: list[int] = []
    for level in path:
        femora = _two_shafts(levels.bones[level]) or femora
        seen = [*seen, level] if femora and shows(levels, level, femora) else []
        if len(seen) == LEAST_LEVELS:
            return seen[0]
    return None


def _hip_bones(levels: _Levels, level: int, femora: tuple[_Bone, _Bone]) -> bool:
    """Whether bone lies between the femora: spongy bone, which is less dense than a shaft."""
    _, step_y, step_x = levels.grid.spacing_mm
    left, right = sorted(each.x_mm for each in femora)
    low, high = (round((left + share * (right - left)) / step_x) for share in BETWEEN)
    spongy = uniform_filter(levels.image[level, :, low:high], SMOOTHED, mode="nearest") > SPONGY_HU
    regions = cc3d.connected_components(spongy[None], connectivity=6)
    areas = np.bincount(regions.ravel())[1:] * step_y * step_x
    return bool(areas.max(initial=0.0) >= HIP_BONE_MM2)


def _condyles(levels: _Levels, level: int, femora: tuple[_Bone, _Bone]) -> bool:
    """Whether the bones of each leg are as wide as condyles."""
    bones = levels.bones[level]

    def width_mm(femur: _Bone) -> float:
        own = [each.sides_mm for each in bones if abs(each.x_mm - femur.x_mm) <= KNEE_REACH_MM]
        return max((high for _, high in own), default=0.0) - min((low for low, _ in own), default=0.0)

    return all(width_mm(femur) >= CONDYLES_MM for femur in femora)


def _not_thighs(scan_mm: float, run_mm: float) -> NotThighs:
    """The finding in words: how long the scan is, and over how much of it two thigh bones are seen."""
    if scan_mm < LEAST_LENGTH_MM:
        reason = f"it shows only {scan_mm / 10:.0f} cm of the body from head to foot"
    elif run_mm == 0:
        reason = "in none of its slices are there two thigh bones with muscle around them"
    else:
        reason = f"two thigh bones with muscle around them are seen over only {run_mm / 10:.0f} cm"
    need = f"A scan of both thighs with at least {LEAST_LENGTH_MM / 10:.0f} cm of their shafts is needed"
    return NotThighs("scan", reason, f"{need}; check that the right series was sent")


def _bones(image: NDArray[np.float32], grid: Grid) -> list[list[_Bone]]:
    """The dense regions of each level, marrow included."""
    number = np.arange(1, len(image) + 1, dtype=np.uint16)[:, None, None]
    # A number of its own for each level keeps regions from joining across levels.
    filled = _fill(image > DENSE_HU, number)
    regions, count = cc3d.connected_components(filled * number, connectivity=6, return_N=True)
    statistics = cc3d.statistics(regions)
    bones: list[list[_Bone]] = [[] for _ in image]
    pixel_mm2 = grid.spacing_mm[1] * grid.spacing_mm[2]
    least_mm2 = np.pi / 4 * SHAFT_DIAMETER_MM[0] ** 2
    for region in range(1, count + 1):
        area_mm2 = float(statistics["voxel_counts"][region]) * pixel_mm2
        if area_mm2 < least_mm2:
            continue
        level, row, column = (float(value) for value in statistics["centroids"][region])
        own = regions[round(level)] == region
        shaft = _is_shaft(image[round(level)], own, (row, column), grid)
        y_mm, x_mm = row * grid.spacing_mm[1], column * grid.spacing_mm[2]
        columns = statistics["bounding_boxes"][region][2]
        sides_mm = (columns.start * grid.spacing_mm[2], columns.stop * grid.spacing_mm[2])
        bones[round(level)].append(_Bone(area_mm2, y_mm, x_mm, sides_mm, shaft))
    return bones


def _fill(dense: NDArray[np.bool_], number: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Dense regions with their holes, level by level."""
    holes = cc3d.connected_components(~dense * number, connectivity=6)
    edges = np.concatenate([edge.ravel() for edge in (holes[:, 0], holes[:, -1], holes[:, :, 0], holes[:, :, -1])])
    outside = np.zeros(int(holes.max()) + 1, dtype=bool)
    outside[edges] = True
    outside[0] = False
    return np.asarray(~outside[holes])


def _is_shaft(level: NDArray[np.float32], own: NDArray[np.bool_], middle: tuple[float, float], grid: Grid) -> bool:
    """Whether a region is as large and round as a femoral shaft and has soft tissue around it."""
    rows, columns = np.ogrid[: level.shape[0], : level.shape[1]]
    y_mm, x_mm = (rows - middle[0]) * grid.spacing_mm[1], (columns - middle[1]) * grid.spacing_mm[2]
    distance = np.hypot(y_mm, x_mm)
    area_mm2 = float(np.count_nonzero(own)) * grid.spacing_mm[1] * grid.spacing_mm[2]
    diameter_mm = 2 * float(np.sqrt(area_mm2 / np.pi))
    reach_mm = float(distance[own].max()) + grid.spacing_mm[1] / 2
    if not SHAFT_DIAMETER_MM[0] <= diameter_mm <= SHAFT_DIAMETER_MM[1]:
        return False
    if area_mm2 < LEAST_ROUNDNESS * np.pi * reach_mm**2:
        return False
    ring = level[(distance > reach_mm + 2.0) & (distance <= reach_mm + RING_MM)]
    soft = (ring > SOFT_HU[0]) & (ring < SOFT_HU[1])
    return ring.size > 0 and float(soft.mean()) >= LEAST_SOFT_SHARE


def _two_shafts(bones: list[_Bone]) -> tuple[_Bone, _Bone] | None:
    """The two femoral shafts of a level that shows them side by side and no other bone of size."""
    shafts = [bone for bone in bones if bone.shaft]
    others = sum(bone.area_mm2 >= OTHER_BONE_MM2 for bone in bones if not bone.shaft)
    if len(shafts) != 2 or others:
        return None
    one, two = shafts
    across, deep = abs(one.x_mm - two.x_mm), abs(one.y_mm - two.y_mm)
    alike = max(one.area_mm2, two.area_mm2) <= LARGEST_AREA_RATIO * min(one.area_mm2, two.area_mm2)
    apart = DISTANCE_MM[0] <= across <= DISTANCE_MM[1] and deep <= across
    return (one, two) if apart and alike else None


def _longest_run(levels: list[bool], step_mm: float) -> tuple[int, int, int]:
    """First and last level and number of good levels of the longest run that spoilt levels do not break."""
    good = [index for index, two in enumerate(levels) if two]
    if not good:
        return 0, 0, 0
    runs, start = [], 0
    for place, (one, following) in enumerate(pairwise(good), start=1):
        if (following - one - 1) * step_mm > LONGEST_GAP_MM:
            runs.append(good[start:place])
            start = place
    runs.append(good[start:])
    longest = max(runs, key=len)
    return longest[0], longest[-1], len(longest)
