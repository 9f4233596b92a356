"""Real CT that is no thigh: stored byte for byte, and parked with a reason; never a muscle."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from db.models import Instance, Job, Measurement, Result
from node.demonstration import NODE_AE
from node.standin_pacs import Peer, StandinPacs, send_series
from peers.orthanc import wait_until
from peers.ports import free_port
from peers.whole_node import whole_node

PACS = "PACS"


def identified(path: Path, folder: Path) -> Path:
    """The file, or a copy with the UIDs that its anonymiser blanked: no PACS could send it without them."""
    dataset = dcmread(path)
    if dataset.get("SOPInstanceUID"):
        return path
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.11", "2.25.12"
    dataset.save_as(folder / path.name)
    return folder / path.name


def series_files(root: Path, folder: Path) -> dict[str, list[Path]]:
    """Files by Series Instance UID."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            known = identified(path, folder)
            groups[str(dcmread(known, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)].append(known)
    return groups


@pytest.mark.slow
def test_every_real_series_is_stored_and_parked_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "identified").mkdir()
    groups = series_files(shared_data / "dicom", tmp_path / "identified")
    assert len(groups) > 8
    port, pacs_port = free_port(), free_port()
    with (
        StandinPacs(pacs_port, PACS, tmp_path / "pacs") as pacs,
        whole_node(tmp_path / "node", port, PACS, pacs_port) as node,
    ):
        for files in groups.values():
            statuses = send_series(files, Peer("127.0.0.1", port, NODE_AE), PACS)
            assert [status.code for status in statuses] == [0x0000] * len(files)
        ended = ("series.refused", "series.unselected", "job.parked")
        assert wait_until(lambda: sum(len(node.events(name)) for name in ended) >= len(groups), 120), ended
        assert not node.events("job.failed") and not node.events("program.fault")
        with node.sql() as session:
            jobs = session.scalars(select(Job)).all()
            found = {job.series.series_uid: (job.status, job.reason_code, job.reason) for job in jobs}
            assert not session.scalars(select(Measurement)).all() and not session.scalars(select(Result)).all()
            digests = set(session.scalars(select(Instance.sha256)))
            stored = [node.folder.state / "spool" / path for path in session.scalars(select(Instance.path))]
            assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in stored} == digests
        assert pacs.files() == ()
    assert found.keys() == groups.keys()
    for status, code, reason in found.values():
        assert status == "parked"
        assert code and reason and len(reason) > 20
    assert sum(len(files) for files in groups.values()) == len(digests)
