"""All cases together: what is told of each region, and overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.evaluation.agreement import Agreement, agreement
from engine.evaluation.cases import CaseSource, EvaluationError, LabelScheme, Region, RegionKind, regions_of
from engine.evaluation.scores import MEASURES, Better, Measure, Presence, RegionScore, score_case
from engine.labels import LabelSet, Side

Progress = Callable[[str, int, int], None]
"""Is told the case that was worked on, regions done and regions in all."""

BONE = "bone"


@dataclass(frozen=True)
class Statistic:
    """One measure of one region over the cases for which it is defined.

    Attributes:
        cases: how many those are.
        mean: mean over them.
        mean_found: mean over those with the region in prediction and truth, which leaves out what was missed and
            invented: never to be told without their number; None where it is found in no case.
        sd: sample standard deviation; None for one case.
        median: median over them.
        lowest: least of them.
        highest: greatest of them.
        worst_case: name of the case that did worst.
    """

    cases: int
    mean: float
    mean_found: float | None
    sd: float | None
    median: float
    lowest: float
    highest: float
    worst_case: str


@dataclass(frozen=True)
class RegionSummary:
    """One region over all cases.

    Attributes:
        region: which one.
        presence: number of cases in which it is found, absent, missed, invented.
        statistics: by `Measure.key`; a measure that is defined for no case is missing.
        volumes: agreement of the volumes, ml, over the cases in which it is in one or both; None where there is none.
    """

    region: Region
    presence: Mapping[Presence, int]
    statistics: Mapping[str, Statistic]
    volumes: Agreement | None


@dataclass(frozen=True)
class Overall:
    """A mean of means: each structure counts the same, however often it was there.

    Attributes:
        name: what it is over, as `27 muscles`.
        side: None for structures with both sides together.
        regions: structures that were in one or both of prediction and truth of at least one case.
        means: mean of the structures' means by `Measure.key`.
        means_found: the same of `Statistic.mean_found`.
        worst: the structure with the worst mean by `Measure.key`.
        pearson, icc21, ccc: mean of the structures' volume correlation, ICC(2,1) and CCC; None where none has one.
        presence: sums over structures and cases.
    """

    name: str
    side: Side | None
    regions: int
    means: Mapping[str, float]
    means_found: Mapping[str, float]
    worst: Mapping[str, Region]
    pearson: float | None
    icc21: float | None
    ccc: float | None
    presence: Mapping[Presence, int]


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        label_set: what the numbers mean.
        scheme: how the label volumes number it.
        cases: names, in order.
        scores: one for each case and region, in that order.
        regions: one for each region.
        overall: the means of means.
    """

    label_set: LabelSet
    scheme: LabelScheme
    cases: tuple[str, ...]
    scores: tuple[RegionScore, ...]
    regions: tuple[RegionSummary, ...]
    overall: tuple[Overall, ...]


def evaluate(source: CaseSource, label_set: LabelSet, scheme: LabelScheme, progress: Progress) -> Evaluation:
    """Score every case, one at a time in memory, and sum up.

    Args:
        source: the cases.
        label_set: what the numbers mean.
        scheme: how the label volumes number it.
        progress: is told after each region.

    Raises:
        EvaluationError: there is no case, or neither prediction nor truth of any case holds a structure.
    """
    regions = regions_of(label_set, scheme)
    names = tuple(source.names)
    scores: list[RegionScore] = []
    for name in names:
        progress(name, len(scores), len(names) * len(regions))
        for score in score_case(source.load(name), regions):
            scores.append(score)
            progress(name, len(scores), len(names) * len(regions))
    if all(score.presence is Presence.ABSENT for score in scores):
        reason = f"none of {len(names)} cases holds a structure, in prediction or truth"
        raise EvaluationError("evaluation", reason, "Give label volumes that are not empty")
    summaries = tuple(_summarise(region, [score for score in scores if score.region == region]) for region in regions)
    return Evaluation(label_set, scheme, names, tuple(scores), summaries, _overall(summaries))


def _summarise(region: Region, scores: Sequence[RegionScore]) -> RegionSummary:
    there = [score for score in scores if score.presence is not Presence.ABSENT]
    statistics = {measure.key: _statistic(measure, there) for measure in MEASURES}
    return RegionSummary(
        region=region,
        presence=_total(Counter(score.presence for score in scores)),
        statistics={key: found for key, found in statistics.items() if found is not None},
        volumes=agreement(
            np.array([score.prediction_ml for score in there]), np.array([score.truth_ml for score in there])
        ),
    )


def _statistic(measure: Measure, scores: Sequence[RegionScore]) -> Statistic | None:
    known = {score.case: value for score in scores if (value := score.value(measure)) is not None}
    if not known:
        return None
    values = np.array(list(known.values()))
    found = [known[score.case] for score in scores if score.presence is Presence.FOUND and score.case in known]
    return Statistic(
        cases=len(values),
        mean=float(values.mean()),
        mean_found=_mean(found),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        median=float(np.median(values)),
        lowest=float(values.min()),
        highest=float(values.max()),
        worst_case=max(known, key=lambda case: badness(measure, known[case])),
    )


def badness(measure: Measure, value: float) -> float:
    """Larger for a worse value."""
    return {Better.HIGH: -value, Better.LOW: value, Better.ZERO: abs(value)}[measure.better]


def _overall(summaries: Sequence[RegionSummary]) -> tuple[Overall, ...]:
    structures = [summary for summary in summaries if summary.region.kind is RegionKind.STRUCTURE]
    sides = dict.fromkeys(summary.region.side for summary in structures)
    chosen = [
        (side, name, [each for each in structures if each.region.side == side and wanted(each.region)])
        for side in sorted(sides, key=lambda side: side is not None)
        for name, wanted in (("structures", lambda _: True), ("muscles", lambda region: region.group != BONE))
    ]
    return tuple(_mean_of_means(f"{len(members)} {name}", side, members) for side, name, members in chosen)


def _mean_of_means(name: str, side: Side | None, summaries: Sequence[RegionSummary]) -> Overall:
    there = [summary for summary in summaries if summary.statistics]
    means, means_found, worst = {}, {}, {}
    for measure in MEASURES:
        known = {each.region: each.statistics[measure.key] for each in there if measure.key in each.statistics}
        if known:
            means[measure.key] = float(np.mean([each.mean for each in known.values()]))
            worst[measure.key] = max(known, key=lambda region: badness(measure, known[region].mean))
        found = _mean(each.mean_found for each in known.values())
        if found is not None:
            means_found[measure.key] = found
    volumes = [each.volumes for each in there if each.volumes is not None]
    return Overall(
        name=name,
        side=side,
        regions=len(there),
        means=means,
        means_found=means_found,
        worst=worst,
        pearson=_mean(each.pearson for each in volumes),
        icc21=_mean(None if each.icc is None else each.icc.icc21.value for each in volumes),
        ccc=_mean(each.ccc for each in volumes),
        presence=_total(sum((Counter(each.presence) for each in summaries), Counter())),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _total(counts: Counter[Presence]) -> dict[Presence, int]:
    return {presence: counts[presence] for presence in Presence}
