"""The worst page: where prediction and truth agree least, drawn on the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from engine.evaluation.cases import Case, CaseSource, EvaluationError, Region, RegionKind
from engine.evaluation.scores import Presence, RegionScore, Scores
from engine.evaluation.summary import Evaluation
from engine.evaluation.surface import Box, label_boxes, members, union_box
from engine.resample import closest_orientation
from engine.volume import Grid

PANELS, COLUMNS = 9, 3
MARGIN_MM = 25.0
LOWEST_HU, HIGHEST_HU = -160, 240  # the window of soft tissue
FAT_HU = -100  # what is drawn on where there is no CT
TRUTH, PREDICTION = "#33ff66", "#ff3355"


@dataclass(frozen=True, eq=False)
class _Turned:
    """A case with axes (z, y, x)."""

    grid: Grid
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    hu: NDArray[np.int16] | None
    boxes: tuple[dict[int, Box], dict[int, Box]]


@dataclass(frozen=True, eq=False)
class _Cut:
    """A piece of one axial slice, rows to the back and columns to the patient's left; z_mm is its middle's."""

    prediction: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    hu: NDArray[np.int16] | None
    aspect: float
    z_mm: float


def worst_scores(evaluation: Evaluation, count: int = PANELS) -> tuple[RegionScore, ...]:
    """Structures of single cases with the lowest Dice, by side where there are sides; of equals the larger first."""
    by_side = any(score.region.side is not None for score in evaluation.scores)
    found = [
        (score.scores.dice, -max(score.prediction_ml, score.truth_ml), index)
        for index, score in enumerate(evaluation.scores)
        if score.scores is not None
        and score.region.kind is RegionKind.STRUCTURE
        and (score.region.side is not None) == by_side
    ]
    return tuple(evaluation.scores[index] for *_, index in sorted(found)[:count])


def worst_page(evaluation: Evaluation, source: CaseSource) -> Figure:
    """A figure with the nine worst: the slice of each with the most voxels in one of the two alone.

    Args:
        evaluation: what came of it.
        source: the same cases; those that are shown are loaded again, one at a time.
    """
    chosen = worst_scores(evaluation)
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * 4.0, rows * 4.2 + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for name in dict.fromkeys(score.case for score in chosen):
        scan = _turn(source.load(name))
        for axis, score in zip(axes, chosen, strict=False):
            if score.case == name and score.scores is not None:
                cut = _cut(scan, score.region)
                _panel(axis, cut, f"{score.case}: {score.region.title}\n{_words(score, score.scores)}")
    handles = [Line2D([], [], color=TRUTH, label="truth"), Line2D([], [], color=PREDICTION, label="prediction")]
    words = "The lowest Dice of all cases and structures; patient's right on the left"
    figure.suptitle(words, color="white")
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, labelcolor="white")
    figure.set_facecolor("black")
    return figure


def _words(score: RegionScore, scores: Scores) -> str:
    volumes = f"{score.prediction_ml:.1f} of {score.truth_ml:.1f} ml"
    if score.presence is not Presence.FOUND:
        return f"{score.presence.value}, {volumes}"
    return f"Dice {scores.dice:.3f}, ASSD {scores.assd_mm:.1f} mm, {volumes}"


def _turn(case: Case) -> _Turned:
    orientation = closest_orientation(case.grid)
    prediction, truth = orientation.turn(case.prediction), orientation.turn(case.truth)
    hu = None if case.hu is None else orientation.turn(case.hu)
    boxes = (label_boxes(prediction), label_boxes(truth))
    return _Turned(orientation.turn_grid(case.grid), prediction, truth, hu, boxes)


def _cut(scan: _Turned, region: Region) -> _Cut:
    box = union_box(region.values, *scan.boxes)
    if box is None:
        raise EvaluationError(f"{region.title}", "it is not in the case that was scored", "Leave the files as they are")
    prediction, truth = (members(labels[box], region.values) for labels in (scan.prediction, scan.truth))
    level = int(np.count_nonzero(prediction != truth, axis=(1, 2)).argmax())
    either = np.argwhere(prediction[level] | truth[level]) + np.array([box[1].start, box[2].start])
    margin = np.ceil(MARGIN_MM / np.array(scan.grid.spacing_mm[1:])).astype(int)
    low = np.maximum(either.min(axis=0) - margin, 0)
    high = either.max(axis=0) + margin + 1
    part = (level + box[0].start, slice(low[0], high[0]), slice(low[1], high[1]))
    place = scan.grid.to_patient(np.array([part[0], *either.mean(axis=0)]))
    return _Cut(
        prediction=members(scan.prediction[part], region.values),
        truth=members(scan.truth[part], region.values),
        hu=None if scan.hu is None else scan.hu[part],
        aspect=scan.grid.spacing_mm[1] / scan.grid.spacing_mm[2],
        z_mm=float(place[2]),
    )


def _panel(axis: Axes, cut: _Cut, title: str) -> None:
    axis.set_title(f"{title}, z {cut.z_mm:.1f} mm", fontsize=8, color="white")
    shown = np.full(cut.truth.shape, FAT_HU) if cut.hu is None else cut.hu
    axis.imshow(shown, cmap="gray", vmin=LOWEST_HU, vmax=HIGHEST_HU, aspect=cut.aspect, interpolation="nearest")
    for mask, colour in ((cut.truth, TRUTH), (cut.prediction, PREDICTION)):
        _outline(axis, mask, colour)


def _outline(axis: Axes, mask: NDArray[np.bool_], colour: str) -> None:
    """The edges between the voxels, exactly: a smoothed contour would hide a voxel's difference."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, down = np.diff(padded, axis=1) != 0, np.diff(padded, axis=0) != 0
    segments: list[Sequence[tuple[float, float]]] = []
    segments += [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for y, x in np.argwhere(across)]
    segments += [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for y, x in np.argwhere(down)]
    axis.add_collection(LineCollection(segments, colors=colour, linewidths=1.0))
