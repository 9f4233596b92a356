"""Series without a PACS: the same pipeline over the files of a folder, results into another folder."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from db.session import now
from dicom_io.findings import Figure, figures
from dicom_io.results import ResultFile
from dicom_io.series import SeriesRef, find_series
from dicom_io.uids import derive_uids
from engine.flags import RaisedFlag
from engine.labels import side_word
from engine.measure import Measurements
from node.errors import SpoolError
from node.made_by import MadeBy
from node.pipeline import Counts, Outcome, Parked, StepReport, StepRunner, process, run_plainly
from node.stages import JobOrder, SeriesStages, Workshop

Say = Callable[[str, int, int], None]
"""Told the step that runs, and the windows done and in all (0 of 0 outside the network)."""


@dataclass
class FolderLedger:
    """Remembers one job as a table of its figures beside its results.

    Attributes:
        workshop: what the job is made with.
        figures: what the report states; empty until the job is recorded.
        files: the results.
    """

    workshop: Workshop
    figures: tuple[Figure, ...] = ()
    files: tuple[ResultFile, ...] = field(default=())

    def record(self, order: JobOrder, measurements: Measurements, files: tuple[ResultFile, ...]) -> Counts:
        """Write `measurements.csv`, and beside it `model.txt`: what made them, whose that is, and what they are for."""
        self.figures, self.files = figures(measurements), files
        model, parts = self.workshop.package, [str(part) for part in self.workshop.plugins]
        words = (f"{model.name} {model.version}", model.intended_use, model.training_statement, model.attribution)
        (order.folder / "model.txt").write_text("\n".join(filter(None, (*words, *parts))) + "\n", encoding="utf-8")
        with (order.folder / "measurements.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("structure", "side", "quantity", "value", "unit", "flags"))
            for each in self.figures:
                row = (each.structure, side_word(each.side), each.quantity, each.value, each.unit, " ".join(each.flags))
                table.writerow(row)
        return {"figures": len(self.figures)}

    def note_flags(self, order: JobOrder, raised: tuple[RaisedFlag, ...]) -> Counts:
        """Write `flags.csv`."""
        order.folder.mkdir(parents=True, exist_ok=True)
        with (order.folder / "flags.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("code", "policy", "number", "unit", "words"))
            for each in raised:
                number = "" if each.flag.number is None else each.flag.number
                table.writerow((each.flag.code, each.policy.value, number, each.flag.unit, each.flag.words))
        return {"flags": len(raised)}

    def deliver(self, order: JobOrder) -> Counts:
        """Nowhere: the folder is where the results stay."""
        return {"destinations": 0}

    def park(self, order: JobOrder, parked: Parked) -> Counts:
        """Write the reason beside where the results would be."""
        order.folder.mkdir(parents=True, exist_ok=True)
        (order.folder / "parked.txt").write_text(f"{parked.code}: {parked.reason}\n", encoding="utf-8")
        return {}

    def finish(self, order: JobOrder, outcome: Outcome, made_by: MadeBy) -> Counts:
        """Nothing is left to do."""
        return {}


@dataclass(frozen=True)
class HandJob:
    """How one series of a folder ended."""

    series: SeriesRef
    folder: Path
    outcome: Outcome
    figures: tuple[Figure, ...]
    files: tuple[ResultFile, ...]


def segment_folder(folder: Path, output: Path, workshop: Workshop, say: Say) -> Iterator[HandJob]:
    """Take every series of a folder through the pipeline.

    Every call makes new results with UIDs of their own: they were not asked for by a PACS and never replace those
    that a node has sent.

    Raises:
        SpoolError: the output folder holds something already: results of two patients must never lie together.
        DicomIoError: the folder holds no DICOM, or a damaged file.
    """
    _make_empty(output)
    for number, series in enumerate(find_series(folder), start=1):
        job_id = f"job-{uuid.uuid4().hex}"
        target = output / f"series-{number:02d}"
        target.mkdir()
        ledger = FolderLedger(workshop)
        order = JobOrder(job_id, series, derive_uids(job_id), now(), target)
        stages = SeriesStages(order, workshop, ledger, lambda done, of: say("segment", done, of))
        outcome = process(stages, _told(say))
        yield HandJob(series, target, outcome, ledger.figures, ledger.files)


def _make_empty(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        reason = "it holds something already, and results of two patients must never lie together"
        raise SpoolError(f"output folder {output}", reason, "Name an empty one with --output")


def _told(say: Say) -> StepRunner:
    def run(name: str, step: Callable[[], StepReport]) -> StepReport:
        say(name, 0, 0)
        return run_plainly(name, step)

    return run
