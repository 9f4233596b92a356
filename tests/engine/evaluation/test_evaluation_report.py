"""The report: tables that say what was found, pictures that show it, and a folder that is whole or untouched."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from label_bodies import Cases, plain_grid, random_case
from matplotlib.collections import LineCollection
from PIL import Image

from engine.evaluation.cases import Case, EvaluationError, LabelScheme
from engine.evaluation.plots import bland_altman_plot, box_plots
from engine.evaluation.report import make_empty_folder, write_report
from engine.evaluation.scores import MEASURES, Presence
from engine.evaluation.summary import Evaluation, evaluate
from engine.evaluation.tables import evaluation_json, number_cell, regions_csv, report_markdown, scores_csv
from engine.evaluation.worst import PREDICTION, TRUTH, worst_page, worst_scores
from engine.labels import thigh29
from engine.volume import Grid

FILES = {
    "report.md",
    "regions.csv",
    "scores.csv",
    "evaluation.json",
    "dice.png",
    "assd.png",
    "hd95.png",
    "rvd.png",
    "bland-altman.png",
    "worst.png",
}


def run(source: Cases, scheme: LabelScheme = LabelScheme.SEGMENTS) -> Evaluation:
    return evaluate(source, thigh29(), scheme, lambda *_: None)


@pytest.fixture(scope="module")
def found(source: Cases) -> Evaluation:
    return run(source)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_of_scores_holds_every_number(found: Evaluation) -> None:
    rows = rows_of(scores_csv(found))
    assert len(rows) == len(found.scores)
    for row, score in zip(rows, found.scores, strict=True):
        assert (row["case"], row["key"], row["side"]) == (score.case, score.region.key, score.region.side_name)
        for measure in MEASURES:
            value = score.value(measure)
            assert row[measure.key] == ("" if value is None else repr(value))


def test_the_csv_of_regions_holds_counts_statistics_and_agreement(found: Evaluation) -> None:
    rows = rows_of(regions_csv(found))
    assert len(rows) == 105
    missed = next(row for row in rows if (row["key"], row["side"]) == ("adductor_magnus", "right"))
    assert (missed["cases_found"], missed["cases_missed"], missed["dice_lowest"]) == ("3", "1", "0.0")
    assert missed["dice_worst_case"] == "case2"
    summary = next(each for each in found.regions if each.region.title == "Adductor magnus, right")
    assert summary.volumes is not None and summary.volumes.icc is not None
    assert float(missed["volume_icc21_value"]) == summary.volumes.icc.icc21.value
    assert float(missed["volume_bias_ml"]) == summary.volumes.bland_altman.bias


def test_the_json_is_strict_and_whole(found: Evaluation) -> None:
    tree = json.loads(evaluation_json(found))
    assert tree["cases"] == list(found.cases) and tree["scheme"] == "segments"
    assert len(tree["regions"]) == 105 and len(tree["overall"]) == 6
    first = tree["regions"][0]
    assert first["measures"]["dice"]["mean"] == found.regions[0].statistics["dice"].mean
    assert set(first["volume_ml"]) == {"cases", "pearson", "icc", "ccc", "bland_altman"}
    json.loads(evaluation_json(run(Cases((random_case("a", 1, hu=False),)))))


def test_the_page_names_every_structure_and_definition(found: Evaluation) -> None:
    page = report_markdown(found, ("dice.png",))
    for structure in thigh29().structures:
        assert page.count(f"| {structure.display} |") >= 3
    for word in (
        "## Structures, right",
        "## Groups, both sides together",
        "MASD",
        "never left out",
        "![dice.png](dice.png)",
    ):
        assert word in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    widths = {line.count(" | ") for line in tables}
    assert len(widths) == 2  # one width for the overall table, one for all others


@pytest.mark.parametrize(("value", "cell"), [(None, "-"), (-0.04, "0.0"), (1.25, "1.2"), (-3.0, "-3.0")])
def test_numbers_for_people(value: float | None, cell: str) -> None:
    assert number_cell(value, 1) == cell


def test_the_worst_come_first_and_by_side(found: Evaluation) -> None:
    worst = worst_scores(found)
    assert len(worst) == 9
    assert {score.presence for score in worst[:2]} == {Presence.MISSED, Presence.INVENTED}
    dice = [score.scores.dice for score in worst if score.scores is not None]
    assert dice == sorted(dice) and len(dice) == 9
    assert all(score.region.side is not None for score in worst)


def panel_of(case: Case) -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """The CT and the outlines [point, (x, y)] of the first panel of the worst page."""
    source = Cases((case,))
    axis = worst_page(run(source), source).axes[0]
    lines = [each for each in axis.collections if isinstance(each, LineCollection)]
    outlines = dict(
        zip((TRUTH, PREDICTION), [[np.asarray(part) for part in each.get_segments()] for each in lines], strict=True)
    )
    return np.asarray(axis.images[0].get_array()), outlines


def test_the_outlines_run_around_the_voxels_on_the_ct() -> None:
    """One voxel of truth at (row 5, column 8), bright in the CT, and a prediction of two beside it."""
    grid = plain_grid((3, 40, 40), (2.0, 5.0, 5.0))
    truth, prediction = np.zeros(grid.shape, dtype=np.uint8), np.zeros(grid.shape, dtype=np.uint8)
    truth[1, 15, 18], prediction[1, 15, 19:21] = 58, 58
    hu = np.where(truth > 0, 200, 0).astype(np.int16)
    image, outlines = panel_of(Case("a", grid, prediction, truth, hu))
    ((row, column),) = np.argwhere(image == 200)
    corners = np.concatenate(outlines[TRUTH])
    assert len(outlines[TRUTH]) == 4 and len(outlines[PREDICTION]) == 6
    assert (corners.min(axis=0) == (column - 0.5, row - 0.5)).all()
    assert (corners.max(axis=0) == (column + 0.5, row + 0.5)).all()
    assert np.concatenate(outlines[PREDICTION]).min(axis=0)[0] == column + 0.5


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
def test_the_patients_right_is_drawn_on_the_left_however_the_scan_lies(flips: tuple[int, int, int]) -> None:
    """Truth on the patient's right (small x), prediction on the left; back (large y) is down."""
    plain = plain_grid((5, 20, 20), (3.0, 2.0, 2.0))
    affine = np.array(plain.affine)
    truth, prediction = np.zeros(plain.shape, dtype=np.uint8), np.zeros(plain.shape, dtype=np.uint8)
    truth[2, 5, 3], prediction[2, 15, 16] = 58, 58
    for axis, sign in enumerate(flips):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (plain.shape[axis] - 1)
            affine[:3, axis] *= -1
    turned = tuple(slice(None, None, sign) for sign in flips)
    case = Case("a", Grid(plain.shape, affine), prediction[turned].copy(), truth[turned].copy())
    _, outlines = panel_of(case)
    middle = {colour: np.concatenate(parts).mean(axis=0) for colour, parts in outlines.items()}
    assert middle[TRUTH][0] < middle[PREDICTION][0] and middle[TRUTH][1] < middle[PREDICTION][1]


