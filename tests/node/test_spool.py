from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers.receiver import listen_to_log

from node.errors import SpoolError, SpoolFull
from node.spool import SpaceWatch, Spool

HOSTILE = ("../../etc/passwd", "/etc/passwd", "..", "1.2/../../3", "a\0b", "1.2\n3", "ü" * 40, "")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_kept_bytes_are_the_received_ones_and_no_part_remains(spool: Spool) -> None:
    part = spool.receive(b"content")
    assert part.parent == spool.incoming
    kept = spool.keep(part, "1.2.3", digest(b"content"))
    assert kept.path.read_bytes() == b"content"
    assert spool.path_of(kept.relative) == kept.path
    assert not part.exists()


def test_the_same_bytes_get_the_same_name_and_other_bytes_another_one(spool: Spool) -> None:
    first = spool.keep(spool.receive(b"one"), "1.2.3", digest(b"one"))
    again = spool.keep(spool.receive(b"one"), "1.2.3", digest(b"one"))
    other = spool.keep(spool.receive(b"two"), "1.2.3", digest(b"two"))
    assert again == first
    assert other.path != first.path
    assert first.path.read_bytes() == b"one"


@pytest.mark.parametrize("series_uid", HOSTILE)
def test_no_remote_string_leads_out_of_the_spool(spool: Spool, series_uid: str) -> None:
    kept = spool.keep(spool.receive(b"x"), series_uid, digest(b"x"))
    assert kept.path.resolve().is_relative_to(spool.series.resolve())
    assert kept.path.relative_to(spool.series).parts[1] == f"{digest(b'x')}.dcm"


@given(st.text(max_size=64), st.text(max_size=64))
def test_two_series_never_share_a_folder(first: str, second: str) -> None:
    folders = {hashlib.sha256(uid.encode()).hexdigest()[:32] for uid in (first, second)}
    assert (len(folders) == 1) == (first == second)


def test_sweep_removes_parts_only(spool: Spool) -> None:
    kept = spool.keep(spool.receive(b"whole"), "1.2.3", digest(b"whole"))
    spool.receive(b"left behind")
    spool.receive(b"left behind too")
    assert spool.sweep() == 2
    assert spool.sweep() == 0
    assert kept.path.exists()


def test_a_spool_is_held_by_one_at_a_time(spool: Spool) -> None:
    with spool.held(), pytest.raises(SpoolError, match="another process"), Spool(spool.root).held():
        pass
    with Spool(spool.root).held():
        pass


def test_a_spool_that_is_let_go_in_time_is_waited_for(spool: Spool) -> None:
    with ExitStack() as first:
        first.enter_context(spool.held())
        threading.Timer(0.2, first.pop_all().close).start()
        with Spool(spool.root).held(wait_s=30.0):
            assert (spool.root / "lock").is_file()


def test_quarantine_keeps_the_bytes(spool: Spool) -> None:
    path = spool.quarantine(spool.receive(b"odd"), digest(b"odd"))
    assert path.parent == spool.quarantined
    assert path.read_bytes() == b"odd"
    assert not list(spool.incoming.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_fsync_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    # Stands in for the disk: quotas and delayed allocation report the lack of space only here.
    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpoolFull, match="Free space"):
        spool.receive(b"content")
    assert not list(spool.incoming.iterdir())


def test_a_broken_disk_is_not_called_full(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(SpoolError) as caught:
        spool.receive(b"content")
    assert not isinstance(caught.value, SpoolFull)


def test_the_folder_of_a_new_name_is_synchronised(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synchronised.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    part = spool.receive(b"content")
    monkeypatch.setattr(os, "fsync", watched)
    kept = spool.keep(part, "1.2.3", digest(b"content"))
    assert synchronised == [str(spool.series), str(kept.path.parent)]


@pytest.mark.parametrize("relative", ["/etc/passwd", "../outside", "series/../../outside"])
def test_a_path_that_leads_outside_is_refused(spool: Spool, relative: str) -> None:
    with pytest.raises(SpoolError, match="outside"):
        spool.path_of(relative)


def test_folders_of_a_job(spool: Spool) -> None:
    job = "job-1.2.3-demo-0"
    assert spool.work_folder(job) == spool.jobs / job / "work"
    assert spool.results_folder(job).is_dir()
    assert spool.results_folder(job) == spool.results_folder(job)


@pytest.mark.parametrize("job", ["", ".", "..", "a/b", "-x", "x" * 129, "a\n"])
def test_an_id_that_is_none_of_ours_gets_no_folder(spool: Spool, job: str) -> None:
    with pytest.raises(SpoolError):
        spool.work_folder(job)
    assert not list(spool.jobs.iterdir())


def test_a_spool_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file is in the way")
    with pytest.raises(SpoolError, match="cannot be created"):
        Spool(tmp_path / "spool").prepare()


def test_low_space_is_told_once_and_so_is_its_end(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    events = listen_to_log(monkeypatch)
    free = [1000]
    monkeypatch.setattr(spool, "free_bytes", lambda: free[0])
    watch = SpaceWatch(spool, 100)
    answers = []
    for free[0] in (1000, 109, 50, 200):
        answers.append(watch.room_for(10))
    assert answers == [True, False, False, True]
    assert [name for name, _ in events.told] == ["disk.low", "disk.recovered"]
