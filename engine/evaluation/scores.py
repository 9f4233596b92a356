"""One case scored: every measure of every region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from engine.evaluation import overlap, surface
from engine.evaluation.cases import Case, Region
from engine.volume import FloatArray


class Presence(StrEnum):
    """Where a region was found."""

    FOUND = "found"  # in prediction and truth
    ABSENT = "absent"  # in neither
    MISSED = "missed"  # in the truth alone
    INVENTED = "invented"  # in the prediction alone


class Better(StrEnum):
    """Which values of a measure are good ones."""

    HIGH = "high"
    LOW = "low"
    ZERO = "zero"


@dataclass(frozen=True)
class Measure:
    """How a measure is told.

    Attributes:
        key: its field in `Scores`, and its column.
        display: name for people.
        unit: empty for a pure number.
        digits: after the point.
        better: which values are good.
    """

    key: str
    display: str
    unit: str
    digits: int
    better: Better

    @property
    def heading(self) -> str:
        """Name and unit, as `HD95 mm`."""
        return f"{self.display} {self.unit}".strip()


MEASURES = (
    Measure("dice", "Dice", "", 3, Better.HIGH),
    Measure("jaccard", "Jaccard", "", 3, Better.HIGH),
    Measure("hamming_distance", "Hamming distance", "", 6, Better.LOW),
    Measure("hamming_similarity", "Hamming similarity", "", 6, Better.HIGH),
    Measure("assd_mm", "ASSD", "mm", 2, Better.LOW),
    Measure("masd_mm", "MASD", "mm", 2, Better.LOW),
    Measure("hd_mm", "HD", "mm", 1, Better.LOW),
    Measure("hd95_mm", "HD95", "mm", 1, Better.LOW),
    Measure("rvd_percent", "RVD", "%", 1, Better.ZERO),
    Measure("ravd_percent", "RAVD", "%", 1, Better.LOW),
    Measure("hu_error", "mean-HU error", "HU", 1, Better.ZERO),
    Measure("hu_absolute_error", "absolute mean-HU error", "HU", 1, Better.LOW),
)


@dataclass(frozen=True)
class Scores:
    """The measures of one region of one case.

    Attributes:
        dice: Dice coefficient, 0..1; 0 where the region is in one of the two alone.
        jaccard: Jaccard index, 0..1; 0 there as well.
        hamming_distance: share of all voxels of the scan that differ, 0..1.
        hamming_similarity: 1 - Hamming distance.
        assd_mm: pooled average symmetric surface distance, mm; this and the other distances are the diagonal of the
            scan where the region is in one of the two alone.
        masd_mm: mean of the two directed mean surface distances, mm.
        hd_mm: Hausdorff distance, mm.
        hd95_mm: its 95th percentile, mm.
        rvd_percent: relative volume difference with its sign, %; None where the truth is empty.
        ravd_percent: its absolute value, %.
        hu_error: mean HU within the prediction less mean HU within the truth; None without CT or where one is empty.
        hu_absolute_error: its absolute value, HU.
    """

    dice: float
    jaccard: float
    hamming_distance: float
    hamming_similarity: float
    assd_mm: float
    masd_mm: float
    hd_mm: float
    hd95_mm: float
    rvd_percent: float | None
    ravd_percent: float | None
    hu_error: float | None
    hu_absolute_error: float | None


@dataclass(frozen=True)
class RegionScore:
    """One region of one case.

    Attributes:
        case: name of the case.
        region: what was scored.
        presence: found, absent, missed or invented.
        prediction_ml: volume in the prediction.
        truth_ml: volume in the truth.
        scores: the measures; None where the region is in neither.
    """

    case: str
    region: Region
    presence: Presence
    prediction_ml: float
    truth_ml: float
    scores: Scores | None

    def value(self, measure: Measure) -> float | None:
        """One measure; None where it is not defined."""
        found = None if self.scores is None else getattr(self.scores, measure.key)
        return None if found is None else float(found)


@dataclass(frozen=True, eq=False)
class _Labels:
    """One label volume of a case, with what is known of it beforehand."""

    array: NDArray[np.uint8]
    boxes: dict[int, surface.Box]
    voxels: NDArray[np.int64]
    hu_sums: FloatArray | None

    def mean_hu(self, region: Region) -> float | None:
        chosen = list(region.values)
        voxels = self.voxels[chosen].sum()
        return None if self.hu_sums is None or voxels == 0 else float(self.hu_sums[chosen].sum() / voxels)


def score_case(case: Case, regions: tuple[Region, ...]) -> Iterator[RegionScore]:
    """Score the regions one after the other.

    The labels are counted once for all regions; the surfaces are looked at one bounding box at a time.

    Args:
        case: the scan with its two label volumes.
        regions: what to score, from `regions_of`.
    """
    table = overlap.confusion(case.prediction, case.truth)
    pair = (_known(case, case.prediction, table.sum(axis=1)), _known(case, case.truth, table.sum(axis=0)))
    voxel_ml = case.grid.voxel_volume_mm3 / 1000.0
    for region in regions:
        counts = overlap.counts_of(table, region.values)
        yield RegionScore(
            case=case.name,
            region=region,
            presence=_presence(counts),
            prediction_ml=counts.prediction * voxel_ml,
            truth_ml=counts.truth * voxel_ml,
            scores=_scores(case, region, counts, pair),
        )


def _known(case: Case, array: NDArray[np.uint8], voxels: NDArray[np.int64]) -> _Labels:
    sums = None if case.hu is None else _hu_sums(array, case.hu)
    return _Labels(array, surface.label_boxes(array), voxels, sums)


def _hu_sums(labels: NDArray[np.uint8], hu: NDArray[np.int16]) -> FloatArray:
    """Sum of the HU within each label, float64 [256]; exact, because the sums are whole and far below 2^53."""
    sums = np.zeros(overlap.VALUES)
    for start in range(0, len(labels), overlap.SLAB):
        part = slice(start, start + overlap.SLAB)
        sums += np.bincount(labels[part].ravel(), weights=hu[part].ravel(), minlength=overlap.VALUES)
    return sums


def _presence(counts: overlap.Counts) -> Presence:
    return {
        (True, True): Presence.FOUND,
        (True, False): Presence.INVENTED,
        (False, True): Presence.MISSED,
        (False, False): Presence.ABSENT,
    }[counts.prediction > 0, counts.truth > 0]


def _scores(case: Case, region: Region, counts: overlap.Counts, pair: tuple[_Labels, _Labels]) -> Scores | None:
    dice, jaccard = overlap.dice(counts), overlap.jaccard(counts)
    hamming, similarity = overlap.hamming_distance(counts), overlap.hamming_similarity(counts)
    if dice is None or jaccard is None or hamming is None or similarity is None:
        return None
    rvd = overlap.relative_volume_difference(counts)
    means = [labels.mean_hu(region) for labels in pair]
    hu_error = None if means[0] is None or means[1] is None else means[0] - means[1]
    distances = _distances(case, region, pair)
    return Scores(
        dice=dice,
        jaccard=jaccard,
        hamming_distance=hamming,
        hamming_similarity=similarity,
        assd_mm=distances.assd_mm,
        masd_mm=distances.masd_mm,
        hd_mm=distances.hd_mm,
        hd95_mm=distances.hd95_mm,
        rvd_percent=rvd,
        ravd_percent=None if rvd is None else abs(rvd),
        hu_error=hu_error,
        hu_absolute_error=None if hu_error is None else abs(hu_error),
    )


def _distances(case: Case, region: Region, pair: tuple[_Labels, _Labels]) -> surface.SurfaceDistances:
    points = [surface.surface_points(labels.array, region.values, labels.boxes, case.grid) for labels in pair]
    if not len(points[0]) or not len(points[1]):
        return surface.as_far_as_can_be(case.grid)
    return surface.surface_distances(points[0], points[1])
