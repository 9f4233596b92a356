"""What the stages hand on. The network itself is the stub of `stub_workshop`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from stub_workshop import RuleSegmenter, phantom_series, stub_workshop
from test_pipeline import Notes, stages_for

from engine.errors import DeviceMemoryError
from engine.plugins import Credit
from engine.segmentation import Segmentation
from engine.volume import Volume
from node import log
from node.by_hand import segment_folder
from node.errors import JobsError
from node.pipeline import Outcome
from node.stages import Workshop


@pytest.fixture
def in_seoul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "KST-9")
        time.tzset()
        yield
    time.tzset()


def test_results_bear_the_hospitals_own_time(in_seoul: None, tmp_path: Path) -> None:
    phantom_series(tmp_path / "in")
    began = time.localtime()
    (job,) = segment_folder(tmp_path / "in", tmp_path / "out", stub_workshop(), lambda *_: None)
    for file in job.files:
        header = pydicom.dcmread(file.path, stop_before_pixels=True)
        stated = time.strptime(header.ContentDate + header.ContentTime[:6], "%Y%m%d%H%M%S")
        assert 0 <= time.mktime(stated) - time.mktime(began) + 1 < 120


class Full(RuleSegmenter):
    """A segmenter whose device holds batches up to some size."""

    def __init__(self, batch: int, room: int, tried: list[int]) -> None:
        self.batch, self.room, self.tried = batch, room, tried

    def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
        self.tried.append(self.batch)
        if self.batch > self.room:
            raise DeviceMemoryError("device", "it has too little memory", "Lower the batch")
        return super().segment(volume, progress)

    def with_half_batch(self) -> Full:
        return Full(self.batch // 2, self.room, self.tried)


@pytest.mark.parametrize(("room", "parked"), [(8, None), (4, None), (3, "out_of_memory")])
def test_too_little_memory_is_met_once_with_half_the_batch_and_then_parked(
    room: int, parked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def note(name: str, **_fields: Any) -> None:
        told.append(name)

    monkeypatch.setattr(log, "event", note)
    phantom_series(tmp_path / "in")
    tried: list[int] = []
    workshop = replace(stub_workshop(), segmenter=Full(8, room, tried))
    (job,) = segment_folder(tmp_path / "in", tmp_path / "out", workshop, lambda *_: None)
    assert tried == ([8] if room == 8 else [8, 4])
    assert told.count("device.exhausted") == (room < 8)
    assert (job.outcome.parked.code if job.outcome.parked else None) == parked
    if job.outcome.parked:
        assert "too little memory" in job.outcome.parked.reason
        assert "vastus jobs --retry" in job.outcome.parked.reason


def credited(workshop: Workshop, version: str) -> Workshop:
    parts = tuple(
        Credit(role, f"{role} of {version}", "some-parts", version) for role in ("backend", "model", "writer")
    )
    return replace(workshop, plugins=parts)


def test_results_name_who_segmented_and_not_who_wrote_them(tmp_path: Path) -> None:
    first = credited(replace(stub_workshop(), backend="first", precision="fp16"), "1")
    second = credited(replace(stub_workshop(), backend="second", precision="bf16"), "2")
    notes = Notes()
    before = stages_for(tmp_path, notes, first)
    for stage in (before.read, before.check, before.segment):
        stage()
    after = stages_for(tmp_path, notes, second, sent=tmp_path / "again")
    for stage in (after.measure, after.write, after.record):
        stage()
    after.finish(Outcome({}, {}))
    assert notes.made_by is not None
    assert (notes.made_by.backend, notes.made_by.precision) == ("first", "fp16")
    assert [str(part) for part in notes.made_by.plugins] == [
        "backend backend of 1 of some-parts 1",
        "model model of 1 of some-parts 1",
        "writer writer of 2 of some-parts 2",
    ]
    report = str(pydicom.dcmread(next(file.path for file in notes.files if file.kind == "sr")))
    assert "first" in report and "second" not in report
    assert "backend of 1" in report and "backend of 2" not in report


def test_labels_of_another_model_are_never_taken_for_ones_own(tmp_path: Path) -> None:
    notes, other = Notes(), replace(stub_workshop().package, version="2", digest="1" * 64)
    before = stages_for(tmp_path, notes)
    for stage in (before.read, before.check, before.segment, before.measure, before.write):
        stage()
    after = stages_for(tmp_path, notes, replace(stub_workshop(), package=other), sent=tmp_path / "again")
    for stage in (after.measure, after.write, after.record):
        with pytest.raises(JobsError, match=r"stub 0 .* stub 2 .*vastus jobs --retry job-1"):
            stage()
    after.finish(Outcome({}, {}))
    assert notes.made_by is not None
    assert (notes.made_by.model_version, notes.made_by.model_digest) == ("0", "0" * 64)


def test_a_job_whose_folder_does_not_tell_who_segmented_names_who_ends_it(tmp_path: Path) -> None:
    notes = Notes()
    stages = stages_for(tmp_path, notes)
    stages.finish(Outcome({}, {}))
    assert notes.made_by == stub_workshop().made_by
