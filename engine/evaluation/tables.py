"""The evaluation as tables: CSV for statistics, JSON for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.evaluation.agreement import Agreement
from engine.evaluation.cases import Region, RegionKind
from engine.evaluation.scores import MEASURES, Measure, Presence
from engine.evaluation.summary import Evaluation, Overall, RegionSummary, Statistic

Row = Mapping[str, str | int | float | None]

SHOWN = ("dice", "assd_mm", "hd95_mm", "rvd_percent", "ravd_percent", "hu_error")
SHORT = {"hu_error": "HU error"}
DEFINITIONS = (
    "P is the prediction, G the truth, V their volumes. Each mean is over the cases that hold the region in P or G.",
    "Dice 2|P and G| / (|P| + |G|); Jaccard |P and G| / |P or G|; Hamming distance: share of all voxels of the scan"
    " that differ; Hamming similarity: 1 - that.",
    "A surface: the voxels with one of six neighbours outside; beyond the edge of the scan all is outside. Distances"
    " between voxel centres, mm.",
    "ASSD: mean over all voxels of both surfaces together; MASD: mean of the two directed means; HD and HD95: the"
    " larger of the two directed maxima and of the two directed 95th percentiles.",
    "RVD 100 (V_P - V_G) / V_G with its sign; RAVD its absolute value. HU error: mean HU in P less mean HU in G.",
    "VC: Pearson's r of V_P and V_G over the cases; ICC(2,1): two-way random, absolute agreement, single rating, with"
    " its 95 % interval; CCC: Lin's; bias and limits: mean of V_P - V_G and that -+ 1.96 SD, ml.",
    "In neither P nor G: left out and counted as `absent`. In one alone (`missed`, `invented`): Dice 0, every distance"
    " the diagonal of the scan, RVD -100 % where missed and undefined where invented; counted, never left out. `ASSD"
    " found` is the mean over those in both alone.",
    "A group is the union of its structures; `both` is the union of the two sides.",
)


def scores_csv(evaluation: Evaluation) -> str:
    """One line for each case and region."""
    return _csv(
        {
            "case": score.case,
            **_region_columns(score.region),
            "presence": score.presence.value,
            "prediction_ml": score.prediction_ml,
            "truth_ml": score.truth_ml,
            **{measure.key: score.value(measure) for measure in MEASURES},
        }
        for score in evaluation.scores
    )


def regions_csv(evaluation: Evaluation) -> str:
    """One line for each region over all cases."""
    return _csv(
        {
            **_region_columns(summary.region),
            **{f"cases_{presence.value}": count for presence, count in summary.presence.items()},
            **_agreement_columns(summary.volumes),
            **_statistic_columns(summary),
        }
        for summary in evaluation.regions
    )


def evaluation_json(evaluation: Evaluation) -> str:
    """All of it but the single cases' scores, which are in the CSV; null where a number is not defined."""
    content = {
        "label_set": evaluation.label_set.name,
        "scheme": evaluation.scheme.value,
        "cases": list(evaluation.cases),
        "definitions": list(DEFINITIONS),
        "overall": [_overall_tree(each) for each in evaluation.overall],
        "regions": [
            {
                **_region_columns(summary.region),
                "cases": {presence.value: count for presence, count in summary.presence.items()},
                "measures": {key: asdict(each) for key, each in summary.statistics.items()},
                "volume_ml": None if summary.volumes is None else asdict(summary.volumes),
            }
            for summary in evaluation.regions
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def report_markdown(evaluation: Evaluation, pictures: Sequence[str] = ()) -> str:
    """The page for people.

    Args:
        evaluation: what came of it.
        pictures: names of image files beside the page, shown at its end.
    """
    parts = [
        "# Evaluation",
        f"Cases: {len(evaluation.cases)}. Labels: `{evaluation.label_set.name}`, by {evaluation.scheme.value}.",
        "## Overall\n\nMeans of the structures' means: each structure counts the same.",
        _markdown(map(_overall_row, evaluation.overall)),
    ]
    for kind in (RegionKind.STRUCTURE, RegionKind.GROUP):
        for side in dict.fromkeys(summary.region.side_name for summary in evaluation.regions):
            chosen = [each for each in evaluation.regions if each.region.kind is kind and each.region.side_name == side]
            parts.append(f"## {kind.value.capitalize()}s, {'both sides together' if side == 'both' else side}")
            parts.append(_markdown(map(_region_row, chosen)))
    parts.append("## How it is computed\n\n" + "\n".join(f"- {line}" for line in DEFINITIONS))
    parts += [f"![{name}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def statistic_cell(measure: Measure, found: Statistic | None) -> str:
    """Mean and SD of a measure, as `0.912 ± 0.031`."""
    if found is None:
        return "-"
    spread = "" if found.sd is None else f" ± {found.sd:.{measure.digits}f}"
    return f"{number_cell(found.mean, measure.digits)}{spread}"


def number_cell(value: float | None, digits: int) -> str:
    """A number, or a dash where it is not defined."""
    return "-" if value is None else f"{value:z.{digits}f}"


def _region_columns(region: Region) -> dict[str, str]:
    return {"kind": region.kind.value, "key": region.key, "side": region.side_name, "group": region.group}


def _agreement_columns(found: Agreement | None) -> dict[str, float | None]:
    columns: dict[str, float | None] = {"volume_pearson": None if found is None else found.pearson}
    for form in ("icc21", "icc31", "icc11"):
        icc = None if found is None or found.icc is None else getattr(found.icc, form)
        for part in ("value", "low", "high"):
            columns[f"volume_{form}_{part}"] = None if icc is None else getattr(icc, part)
    columns["volume_ccc"] = None if found is None else found.ccc
    for part in ("bias", "sd", "lower", "upper"):
        columns[f"volume_{part}_ml"] = None if found is None else getattr(found.bland_altman, part)
    return columns


def _statistic_columns(summary: RegionSummary) -> dict[str, str | int | float | None]:
    columns: dict[str, str | int | float | None] = {}
    for measure in MEASURES:
        found = summary.statistics.get(measure.key)
        for part in ("cases", "mean", "mean_found", "sd", "median", "lowest", "highest", "worst_case"):
            columns[f"{measure.key}_{part}"] = None if found is None else getattr(found, part)
    return columns


def _overall_tree(overall: Overall) -> dict[str, Any]:
    return {
        "name": overall.name,
        "side": "both" if overall.side is None else overall.side.value,
        "regions": overall.regions,
        "means": dict(overall.means),
        "means_found": dict(overall.means_found),
        "worst": {key: _region_columns(region) for key, region in overall.worst.items()},
        "volume_pearson": overall.pearson,
        "volume_icc21": overall.icc21,
        "volume_ccc": overall.ccc,
        "cases": {presence.value: count for presence, count in overall.presence.items()},
    }


def _overall_row(overall: Overall) -> dict[str, str]:
    row = {"over": overall.name, "side": "both" if overall.side is None else overall.side.value}
    for measure in _shown():
        row[SHORT.get(measure.key, measure.heading)] = number_cell(overall.means.get(measure.key), measure.digits)
    row["ASSD found"] = number_cell(overall.means_found.get("assd_mm"), 2)
    lowest = overall.worst.get("dice")
    row["lowest Dice"] = "-" if lowest is None else lowest.title
    row |= {"VC": number_cell(overall.pearson, 3), "ICC(2,1)": number_cell(overall.icc21, 3)}
    return row | {"CCC": number_cell(overall.ccc, 3)} | _presence_columns(overall.presence)


def _region_row(summary: RegionSummary) -> dict[str, str]:
    row = {"": summary.region.display}
    for measure in _shown():
        row[SHORT.get(measure.key, measure.heading)] = statistic_cell(measure, summary.statistics.get(measure.key))
    distance = summary.statistics.get("assd_mm")
    row["ASSD found"] = number_cell(None if distance is None else distance.mean_found, 2)
    found = summary.volumes
    icc = None if found is None or found.icc is None else found.icc.icc21
    row["VC"] = number_cell(None if found is None else found.pearson, 3)
    row["ICC(2,1)"] = "-" if icc is None else _interval(icc.value, icc.low, icc.high, 3)
    row["CCC"] = number_cell(None if found is None else found.ccc, 3)
    plot = None if found is None else found.bland_altman
    row["bias ml (limits)"] = "-" if plot is None else _interval(plot.bias, plot.lower, plot.upper, 1)
    return row | _presence_columns(summary.presence)


def _presence_columns(presence: Mapping[Presence, int]) -> dict[str, str]:
    return {each.value: str(presence[each]) for each in Presence}


def _shown() -> list[Measure]:
    return [measure for measure in MEASURES if measure.key in SHOWN]


def _interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    around = "" if low is None or high is None else f" ({number_cell(low, digits)} to {number_cell(high, digits)})"
    return f"{number_cell(value, digits)}{around}"


def _csv(rows: Iterable[Row]) -> str:
    lines = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _markdown(rows: Iterable[Mapping[str, str]]) -> str:
    lines = list(rows)
    heads = list(lines[0])
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    cells = [heads, ruler, *([row[head] for head in heads] for row in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