def test_a_box_plot_shows_every_case(found: Evaluation) -> None:
    figures = box_plots(found)
    assert set(figures) == {"dice", "assd_mm", "hd95_mm", "rvd_percent"}
    axis = figures["dice"].axes[0]
    drawn = [value for line in axis.lines if line.get_marker() == "." for value in np.asarray(line.get_xdata())]
    by_side = [score for score in found.scores if score.region.side is not None and score.scores is not None]
    assert sorted(drawn) == sorted(score.scores.dice for score in by_side if score.scores is not None)
    assert len(axis.get_yticklabels()) == 35


def test_a_distance_to_nothing_is_marked_at_the_end_of_the_axis(found: Evaluation) -> None:
    axis = box_plots(found)["hd95_mm"].axes[0]
    limit = axis.get_xlim()[1]
    there = [score.scores.hd95_mm for score in found.scores if score.presence is Presence.FOUND and score.scores]
    assert max(there) <= limit < np.linalg.norm([36, 64, 64])
    assert len([line for line in axis.lines if line.get_marker() == ">"]) == 2  # one missed, one invented


def test_a_side_that_is_in_no_case_leaves_its_rows_empty() -> None:
    case = random_case("a", 5)
    source = Cases((Case("a", case.grid, case.prediction // 2 * 2, case.truth // 2 * 2),))
    axis = box_plots(run(source))["rvd_percent"].axes[0]
    (points,) = [line for line in axis.lines if line.get_marker() == "."]
    assert len(np.asarray(points.get_xdata())) == 35


def test_the_bland_altman_lines_are_those_of_the_table(found: Evaluation) -> None:
    axis = bland_altman_plot(found).axes[0]
    summary = next(each for each in found.regions if each.region.title == "Sartorius")
    assert summary.volumes is not None
    plot = summary.volumes.bland_altman
    levels = [float(np.asarray(line.get_ydata())[0]) for line in axis.lines if line.get_marker() != "."]
    assert levels == [0.0, plot.bias, plot.lower, plot.upper]


@pytest.mark.parametrize("scheme", LabelScheme)
def test_the_folder_holds_every_file_and_nothing_else(tmp_path: Path, scheme: LabelScheme) -> None:
    case = random_case("one case", 5, hu=False)
    if scheme is LabelScheme.STRUCTURES:
        case = Case(case.name, case.grid, (case.prediction + 1) // 2, (case.truth + 1) // 2)
    source = Cases((case,))
    folder = tmp_path / "out"
    make_empty_folder(folder)
    files = write_report(folder, run(source, scheme), source)
    assert {path.name for path in files} == {path.name for path in folder.iterdir()} == FILES
    assert files[0].name == "report.md"
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
            assert path.name in files[0].read_text(encoding="utf-8")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(EvaluationError, match="holds something"):
        make_empty_folder(tmp_path)
    with pytest.raises(EvaluationError, match="cannot be made"):
        make_empty_folder(tmp_path / "kept.txt")


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path: Path, source: Cases, found: Evaluation) -> None:
    (tmp_path / "regions.csv").mkdir()
    with pytest.raises(EvaluationError, match=r"regions\.csv"):
        write_report(tmp_path, found, source)
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "regions.csv"}
