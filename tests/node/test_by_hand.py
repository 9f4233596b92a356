"""The pipeline over a folder, without a network or a database. The network itself is the stub of `stub_workshop`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from stub_workshop import phantom, phantom_series, stub_workshop

from dicom_io.report import read_figures
from dicom_io.synthetic import SyntheticStudy, write_series
from engine.labels import thigh29
from engine.volume import Grid, Volume
from node.by_hand import segment_folder
from node.errors import SpoolError


def test_every_series_of_a_folder_is_done_or_parked(tmp_path: Path) -> None:
    phantom_series(tmp_path / "in" / "thigh", seed=1)
    short = phantom()
    write_series(
        Volume(np.ascontiguousarray(short.hu[:4]), Grid((4, *short.grid.shape[1:]), short.grid.affine)),
        tmp_path / "in" / "short",
        SyntheticStudy(seed=2),
    )
    told: list[str] = []
    jobs = list(
        segment_folder(tmp_path / "in", tmp_path / "out", stub_workshop(), lambda step, _done, _of: told.append(step))
    )
    by_end = {job.outcome.parked is None: job for job in jobs}
    assert len(jobs) == 2 and set(by_end) == {True, False}
    done, parked = by_end[True], by_end[False]
    assert {file.kind for file in done.files} == {"seg", "sr", "sc"}
    assert all(file.path.is_file() for file in done.files)
    report = next(file.path for file in done.files if file.kind == "sr")
    assert read_figures(report, thigh29()) == done.figures
    with (done.folder / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["structure"], row["quantity"], float(row["value"])) for row in rows] == [
        (each.structure, each.quantity, each.value) for each in done.figures
    ]
    assert not (done.folder / "work").exists()
    assert parked.outcome.parked is not None and parked.outcome.parked.code == "too_few_slices"
    assert "too_few_slices" in (parked.folder / "parked.txt").read_text()
    assert {"read", "check", "segment", "measure", "write", "record", "deliver"} <= set(told)


def test_results_never_join_those_of_another_call(tmp_path: Path) -> None:
    phantom_series(tmp_path / "in", seed=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier.dcm").write_bytes(b"results")
    with pytest.raises(SpoolError, match="two patients"):
        list(segment_folder(tmp_path / "in", tmp_path / "out", stub_workshop(), lambda *_: None))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["earlier.dcm"]


def test_two_calls_make_results_with_uids_of_their_own(tmp_path: Path) -> None:
    phantom_series(tmp_path / "in", seed=1)
    uids = []
    for name in ("first", "second"):
        (job,) = segment_folder(tmp_path / "in", tmp_path / name, stub_workshop(), lambda *_: None)
        uids.append({file.sop_instance_uid for file in job.files})
    assert not uids[0] & uids[1]
