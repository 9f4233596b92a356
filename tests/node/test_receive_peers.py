from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import dcmtk
from peers.instances import data_set_bytes, write_series
from peers.orthanc import NodeAddress, orthanc_server, wait_until
from peers.receiver import AE_TITLE, Events, listen_to_log, receiver
from pydicom import dcmread

from node.standin_pacs import Peer, send_series


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Wait until something is so. Returns whether it is."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_echoscu(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path) as node:
        answer = dcmtk.echoscu(node.listener.port, AE_TITLE)
        assert answer.returncode == 0, answer.stdout
        wrong = dcmtk.echoscu(node.listener.port, "SOMEONE")
    assert wrong.returncode != 0
    assert "Called AE Title Not Recognized" in wrong.stdout
    assert len(events.named("echo.received")) == 1


def test_storescu_sends_real_images_in_the_syntax_they_have(tmp_path: Path, shared_data: Path, events: Events) -> None:
    files = sorted((shared_data / "dicom" / "wg04-transfer-syntaxes").glob("*.dcm"))
    assert files
    with receiver(tmp_path) as node:
        for path in files:
            syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
            sent = dcmtk.storescu([path], node.listener.port, AE_TITLE, options=["-R", dcmtk.PROPOSE[syntax]])
            assert sent.returncode == 0, sent.stdout
            row = node.instances()[-1]
            assert row.transfer_syntax_uid == syntax
            kept = dcmread(node.spool.path_of(row.path))
            assert kept.PixelData == dcmread(path).PixelData
        node.verify()


def test_storescu_sends_a_series(tmp_path: Path, shared_data: Path, events: Events) -> None:
    files = sorted((shared_data / "dicom" / "ge-head-tilt18-variable-spacing").glob("*.dcm"))
    with receiver(tmp_path) as node:
        sent = dcmtk.storescu(files, node.listener.port, AE_TITLE)
        assert sent.returncode == 0, sent.stdout
        assert len(node.instances()) == len(files)
        assert len(node.series()) == 1
        node.verify()
    assert until(lambda: events.named("association.released"))


def test_real_objects_of_every_kind_are_stored(tmp_path: Path, shared_data: Path, events: Events) -> None:
    folders = ("philips-localizer", "philips-secondary-capture", "ge-lightspeed-3-slices", "pydicom-samples")
    found = [path for folder in folders for path in sorted((shared_data / "dicom" / folder).rglob("*"))]
    files = [path for path in found if path.is_file() and path.suffix not in (".txt", ".md")]
    with receiver(tmp_path) as node:
        statuses = send_series(files, node.peer, "PACS")
        assert {status.code for status in statuses} == {0}
        for row in node.instances():
            assert data_set_bytes(node.spool.path_of(row.path)) in {data_set_bytes(path) for path in files}
        node.verify()


def test_titles_that_storescu_gets_wrong(tmp_path: Path, events: Events) -> None:
    files = write_series(tmp_path, "leg", 1)
    with receiver(tmp_path, calling_ae_titles=("PACS",)) as node:
        calling = dcmtk.storescu(files, node.listener.port, AE_TITLE, calling_ae="STRANGER")
        called = dcmtk.storescu(files, node.listener.port, "SOMEONE")
        assert not node.instances()
    assert calling.returncode != 0
    assert "Calling AE Title Not Recognized" in calling.stdout
    assert called.returncode != 0
    assert "Called AE Title Not Recognized" in called.stdout
    assert [told["code"] for told in events.named("association.rejected")] == ["1/1/3", "1/1/7"]


def test_a_sender_killed_in_the_middle_leaves_whole_instances_only(
    tmp_path: Path, shared_data: Path, events: Events
) -> None:
    files = sorted((shared_data / "dicom" / "ge-head-tilt18-variable-spacing").glob("*.dcm"))
    with receiver(tmp_path) as node:
        command = dcmtk.storescu_command(files * 10, node.listener.port, AE_TITLE)
        sender = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert until(lambda: len(node.files()) >= 3)
        sender.kill()
        sender.wait()
        assert until(lambda: events.named("association.aborted"))
        assert node.listener.open_series() == frozenset()
        assert until(lambda: len(node.instances()) == len(node.files()))
        node.verify()
        again = dcmtk.storescu(files, node.listener.port, AE_TITLE)
        assert again.returncode == 0, again.stdout
        assert len(node.instances()) == len(files)
        node.verify()


def test_orthanc_routes_a_series(tmp_path: Path, events: Events) -> None:
    files = write_series(tmp_path, "leg", 4)
    with (
        receiver(tmp_path) as node,
        orthanc_server(tmp_path / "orthanc", NodeAddress(AE_TITLE, node.listener.port)) as orthanc,
    ):
        orthanc.echo_node()
        pacs = Peer("127.0.0.1", orthanc.dicom_port, orthanc.ae_title)
        assert {status.code for status in send_series(files, pacs, "CT1")} == {0}
        assert wait_until(lambda: len(node.instances()) == len(files)), orthanc.log.read_text()[-3000:]
        assert [row.calling_ae for row in node.series()] == ["ORTHANC"]
        node.verify()
