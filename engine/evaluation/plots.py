"""The evaluation as pictures: box plots of every structure, and Bland-Altman plots of the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.evaluation.cases import Region, RegionKind
from engine.evaluation.scores import MEASURES, Better, Measure, Presence, RegionScore
from engine.evaluation.summary import Evaluation, RegionSummary
from engine.labels import Side

BOXED = ("dice", "assd_mm", "hd95_mm", "rvd_percent")
COLOURS: dict[Side | None, str] = {Side.RIGHT: "#2166ac", Side.LEFT: "#d6604d", None: "#4d4d4d"}
ROW_INCHES = 0.3
SIDE_STEP = 0.4  # of a row, between right and left
PANEL_COLUMNS = 5
PANEL_INCHES = (3.1, 2.4)


def box_plots(evaluation: Evaluation) -> dict[str, Figure]:
    """One figure a measure, by `Measure.key`: a box and the cases' own points for each structure, group and side.

    Distances to a surface that is not there (missed, invented) lie beyond the axis: they are marked at its end.
    """
    return {measure.key: _box_plot(evaluation, measure) for measure in MEASURES if measure.key in BOXED}


def bland_altman_plot(evaluation: Evaluation) -> Figure:
    """One panel a structure, both sides together: difference of the volumes over their mean, bias and limits."""
    chosen = [
        each for each in evaluation.regions if each.region.kind is RegionKind.STRUCTURE and _is_whole(each.region)
    ]
    rows = -(-len(chosen) // PANEL_COLUMNS)
    figure = Figure(figsize=(PANEL_COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1] + 0.8))
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.02, top=0.95, wspace=0.2, hspace=0.3)
    figure.suptitle("Volume: prediction less truth, ml, over their mean, ml; bias and bias ± 1.96 SD (Bland-Altman)")
    axes = figure.subplots(rows, PANEL_COLUMNS, squeeze=False).ravel()
    for axis, summary in zip(axes, chosen, strict=False):
        scores = [score for score in evaluation.scores if score.region == summary.region]
        _bland_altman_panel(axis, summary, [each for each in scores if each.presence is not Presence.ABSENT])
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    return figure


def _is_whole(region: Region) -> bool:
    return region.side is None


def _box_plot(evaluation: Evaluation, measure: Measure) -> Figure:
    names = {(each.region.kind, each.region.key): each.region.display for each in evaluation.regions}
    rows = {row: index for index, row in enumerate(names)}
    sides = list(dict.fromkeys(each.region.side for each in evaluation.regions))
    drawn = [side for side in sides if side is not None] or sides
    figure = Figure(figsize=(9.0, len(rows) * ROW_INCHES + 1.6), layout="constrained")
    axis = figure.subplots()
    limit = _limit(evaluation, measure, drawn)
    for place, side in enumerate(drawn):
        values: dict[float, list[float]] = {}
        for score in evaluation.scores:
            value = score.value(measure)
            if score.region.side is side and value is not None:
                row = rows[score.region.kind, score.region.key] + (place - (len(drawn) - 1) / 2) * SIDE_STEP
                values.setdefault(row, []).append(value)
        _boxes(axis, values, COLOURS[side], limit)
    axis.set_yticks(range(len(rows)), list(names.values()))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(measure.heading)
    axis.set_title(f"{measure.display} (cases: {len(evaluation.cases)})")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    _legend(axis, drawn, limit is not None)
    return figure


def _limit(evaluation: Evaluation, measure: Measure, sides: Sequence[Side | None]) -> float | None:
    """Where the axis of a distance ends: a little beyond the largest to a surface that is there."""
    if measure.better is not Better.LOW:
        return None
    found = [
        score.value(measure)
        for score in evaluation.scores
        if score.presence is Presence.FOUND and score.region.side in sides
    ]
    return 1.05 * max([each for each in found if each is not None], default=1.0) or 1.0


def _boxes(axis: Axes, values: Mapping[float, Sequence[float]], colour: str, limit: float | None) -> None:
    """Draw the values of one side, by row; those beyond the limit as their number at the end of the axis."""
    if not values:
        return
    pen = {"color": colour, "linewidth": 0.9}
    axis.boxplot(
        list(values.values()),
        positions=list(values),
        orientation="horizontal",
        widths=0.3,
        showfliers=False,
        manage_ticks=False,
        boxprops=pen,
        whiskerprops=pen,
        capprops=pen,
        medianprops=pen | {"linewidth": 2.0},
    )
    points = [(value, row) for row, single in values.items() for value in single]
    axis.plot(*zip(*points, strict=True), ".", color=colour, markersize=4, alpha=0.5)
    if limit is None:
        return
    axis.set_xlim(0.0, limit)
    for row, single in values.items():
        beyond = sum(value > limit for value in single)
        if beyond:
            axis.plot([limit], [row], ">", color=colour, clip_on=False, markersize=5)
            axis.annotate(str(beyond), (limit, row), (6, 0), textcoords="offset points", va="center", fontsize=7)


def _legend(axis: Axes, sides: Sequence[Side | None], has_limit: bool) -> None:
    handles = [Line2D([], [], color=COLOURS[side], label="both" if side is None else side.value) for side in sides]
    if has_limit:
        beyond = "missed or invented, or beyond the axis: number of cases"
        handles.append(Line2D([], [], color="#4d4d4d", marker=">", linestyle="", label=beyond))
    axis.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def _bland_altman_panel(axis: Axes, summary: RegionSummary, scores: Sequence[RegionScore]) -> None:
    axis.set_title(summary.region.display, fontsize=9)
    axis.tick_params(labelsize=7)
    if summary.volumes is None:
        axis.text(0.5, 0.5, "in no case", transform=axis.transAxes, ha="center", va="center", color="#777777")
        return
    prediction = np.array([score.prediction_ml for score in scores])
    truth = np.array([score.truth_ml for score in scores])
    axis.plot((prediction + truth) / 2, prediction - truth, ".", color=COLOURS[None])
    axis.axhline(0.0, color="#bbbbbb", linewidth=0.8)
    found = summary.volumes.bland_altman
    lines = ((found.bias, "-", "#b2182b"), (found.lower, "--", "#2166ac"), (found.upper, "--", "#2166ac"))
    for value, style, colour in lines:
        if value is not None:
            axis.axhline(value, color=colour, linestyle=style, linewidth=0.9)
            axis.annotate(
                f"{value:.1f}", (1.0, value), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", fontsize=6, color=colour,
            )  # fmt: skip
    axis.margins(y=0.25)
