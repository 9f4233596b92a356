"""A disk that is full while associations are open: a spool on a small file system, real associations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers.disks import enlarge, fill, small_disk
from peers.instances import write_ct, write_series
from peers.receiver import Events, listen_to_log, receiver
from peers.scu import association, request, store

from node.standin_pacs import send_series

NO_LIMIT = -(1 << 40)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path / "small") as folder:
        yield folder


def test_a_write_that_finds_the_disk_full_is_refused_and_succeeds_when_space_returns(
    tmp_path: Path, disk: Path, events: Events
) -> None:
    first, second = (write_ct(tmp_path, "leg", number, ImageComments="x" * 9000) for number in (1, 2))
    # No limit: only the file system itself knows that it is full.
    with (
        receiver(tmp_path, disk / "spool", soft_free_bytes=NO_LIMIT, hard_free_bytes=NO_LIMIT) as node,
        association(node.peer) as made,
    ):
        assert store(made, first).Status == 0
        filler = fill(disk, left_kib=8)  # room for half of the next one
        answer = store(made, second)
        assert (answer.Status, answer.ErrorComment) == (0xA700, "No space left on the disk")
        assert made.send_c_echo().Status == 0
        assert len(node.instances()) == 1
        node.verify()
        filler.unlink()
        assert store(made, second).Status == 0
        assert len(node.instances()) == 2
        node.verify()


def test_a_disk_that_fills_up_in_the_middle_of_a_series_keeps_what_was_acknowledged(
    tmp_path: Path, disk: Path, events: Events
) -> None:
    files = write_series(tmp_path, "leg", 30, ImageComments="x" * 9000)
    with receiver(tmp_path, disk / "spool", soft_free_bytes=1 << 15, hard_free_bytes=1 << 15) as node:
        codes = [status.code for status in send_series(files, node.peer, "PACS")]
        acknowledged = codes.count(0)
        assert 0 < acknowledged < len(files)
        assert codes == [0] * acknowledged + [0xA700] * (len(files) - acknowledged)
        assert len(node.instances()) == acknowledged
        node.verify()
        assert events.named("disk.low")
        enlarge(disk, size_kib=4096)
        assert {status.code for status in send_series(files, node.peer, "PACS")} == {0}
        assert len(node.instances()) == len(files)
        node.verify()
    assert events.named("disk.recovered")


def test_a_full_disk_rejects_associations_for_the_time_being(tmp_path: Path, disk: Path, events: Events) -> None:
    (path,) = write_series(tmp_path, "leg", 1)
    with receiver(tmp_path, disk / "spool", soft_free_bytes=1 << 15) as node:
        filler = fill(disk)
        made = request(node.peer)
        assert made.is_rejected
        answer = made.acceptor.primitive
        assert answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1)  # transient, PS3.8 9.3.4
        filler.unlink()
        assert send_series([path], node.peer, "PACS")[0].code == 0
        node.verify()
