"""Flags from the femora: what of them the scan shows, whether each is whole and straight, whether they are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from engine.fitness_checks.levels import steps_mm
from engine.flags import Flag, flag_of
from engine.labels import Segment, Side
from engine.resample import closest_orientation, even_grid, sample_nearest
from engine.segmentation import Segmentation
from engine.volume import FloatArray, Grid

EDGE_LEVELS = 2
"""A femur that ends in the first or last levels of the scan runs on: the outermost slices are the worst seen."""
END_SHARE = 0.2
"""Ours: of a femur's length, from either end that the scan shows; between lies the shaft below the trochanters."""
FLARE = 1.5
"""Ours: levels with more than this many times the median area are no shaft, but its flare to a joint."""
PART_SHARE = 0.05
"""Of the largest part of a shaft: smaller ones are the network's mistakes, as in `engine.islands`."""
ARM_MM = 60.0
"""Ours: the centre line is fitted over this length on both sides of a level. A straight line through so much of a shaft
that bows evenly (radius about 1.2 m, Egol 2004) turns by 3 degrees from one side to the other."""
LARGEST_ANGLE_DEG = 18.0
"""Ours: beyond what the sound shafts of synthetic persons reach (`benchmarks/shaft_angles.py`)."""
LARGEST_DIFFERENCE_MM = 40.0
"""Ours: twice the 20 mm from which legs are said to differ in length, for they may lie askew in a scan that is cut."""


@dataclass(frozen=True, eq=False)
class Femur:
    """One femur as the labels show it.

    Attributes:
        side: of the patient.
        mask: its voxels in its own box, axes (z, y, x), the lowest level first.
        centres_mm: middle of each level in LPS mm, [level, 3]; NaN where a level shows none of it.
        areas_mm2: of each level.
        length_mm: from its lowest to its highest level.
        step_mm: between levels, the largest.
        cut_above: it runs on past the upper end of the scan.
        cut_below: it runs on past the lower end.
    """

    side: Side
    mask: NDArray[np.bool_]
    centres_mm: FloatArray
    areas_mm2: FloatArray
    length_mm: float
    step_mm: float
    cut_above: bool
    cut_below: bool

    @property
    def shaft(self) -> slice:
        """Its levels without the ends and their flare."""
        end = round(END_SHARE * len(self.mask))
        start, stop = 0 if self.cut_below else end, len(self.mask) - (0 if self.cut_above else end)
        present = self.areas_mm2[start:stop][self.areas_mm2[start:stop] > 0]
        if not present.size:
            return slice(start, start)
        # Between the thirds nothing is left out: there, a wide level is two ends of a broken bone side by side.
        wide = np.flatnonzero(self.areas_mm2 > FLARE * np.median(present))
        third = (stop - start) // 3
        low, high = wide[wide < start + third], wide[wide >= stop - third]
        return slice(max([start, *(low + 1)]), min([stop, *high]))


def bone_flags(segmentation: Segmentation) -> Iterator[Flag | None]:
    """Every check of this module; a label set without femora has none of them."""
    femora = find_femora(segmentation)
    if not femora:
        return
    yield hip_missing(femora)
    yield knee_missing(femora)
    yield shaft_broken(femora)
    yield shaft_angled(femora)
    if segmentation.label_set.femur is not None:
        yield limb_asymmetry(femora)


def find_femora(segmentation: Segmentation) -> tuple[Femur, ...]:
    """The femora that are there."""
    label_set = segmentation.label_set
    segments = [each for each in label_set.segments if each.side and each.structure.key == label_set.femur]
    orientation = closest_orientation(segmentation.grid)
    labels, grid = orientation.turn(segmentation.labels), orientation.turn_grid(segmentation.grid)
    if grid.uneven is not None:  # lengths are counted in levels
        even = even_grid(grid)
        labels, grid = sample_nearest(labels, grid, even), even
    boxes = _boxes(labels, [segment.number for segment in segments])
    found = [_femur(labels, grid, segment, boxes[segment.number]) for segment in segments if segment.number in boxes]
    return tuple(found)


def hip_missing(femora: Sequence[Femur]) -> Flag | None:
    """Whether a femur runs on past the upper end of the scan, so that its head and the hip bone are not whole."""
    shown_mm = [femur.length_mm for femur in femora if femur.cut_above]
    if not shown_mm:
        return None
    words = f"The femur runs on past the upper end of the scan, which shows {max(shown_mm):.0f} mm of it."
    return flag_of("hip_missing", words, max(shown_mm))


def knee_missing(femora: Sequence[Femur]) -> Flag | None:
    """Whether a femur runs on past the lower end of the scan, so that its condyles are not whole."""
    shown_mm = [femur.length_mm for femur in femora if femur.cut_below]
    if not shown_mm:
        return None
    words = f"The femur runs on past the lower end of the scan, which shows {max(shown_mm):.0f} mm of it."
    return flag_of("knee_missing", words, max(shown_mm))


def shaft_broken(femora: Sequence[Femur]) -> Flag | None:
    """Whether a femoral shaft is in several parts; a head that is broken off is none of them."""
    count, femur = max(((shaft_parts(femur), femur) for femur in femora), key=lambda pair: pair[0])
    if count < 2:
        return None
    return flag_of("shaft_broken", f"The shaft of the {femur.side.value} femur is in {count} parts.", float(count))


