"""The folder that an evaluation leaves: tables, pictures, and a page that holds them together."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.evaluation.cases import CaseSource, EvaluationError
from engine.evaluation.summary import Evaluation
from engine.evaluation.tables import evaluation_json, regions_csv, report_markdown, scores_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.md"
DPI = 110


def make_empty_folder(folder: Path) -> None:
    """Make the folder of a report, before any work is done for it.

    Raises:
        EvaluationError: it cannot be made, or holds something already: two evaluations must not mix.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        reason = f"it cannot be made: {error.strerror}"
        raise EvaluationError(f"output folder {folder}", reason, "Name another with --output") from error
    if occupied:
        reason = "it holds something already, and two evaluations must not mix"
        raise EvaluationError(f"output folder {folder}", reason, "Name an empty one with --output")


def write_report(folder: Path, evaluation: Evaluation, source: CaseSource) -> tuple[Path, ...]:
    """Write all tables and pictures.

    Args:
        folder: must exist; files of the same names are replaced, each once it is whole.
        evaluation: what came of it.
        source: the same cases, for the worst page.

    Returns:
        The files: the page for people first, then tables, then pictures.

    Raises:
        EvaluationError: the disk or the folder refused a file.
    """
    pictures = _draw(evaluation, source)
    texts = {
        REPORT: report_markdown(evaluation, tuple(pictures)),
        "regions.csv": regions_csv(evaluation),
        "scores.csv": scores_csv(evaluation),
        "evaluation.json": evaluation_json(evaluation),
    }
    written = [_write(folder / name, partial(_save_text, text)) for name, text in texts.items()]
    written += [_write(folder / name, partial(_save_figure, figure)) for name, figure in pictures.items()]
    return tuple(written)


def _draw(evaluation: Evaluation, source: CaseSource) -> Mapping[str, Figure]:
    # matplotlib takes a second to load, and whoever evaluates without a report needs none.
    from engine.evaluation.plots import bland_altman_plot, box_plots
    from engine.evaluation.worst import worst_page

    figures = {f"{key.partition('_')[0]}.png": figure for key, figure in box_plots(evaluation).items()}
    figures["bland-altman.png"] = bland_altman_plot(evaluation)
    figures["worst.png"] = worst_page(evaluation, source)
    return figures


def _save_text(text: str, part: Path) -> None:
    part.write_text(text, encoding="utf-8")


def _save_figure(figure: Figure, part: Path) -> None:
    figure.savefig(part, dpi=DPI, format="png")


def _write(path: Path, save: Callable[[Path], None]) -> Path:
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        save(part)
        return part.replace(path)
    except OSError as error:
        reason = f"it cannot be written: {error.strerror or error}"
        raise EvaluationError(f"file {path}", reason, "Check the free space and the rights of its folder") from error
    finally:
        part.unlink(missing_ok=True)
