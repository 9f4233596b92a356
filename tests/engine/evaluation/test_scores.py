"""One case: what is there, what is missing, and what the CT says."""

from __future__ import annotations

import numpy as np
import pytest
from label_bodies import plain_grid, random_case

from engine.evaluation import overlap
from engine.evaluation.cases import Case, LabelScheme, Region, RegionKind, regions_of
from engine.evaluation.scores import MEASURES, Presence, RegionScore, Scores, score_case
from engine.evaluation.surface import label_boxes, surface_distances, surface_points
from engine.labels import Side, thigh29

GRID = plain_grid((4, 8, 8), (3.0, 2.0, 1.0))
REGIONS = regions_of(thigh29(), LabelScheme.SEGMENTS)
SARTORIUS = [region for region in REGIONS if region.key == "sartorius"]


def scored(prediction: np.ndarray, truth: np.ndarray, hu: np.ndarray | None = None) -> dict[Side | None, RegionScore]:
    case = Case("a", GRID, prediction, truth, hu)
    return {score.region.side: score for score in score_case(case, tuple(SARTORIUS))}


def known(score: RegionScore) -> Scores:
    assert score.scores is not None
    return score.scores


def labels(*parts: tuple[int, tuple[slice, slice, slice]]) -> np.ndarray:
    array = np.zeros(GRID.shape, dtype=np.uint8)
    for value, box in parts:
        array[box] = value
    return array


BLOCK = (slice(1, 3), slice(2, 6), slice(2, 6))
FAR = (slice(0, 1), slice(0, 2), slice(0, 2))


def test_the_measures_are_the_fields_of_the_scores() -> None:
    assert tuple(measure.key for measure in MEASURES) == tuple(Scores.__dataclass_fields__)


def test_a_perfect_prediction() -> None:
    truth = labels((1, BLOCK))
    hu = np.where(truth > 0, 55, -100).astype(np.int16)
    found = scored(truth, truth, hu)[Side.RIGHT]
    assert found.presence is Presence.FOUND
    assert found.prediction_ml == found.truth_ml == pytest.approx(32 * 6 / 1000)
    assert known(found) == Scores(1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_in_neither_is_left_out() -> None:
    found = scored(labels(), labels())
    assert {each.presence for each in found.values()} == {Presence.ABSENT}
    assert all(each.scores is None and each.value(MEASURES[0]) is None for each in found.values())


@pytest.mark.parametrize(("mine", "theirs", "presence"), [(0, 1, Presence.MISSED), (1, 0, Presence.INVENTED)])
def test_in_one_alone_is_the_worst_there_is(mine: int, theirs: int, presence: Presence) -> None:
    hu = np.zeros(GRID.shape, dtype=np.int16)
    found = scored(labels((mine, BLOCK)), labels((theirs, BLOCK)), hu)[Side.RIGHT]
    assert found.presence is presence
    diagonal = np.sqrt(12**2 + 16**2 + 8**2)
    scores = known(found)
    assert (scores.dice, scores.jaccard) == (0, 0)
    assert (scores.assd_mm, scores.masd_mm, scores.hd_mm, scores.hd95_mm) == pytest.approx([diagonal] * 4)
    assert (scores.rvd_percent, scores.ravd_percent) == ((-100, 100) if presence is Presence.MISSED else (None, None))
    assert scores.hu_error is scores.hu_absolute_error is None


def test_a_full_scan_predicted_for_an_empty_truth() -> None:
    found = scored(np.full(GRID.shape, 1, dtype=np.uint8), labels())[Side.RIGHT]
    assert found.presence is Presence.INVENTED
    assert (known(found).hamming_distance, known(found).hamming_similarity) == (1, 0)


def test_swapped_sides_are_wrong_by_side_and_right_together() -> None:
    found = scored(labels((1, BLOCK), (2, FAR)), labels((2, BLOCK), (1, FAR)))
    assert known(found[Side.RIGHT]).dice == known(found[Side.LEFT]).dice == 0
    assert known(found[None]).dice == 1 and known(found[None]).hd_mm == 0


def test_the_mean_hu_is_that_of_each_mask() -> None:
    """The prediction takes half of the muscle, at 60 HU, and as much fat, at -100."""
    hu = np.full(GRID.shape, -100, dtype=np.int16)
    hu[1:3, 2:6, 2:4], hu[1:3, 2:6, 4:6] = 60, 40
    truth = labels((1, BLOCK))
    prediction = labels((1, (slice(1, 3), slice(2, 6), slice(0, 4))))
    scores = known(scored(prediction, truth, hu)[Side.RIGHT])
    assert scores.hu_error == pytest.approx((60 - 100) / 2 - (60 + 40) / 2)
    assert scores.hu_absolute_error == pytest.approx(70)
    assert known(scored(prediction, truth)[Side.RIGHT]).hu_error is None


@pytest.mark.parametrize("scheme", LabelScheme)
def test_every_region_agrees_with_its_masks_alone(scheme: LabelScheme) -> None:
    case = random_case("a", 7)
    if scheme is LabelScheme.STRUCTURES:
        case = Case("a", case.grid, (case.prediction + 1) // 2, (case.truth + 1) // 2, case.hu)
    assert case.hu is not None
    regions = regions_of(thigh29(), scheme)
    scores = list(score_case(case, regions))
    assert [score.region for score in scores] == list(regions)
    for score in scores:
        _check_by_mask(case, score.region, score)


def _check_by_mask(case: Case, region: Region, score: RegionScore) -> None:
    assert case.hu is not None
    masks = [np.isin(array, region.values) for array in (case.prediction, case.truth)]
    table = overlap.confusion(masks[0].astype(np.uint8), masks[1].astype(np.uint8))
    assert known(score).dice == overlap.dice(overlap.counts_of(table, (1,)))
    points = []
    for mask in masks:
        alone = mask.astype(np.uint8)
        points.append(surface_points(alone, (1,), label_boxes(alone), case.grid))
    expected = surface_distances(points[0], points[1])
    assert known(score).assd_mm == expected.assd_mm and known(score).hd95_mm == expected.hd95_mm
    means = [case.hu[mask].mean() for mask in masks]
    assert known(score).hu_error == pytest.approx(means[0] - means[1])
    assert score.truth_ml == pytest.approx(masks[1].sum() * 12 / 1000)
    assert region.kind is RegionKind.GROUP or len(region.values) <= 2
