"""`vastus demo`: the main job, for real, with a synthetic patient and a stand-in PACS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine.labels import thigh29
from node.cli.console import CONSOLE
from node.cli.tables import stage_table, structure_table
from node.errors import ServiceError
from node.pipeline import STEPS

if TYPE_CHECKING:
    from node.demonstration import DemoFolder, LogReader

KINDS = ("seg", "sr", "sc")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demonstration keeps its files; made anew.")] = Path(
        "demo-output"
    ),
) -> None:
    """Start a node and a stand-in PACS, send a synthetic hip-to-knee scan, and show what comes back."""
    from node import demonstration as parts
    from node.standin_pacs import Peer

    place = parts.DemoFolder(folder)
    place.make_empty()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=CONSOLE
    ) as progress:
        bar = progress.add_task("1/5  synthesising a patient, hip to knee", total=None)
        scan, series = parts.make_patient(place.scan)
        progress.update(bar, total=1, completed=1)
        port, pacs_port = parts.free_port(), parts.free_port()
        settings = place.write_settings(port, Peer("127.0.0.1", pacs_port, parts.PACS_AE))
        with parts.pacs_process(place, pacs_port), parts.node_process(place, settings) as node:
            log = parts.LogReader(place.log, node.check)
            bar = progress.add_task("2/5  starting the node: listener, worker, sender", total=None)
            _await(log, "service.started", parts.START_LIMIT_S)
            progress.update(bar, total=1, completed=1)
            _send(progress, series.files, port)
            done = _watch(progress, log)
            bar = progress.add_task("5/5  stopping the node", total=None)
        progress.update(bar, total=1, completed=1)
    _show(place, done, parts.true_volumes(scan))
    if not parts.port_is_free(port):
        raise ServiceError(f"port {port}", "it is still in use after the node stopped", f"Read {place.log}")
    CONSOLE.print(f"The node is stopped and port {port} is free. Everything lies in [bold]{folder}[/].")


def _send(progress: Progress, files: tuple[Path, ...], port: int) -> None:
    from node.demonstration import NODE_AE, PACS_AE
    from node.standin_pacs import Peer, send_series

    bar = progress.add_task(f"3/5  C-STORE of {len(files)} slices to {NODE_AE} on port {port}", total=len(files))
    statuses = send_series(
        files, Peer("127.0.0.1", port, NODE_AE), PACS_AE, lambda done, _of: progress.update(bar, completed=done)
    )
    refused = [status for status in statuses if status.code != 0]
    if refused:
        raise ServiceError("series", f"{len(refused)} slices were refused: {refused[0].words}", "Read the node's log")


def _await(log: LogReader, name: str, limit_s: float) -> Mapping[str, Any]:
    for event in log.follow(limit_s):
        if event.get("event") == name:
            return event
    raise AssertionError("follow never ends by itself")


def _watch(progress: Progress, log: LogReader) -> Mapping[str, Any]:
    """Show the job's stages until every result is delivered; returns the job's summary line."""
    from node.demonstration import JOB_LIMIT_S

    bar = progress.add_task("4/5  waiting until the series is complete", total=len(STEPS) + len(KINDS))
    done: Mapping[str, Any] = {}
    delivered = 0
    for event in log.follow(JOB_LIMIT_S):
        name = event.get("event")
        if name == "job.stage":
            progress.update(bar, advance=1, description=f"4/5  {event['stage']} took {event['seconds']:.2f} s")
        elif name == "job.done":
            done = event
        elif name == "delivery.sent":
            delivered += 1
            progress.update(bar, advance=1, description=f"4/5  C-STORE to the PACS: {event['kind']}")
        elif name in ("job.parked", "job.failed", "delivery.refused"):
            raise ServiceError(f"the demonstration's {name}", str(event.get("reason")), "Read the node's log")
        if done and delivered == len(KINDS):
            progress.update(bar, completed=len(STEPS) + len(KINDS), description="4/5  segmented, measured, delivered")
            return done
    raise AssertionError("follow never ends by itself")


def _show(place: DemoFolder, done: Mapping[str, Any], truth: Mapping[Any, float]) -> None:
    import pydicom

    from dicom_io.report import read_figures

    table = Table(title="What came back to the PACS", title_justify="left")
    for column in ("modality", "series description", "SOP class", "MB", "file"):
        table.add_column(column, overflow="fold")
    report, words = None, ""
    for path in sorted(place.pacs.glob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        size = f"{path.stat().st_size / 1e6:.1f}"
        description = escape(str(header.SeriesDescription))
        table.add_row(header.Modality, description, header.SOPClassUID.name, size, str(path))
        if header.Modality == "SR":
            report = path
            words = str(header.ContributingEquipmentSequence[0].ContributionDescription)
        if header.Modality == "OT":
            _save_picture(path, place.root / "picture.png")
    CONSOLE.print(table)
    if report is None:
        raise ServiceError("demonstration", "no report came back", f"Read {place.log}")
    CONSOLE.print(structure_table(read_figures(report, thigh29()), truth, thigh29()))
    CONSOLE.print(
        "Read from the report that came back. [dim]true ml[/]: what the scan was synthesised with. *: cut by the "
        "edge of the scan."
    )
    CONSOLE.print(f"[bold]The model, as its results tell[/]: {escape(words)}")
    CONSOLE.print(stage_table(done["seconds"]))
    CONSOLE.print(f"The picture page: [bold]{place.root / 'picture.png'}[/]")


def _save_picture(path: Path, target: Path) -> None:
    import pydicom
    from PIL import Image

    Image.fromarray(pydicom.dcmread(path).pixel_array).save(target)
