"""Flags on their way through the stages: kept, told in the log, or the end of the job."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_workshop import SPACING_MM, phantom, stub_workshop
from test_pipeline import CREATED_AT, Notes

from dicom_io.series import SeriesRef
from dicom_io.synthetic import SyntheticStudy, write_series
from dicom_io.uids import derive_uids
from engine.flags import Policy, RaisedFlag, flag_of
from engine.volume import Volume
from node import log
from node.by_hand import FolderLedger
from node.events import EVENTS
from node.pipeline import Parked
from node.stages import JobOrder, SeriesStages, Workshop

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    events: Told = []
    monkeypatch.setattr(log, "event", lambda name, **fields: events.append((name, fields)))
    return events


@pytest.fixture(scope="module")
def with_nail(tmp_path_factory: pytest.TempPathFactory) -> SeriesRef:
    """The phantom with a nail, of a patient on the front."""
    hu = phantom().hu.copy()
    hu[10:20, 36, 20] = 3000
    folder = tmp_path_factory.mktemp("nail")
    return write_series(Volume(hu, phantom().grid), folder, SyntheticStudy(seed=3, patient_position="HFP"))


def stages(ref: SeriesRef, folder: Path, ledger: Notes, policies: dict[str, Policy]) -> SeriesStages:
    workshop: Workshop = replace(stub_workshop(), policies=policies)
    order = JobOrder("job-1", ref, derive_uids("job-1"), CREATED_AT, folder)
    return SeriesStages(order, workshop, ledger, lambda _done, _of: None)


def test_flags_of_both_stages_reach_the_ledger_however_often_a_stage_runs(
    with_nail: SeriesRef, tmp_path: Path, told: Told
) -> None:
    notes = Notes()
    job = stages(with_nail, tmp_path, notes, {"metal": Policy.NOTE})
    for stage in (job.read, job.check, job.segment, job.measure, job.check, job.measure):
        assert not isinstance(stage(), Parked)
    kept = json.loads((tmp_path / "work" / "flags.json").read_bytes())
    assert [[row["code"] for row in rows] for rows in kept.values()] == [
        ["not_supine", "position_conflict", "metal", "thick_slices"],
        ["hip_missing", "knee_missing", "truncated"],
    ]
    job.park(Parked("any", "words"))
    by_code = {each.flag.code: each for each in notes.flags}
    assert len(by_code) == len(notes.flags) == 7
    assert by_code["metal"].policy is Policy.NOTE
    assert by_code["metal"].flag.number == pytest.approx(10 * SPACING_MM**3 / 1000)
    assert by_code["not_supine"].policy is Policy.WARN
    metal = next(fields for name, fields in told if name == "flag.raised" and fields["code"] == "metal")
    assert (metal["job_id"], metal["policy"], metal["unit"]) == ("job-1", "note", "ml")
    assert EVENTS["flag.raised"].level == "info"


@pytest.mark.parametrize(
    ("code", "last", "words"),
    [
        ("metal", "check", "ml of metal"),
        ("knee_missing", "check", "knee joints are not whole"),
        ("truncated", "measure", "structures are cut off"),
    ],
)
def test_a_refused_flag_parks_the_job_as_soon_as_it_is_known(
    code: str, last: str, words: str, with_nail: SeriesRef, tmp_path: Path
) -> None:
    notes = Notes()
    job = stages(with_nail, tmp_path, notes, {code: Policy.REFUSE})
    job.read()
    before: dict[str, tuple[Callable[[], object], ...]] = {"check": (), "measure": (job.check, job.segment)}
    for stage in before[last]:
        assert not isinstance(stage(), Parked)
    end = {"check": job.check, "measure": job.measure}[last]()
    assert isinstance(end, Parked)
    assert end.code == code
    assert words in end.reason
    job.park(end)
    assert (code, Policy.REFUSE) in [(each.flag.code, each.policy) for each in notes.flags]


def test_by_hand_flags_lie_in_a_table(tmp_path: Path) -> None:
    raised = RaisedFlag(flag_of("metal", "There are 3.0 ml of metal.", 3.0), Policy.WARN)
    silent = RaisedFlag(flag_of("contrast_medium", "It was given."), Policy.NOTE)
    order = JobOrder("job-1", SeriesRef("1", "2", ()), derive_uids("job-1"), CREATED_AT, tmp_path)
    FolderLedger(stub_workshop()).note_flags(order, (raised, silent))
    with (tmp_path / "flags.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["code"], row["policy"], row["number"], row["unit"]) for row in rows] == [
        ("metal", "warn", "3.0", "ml"),
        ("contrast_medium", "note", "", "1"),
    ]
