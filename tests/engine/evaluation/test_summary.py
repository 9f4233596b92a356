"""All cases: nothing is dropped, and the means are those of the single scores."""

from __future__ import annotations

import numpy as np
import pytest
from label_bodies import Cases, plain_grid, random_case

from engine.evaluation.cases import Case, EvaluationError, LabelScheme, RegionKind
from engine.evaluation.scores import MEASURES, Better, Measure, Presence
from engine.evaluation.summary import Evaluation, RegionSummary, badness, evaluate
from engine.labels import Side, thigh29


def run(source: Cases) -> Evaluation:
    return evaluate(source, thigh29(), LabelScheme.SEGMENTS, lambda *_: None)


def of(evaluation: Evaluation, key: str, side: Side | None) -> RegionSummary:
    return next(each for each in evaluation.regions if (each.region.key, each.region.side) == (key, side))


@pytest.fixture(scope="module")
def found(source: Cases) -> Evaluation:
    return run(source)


def test_every_case_and_region_has_its_score(found: Evaluation) -> None:
    assert found.cases == ("case0", "case1", "case2", "case3")
    assert len(found.scores) == 4 * 105 and len(found.regions) == 105
    for summary in found.regions:
        assert sum(summary.presence.values()) == 4


def test_a_missed_structure_is_counted_and_drags_the_mean_down(found: Evaluation) -> None:
    """Segment 11 is adductor magnus on the right."""
    summary = of(found, "adductor_magnus", Side.RIGHT)
    assert summary.presence == {Presence.FOUND: 3, Presence.ABSENT: 0, Presence.MISSED: 1, Presence.INVENTED: 0}
    dice = summary.statistics["dice"]
    assert dice.cases == 4 and dice.lowest == 0 and dice.worst_case == "case2"
    assert dice.mean_found == pytest.approx(dice.mean * 4 / 3)
    assert summary.statistics["hd95_mm"].highest == pytest.approx(np.linalg.norm([36, 64, 64]))
    assert summary.statistics["rvd_percent"].lowest == -100
    assert summary.statistics["hu_error"].cases == 3
    assert summary.volumes is not None and summary.volumes.cases == 4


def test_an_invented_structure_is_counted(found: Evaluation) -> None:
    """Segment 44 is iliacus on the left."""
    summary = of(found, "iliacus", Side.LEFT)
    assert summary.presence[Presence.INVENTED] == 1
    assert summary.statistics["dice"].lowest == 0 and summary.statistics["dice"].cases == 4
    assert summary.statistics["rvd_percent"].cases == 3
    assert summary.volumes is not None and summary.volumes.cases == 4


def test_in_neither_is_left_out_and_counted(found: Evaluation) -> None:
    """Segment 53 is multifidus on the right."""
    summary = of(found, "multifidus", Side.RIGHT)
    assert summary.presence[Presence.ABSENT] == 1
    assert summary.statistics["dice"].cases == 3
    assert summary.volumes is not None and summary.volumes.cases == 3


def test_the_statistics_are_those_of_the_scores(found: Evaluation) -> None:
    summary = of(found, "gluteal", None)
    for measure in MEASURES:
        single = [score.value(measure) for score in found.scores if score.region == summary.region]
        values = [value for value in single if value is not None]
        statistic = summary.statistics[measure.key]
        assert statistic.mean == pytest.approx(np.mean(values))
        assert statistic.sd == pytest.approx(np.std(values, ddof=1))
        assert statistic.median == pytest.approx(np.median(values))
        assert (statistic.lowest, statistic.highest) == (min(values), max(values))
        worst = max(values, key=lambda value: badness(measure, value))
        assert single[found.cases.index(statistic.worst_case)] == worst


def test_the_overall_means_count_each_structure_once(found: Evaluation) -> None:
    names = [(each.name, each.side) for each in found.overall]
    assert names[:2] == [("29 structures", None), ("27 muscles", None)]
    assert {side for _, side in names} == {None, Side.RIGHT, Side.LEFT}
    right = next(each for each in found.overall if each.name == "27 muscles" and each.side is Side.RIGHT)
    muscles = [
        each
        for each in found.regions
        if each.region.kind is RegionKind.STRUCTURE and each.region.side is Side.RIGHT and each.region.group != "bone"
    ]
    assert len(muscles) == right.regions == 27
    assert right.means["dice"] == pytest.approx(np.mean([each.statistics["dice"].mean for each in muscles]))
    assert right.worst["dice"].key == min(muscles, key=lambda each: each.statistics["dice"].mean).region.key
    assert right.presence[Presence.MISSED] == 1 and right.presence[Presence.INVENTED] == 0
    correlations = [each.volumes.pearson for each in muscles if each.volumes is not None]
    assert right.pearson == pytest.approx(np.mean([value for value in correlations if value is not None]))


def test_a_mean_does_not_improve_as_the_model_misses() -> None:
    """Project-MONAI/MONAI#9095: left out, the worst structure would take its distance with it."""
    good = random_case("a", 1)
    missed = Case("a", good.grid, np.where(good.prediction == 1, 0, good.prediction).astype(np.uint8), good.truth)
    before, after = run(Cases((good,))).overall[0].means, run(Cases((missed,))).overall[0].means
    assert after["dice"] < before["dice"]
    assert after["hd95_mm"] > before["hd95_mm"] and after["assd_mm"] > before["assd_mm"]


def test_one_case_has_no_spread_and_no_correlation() -> None:
    summary = of(run(Cases((random_case("a", 3, hu=False),))), "femur", None)
    assert summary.statistics["dice"].sd is None and "hu_error" not in summary.statistics
    assert summary.volumes is not None and summary.volumes.icc is None and summary.volumes.pearson is None


def test_the_progress_is_told(source: Cases) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(source, thigh29(), LabelScheme.SEGMENTS, lambda *words: told.append(words))
    assert told[0] == ("case0", 0, 420) and told[-1] == ("case3", 420, 420)


def test_nothing_to_evaluate_is_refused() -> None:
    empty = np.zeros((3, 3, 3), dtype=np.uint8)
    with pytest.raises(EvaluationError, match="none of 1 cases"):
        run(Cases((Case("a", plain_grid((3, 3, 3)), empty, empty),)))
    with pytest.raises(EvaluationError, match="none of 0 cases"):
        run(Cases(()))


@pytest.mark.parametrize(("better", "worse", "less_bad"), [("high", 0.1, 0.9), ("low", 9, 1), ("zero", -9, 5)])
def test_what_is_worse(better: str, worse: float, less_bad: float) -> None:
    measure = Measure("x", "x", "", 1, Better(better))
    assert badness(measure, worse) > badness(measure, less_bad)