def shaft_angled(femora: Sequence[Femur]) -> Flag | None:
    """Whether the centre line of a femoral shaft turns more sharply than its natural bow."""
    angle_deg, femur = max(((sharpest_angle_deg(femur), femur) for femur in femora), key=lambda pair: pair[0])
    if angle_deg <= LARGEST_ANGLE_DEG:
        return None
    words = f"The shaft of the {femur.side.value} femur is angled by {angle_deg:.0f} degrees."
    return flag_of("shaft_angled", words, angle_deg)


def limb_asymmetry(femora: Sequence[Femur]) -> Flag | None:
    """Whether the scan shows much more of one femur than of the other, or one alone."""
    lengths = {femur.side: femur.length_mm for femur in femora}
    right, left = lengths.get(Side.RIGHT, 0.0), lengths.get(Side.LEFT, 0.0)
    if abs(right - left) <= LARGEST_DIFFERENCE_MM:
        return None
    shorter = "right" if right < left else "left"
    words = f"The {shorter} femur is shorter by {abs(right - left):.0f} mm than the other."
    if min(right, left) == 0:
        words = f"There is no femur on the {shorter} side; the other is shown over {max(right, left):.0f} mm."
    return flag_of("limb_asymmetry", words, abs(right - left))


def shaft_parts(femur: Femur) -> int:
    """Number of parts that a shaft is in, small ones left out."""
    shaft = femur.mask[femur.shaft]
    if not shaft.any():
        return 0
    sizes = np.bincount(cc3d.connected_components(shaft, connectivity=26).ravel())[1:]
    return int(np.count_nonzero(sizes >= PART_SHARE * sizes.max()))


def sharpest_angle_deg(femur: Femur) -> float:
    """The largest angle between the directions of a shaft over `ARM_MM` below and above one level; 0 if too short."""
    centres = femur.centres_mm[femur.shaft]
    centres = centres[np.isfinite(centres[:, 0])]
    height_mm = centres[:, 2]
    angles = [0.0]
    for middle_mm in height_mm:
        below = centres[(height_mm <= middle_mm) & (height_mm >= middle_mm - ARM_MM)]
        above = centres[(height_mm >= middle_mm) & (height_mm <= middle_mm + ARM_MM)]
        reach_mm = ARM_MM - 1.5 * femur.step_mm
        if min(np.ptp(below[:, 2]), np.ptp(above[:, 2])) >= reach_mm:
            angles.append(_angle_deg(_direction(below), _direction(above)))
    return max(angles)


def _direction(points_mm: FloatArray) -> FloatArray:
    """Unit vector along points, upwards: the straight line of least squares over the height."""
    slope, _ = np.polyfit(points_mm[:, 2], points_mm[:, :2], 1)
    vector = np.array([slope[0], slope[1], 1.0])
    return np.asarray(vector / np.linalg.norm(vector))


def _angle_deg(one: FloatArray, other: FloatArray) -> float:
    return float(np.rad2deg(np.arccos(np.clip(one @ other, -1.0, 1.0))))


def _boxes(labels: NDArray[np.uint8], numbers: Sequence[int]) -> Mapping[int, tuple[slice, slice, slice]]:
    """The box of each label that is there, axes (z, y, x)."""
    low = {number: np.array(labels.shape) for number in numbers}
    high = dict.fromkeys(numbers, np.full(3, -1))
    for level, plane in enumerate(labels):
        present = np.flatnonzero(np.bincount(plane.ravel(), minlength=256))
        for number in set(present.tolist()) & set(numbers):
            mask = plane == number
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            low[number] = np.minimum(low[number], [level, rows[0], columns[0]])
            high[number] = np.maximum(high[number], [level, rows[-1], columns[-1]])
    return {
        number: (
            slice(int(low[number][0]), int(high[number][0]) + 1),
            slice(int(low[number][1]), int(high[number][1]) + 1),
            slice(int(low[number][2]), int(high[number][2]) + 1),
        )
        for number in numbers
        if high[number][0] >= 0
    }


def _femur(labels: NDArray[np.uint8], grid: Grid, segment: Segment, box: tuple[slice, slice, slice]) -> Femur:
    mask = labels[box] == segment.number
    corner = np.array([each.start for each in box], dtype=np.float64)
    voxels = mask.sum(axis=(1, 2)).astype(np.float64)
    rows, columns = (np.arange(size) for size in mask.shape[1:])
    with np.errstate(invalid="ignore"):  # a level without femur has no middle
        middles = np.stack(
            [np.arange(len(mask)), mask.sum(axis=2) @ rows / voxels, mask.sum(axis=1) @ columns / voxels], axis=-1
        )
    steps = steps_mm(grid)[box[0].start : max(box[0].start + 1, box[0].stop - 1)]
    if not steps.size:  # the last level alone
        steps = np.array(grid.spacing_mm[:1])
    return Femur(
        side=Side(segment.side) if segment.side else Side.RIGHT,
        mask=mask,
        centres_mm=grid.to_patient(middles + corner),
        areas_mm2=voxels * grid.spacing_mm[1] * grid.spacing_mm[2],
        length_mm=float(steps.sum() + steps.mean()),
        step_mm=float(steps.max()),
        cut_above=box[0].stop > labels.shape[0] - EDGE_LEVELS,
        cut_below=box[0].start < EDGE_LEVELS,
    )
