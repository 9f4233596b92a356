"""`vastus segment DIR`: a folder of DICOM files in, a folder of results out, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from node.cli.console import CONSOLE, SettingsFile, settings_of
from node.cli.tables import stage_table, structure_table

ALL_PARKED_STATUS = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(segment)


def segment(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder with DICOM files, one or several series.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the results go, one folder a series.")] = Path(
        "vastus-results"
    ),
    settings: SettingsFile = None,
) -> None:
    """Segment the series of a folder through the same pipeline as the service; exit status 3 where none was fit."""
    from node import compose, log
    from node.by_hand import segment_folder

    chosen = settings_of(settings)
    log.configure("error", pretty=True, process="segment")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    done = 0
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        bar = progress.add_task("loading the model", total=None)
        workshop = compose.workshop_of(chosen)

        def say(step: str, windows: int, of: int) -> None:
            progress.update(bar, description=step, completed=windows, total=of or None)

        for job in segment_folder(folder, output, workshop, say):
            name = f"series {job.series.series_uid}"
            if job.outcome.parked is not None:
                parked = job.outcome.parked
                progress.console.print(f"[yellow]parked[/] {name}\n  {parked.code}: {parked.reason}", highlight=False)
                continue
            done += 1
            progress.console.print(f"[green]done[/] {name} -> {job.folder}", highlight=False)
            progress.console.print(structure_table(job.figures, {}, workshop.package.label_set))
            progress.console.print(stage_table(job.outcome.stage_seconds))
    if not done:
        raise typer.Exit(ALL_PARKED_STATUS)
