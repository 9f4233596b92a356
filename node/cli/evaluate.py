"""`vastus evaluate PREDICTIONS TRUTH`: how well predictions match the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engine.evaluation.cases import LabelScheme
from engine.labels import thigh29
from node.cli.console import CONSOLE

if TYPE_CHECKING:
    from engine.evaluation.summary import Evaluation


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder of label volumes, NIfTI or NRRD, one a case.")
    ],
    truth: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The true ones, under the same names.")],
    images: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="The CTs under the same names: for mean HU and the pictures."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where tables and pictures go.")] = Path(
        "vastus-evaluation"
    ),
    labels: Annotated[
        LabelScheme | None,
        typer.Option(
            help="What the numbers are: segments, 1-58, odd on the right; or structures, 1-29, without sides. "
            "Needed only where the files leave it open."
        ),
    ] = None,
) -> None:
    """Compare label volumes with the truth: overlap, surface distances, volumes, HU; tables and pictures."""
    from engine.evaluation import summary
    from engine.evaluation.folders import CaseFolders, FolderSource
    from engine.evaluation.report import make_empty_folder, write_report

    source = FolderSource(CaseFolders(predictions, truth, images), thigh29(), labels)
    make_empty_folder(output)
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        bar = progress.add_task("reading", total=None)

        def say(case: str, done: int, of: int) -> None:
            progress.update(bar, description=case, completed=done, total=of)

        found = summary.evaluate(source, thigh29(), source.scheme, say)
        progress.update(bar, description="writing tables and pictures", total=None)
        files = write_report(output, found, source)
    _tell(found, files)


def _tell(found: Evaluation, files: Sequence[Path]) -> None:
    from node.cli.evaluation_table import evaluation_table

    CONSOLE.print(evaluation_table(found))
    CONSOLE.print(
        f"Cases: {len(found.cases)}. Labels by {found.scheme.value}. Missed, invented: cases with a structure in the "
        "truth or in the prediction alone; they count with Dice 0 and the diagonal of the scan, but for ASSD found."
    )
    for path in files:
        CONSOLE.print(str(path), markup=False, highlight=False, soft_wrap=True)
