"""The pipeline: its order, its ends, and that every step may run twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from stub_workshop import phantom, phantom_series, stub_workshop

from dicom_io.results import ResultFile
from dicom_io.series import SeriesRules
from dicom_io.synthetic import SyntheticStudy, write_series
from dicom_io.uids import derive_uids
from engine.errors import BackendError, SideError
from engine.flags import RaisedFlag
from engine.measure import Measurements
from engine.segmentation import Segmentation
from engine.volume import Volume
from node.made_by import MadeBy
from node.pipeline import STEPS, Counts, Outcome, Parked, StepReport, process, run_plainly
from node.stages import JobOrder, SeriesStages, Workshop

CREATED_AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@dataclass
class Notes:
    """A ledger that only takes notes."""

    told: list[str] = field(default_factory=list)
    files: tuple[ResultFile, ...] = ()
    made_by: MadeBy | None = None
    flags: tuple[RaisedFlag, ...] = ()

    def record(self, order: JobOrder, measurements: Measurements, files: tuple[ResultFile, ...]) -> Counts:
        self.told.append("record")
        self.files = files
        return {"figures": sum(row.voxels > 0 for row in measurements.segments)}

    def note_flags(self, order: JobOrder, raised: tuple[RaisedFlag, ...]) -> Counts:
        self.flags = raised
        return {"flags": len(raised)}

    def deliver(self, order: JobOrder) -> Counts:
        self.told.append("deliver")
        return {}

    def park(self, order: JobOrder, parked: Parked) -> Counts:
        self.told.append(f"park {parked.code}")
        return {}

    def finish(self, order: JobOrder, outcome: Outcome, made_by: MadeBy) -> Counts:
        self.made_by = made_by
        self.told.append("finish")
        return {}


def stages_for(folder: Path, ledger: Notes, workshop: Workshop | None = None, sent: Path | None = None) -> SeriesStages:
    ref = phantom_series(sent or folder / "sent")
    order = JobOrder("job-1", ref, derive_uids("job-1"), CREATED_AT, folder / "job-1")
    return SeriesStages(order, workshop or stub_workshop(), ledger, lambda _done, _of: None)


def run_thrice(name: str, step: Callable[[], StepReport]) -> StepReport:
    step()
    step()
    return step()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.dcm"))}


def test_the_steps_run_in_their_order_and_leave_results(tmp_path: Path) -> None:
    notes, names = Notes(), []

    def listing(name: str, step: Callable[[], StepReport]) -> StepReport:
        names.append(name)
        return step()

    outcome = process(stages_for(tmp_path, notes), listing)
    assert tuple(names) == STEPS
    assert tuple(outcome.stage_seconds) == STEPS[:-1]
    assert outcome.parked is None
    assert outcome.counts["slices"] == 36
    assert outcome.counts["segments"] == 4
    assert notes.told == ["record", "deliver", "finish"]
    assert {file.kind for file in notes.files} == {"seg", "sr", "sc"}
    assert set(digests(tmp_path / "job-1" / "results")) == {"seg.dcm", "sr.dcm", "sc.dcm"}
    assert not (tmp_path / "job-1" / "work").exists()


def test_every_step_may_run_again_and_gives_the_same_bytes(tmp_path: Path) -> None:
    process(stages_for(tmp_path / "once", Notes(), sent=tmp_path / "sent"), run_plainly)
    process(stages_for(tmp_path / "often", Notes(), sent=tmp_path / "sent"), run_thrice)
    once = digests(tmp_path / "once" / "job-1" / "results")
    assert len(once) == 3
    assert digests(tmp_path / "often" / "job-1" / "results") == once


def test_every_report_is_small_plain_json(tmp_path: Path) -> None:
    adapter, sizes = TypeAdapter(StepReport), []

    def through_json(name: str, step: Callable[[], StepReport]) -> StepReport:
        text = json.dumps(adapter.dump_python(step(), mode="json"))
        sizes.append(len(text))
        return adapter.validate_python(json.loads(text))

    outcome = process(stages_for(tmp_path, Notes()), through_json)
    assert outcome.parked is None
    assert max(sizes) < 400


@pytest.mark.parametrize(
    ("change", "code", "last_step"),
    [
        (lambda workshop: replace(workshop, rules=SeriesRules(999, 1.0)), "too_few_slices", "read"),
        (
            lambda workshop: replace(workshop, segmenter=Raising(SideError("scan", "mirrored", "Look"))),
            "sides_unclear",
            "segment",
        ),
        (lambda workshop: replace(workshop, segmenter=Blind()), "nothing_found", "segment"),
    ],
)
def test_an_expected_failure_parks_the_series_and_ends_the_job(
    tmp_path: Path, change: Callable[[Workshop], Workshop], code: str, last_step: str
) -> None:
    notes = Notes()
    outcome = process(stages_for(tmp_path, notes, change(stub_workshop())), run_plainly)
    assert outcome.parked is not None
    assert outcome.parked.code == code
    assert tuple(outcome.stage_seconds)[-1] == last_step
    assert notes.told == [f"park {code}"]
    assert not (tmp_path / "job-1" / "work").exists()


def test_a_scan_without_thighs_is_parked(tmp_path: Path) -> None:
    empty = Volume(np.full_like(phantom().hu, -1000), phantom().grid)
    ref = write_series(empty, tmp_path / "sent", SyntheticStudy(seed=3))
    notes = Notes()
    order = JobOrder("job-1", ref, derive_uids("job-1"), CREATED_AT, tmp_path / "job-1")
    outcome = process(SeriesStages(order, stub_workshop(), notes, lambda _done, _of: None), run_plainly)
    assert notes.told == ["park not_thighs"]
    assert outcome.parked is not None
    assert outcome.parked.reason


def test_a_fault_of_the_node_is_raised(tmp_path: Path) -> None:
    broken = replace(stub_workshop(), segmenter=Raising(BackendError("backend stub", "broken", "Repair it")))
    notes = Notes()
    with pytest.raises(BackendError):
        process(stages_for(tmp_path, notes, broken), run_plainly)
    assert notes.told == []


@dataclass
class Raising:
    error: Exception

    def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
        raise self.error


class Blind:
    def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
        return Segmentation(np.zeros(volume.hu.shape, np.uint8), volume.grid, stub_workshop().package.label_set)
