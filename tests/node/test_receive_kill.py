"""SIGKILL of a listener in the middle of receiving: what was acknowledged is there, and a repeat completes the rest."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kill_listener import LAST, MOMENTS
from peers.instances import uid, write_series
from peers.ports import LOOPBACK
from peers.receiver import AE_TITLE, Receiver, receiver
from peers.scu import request, store

from node.standin_pacs import Peer, send_series

SCRIPT = Path(__file__).with_name("kill_listener.py")


@contextmanager
def listening(folder: Path, moment: str) -> Iterator[tuple[subprocess.Popen[str], Peer]]:
    """A listener in another process, which dies at a moment."""
    command = [sys.executable, str(SCRIPT), str(folder), moment]
    with (
        (folder / "listener.log").open("w") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield process, Peer(LOOPBACK, int(process.stdout.readline()), AE_TITLE)
        finally:
            process.kill()


def send_until_death(files: list[Path], peer: Peer, process: subprocess.Popen[str], kill_after: int) -> int:
    """Send until the listener is gone, or kill it after so many answers and go on. Returns how many were answered."""
    made = request(peer)
    assert made.is_established
    wrapper = made.dul.socket
    assert wrapper is not None
    assert wrapper.socket is not None
    line = wrapper.socket
    answered = 0
    for path in files:
        if answered == kill_after:
            process.kill()
        answer = store(made, path) if made.is_established else None
        if answer is None or "Status" not in answer:
            break
        assert answer.Status == 0
        answered += 1
    made.abort()
    line.close()  # pynetdicom leaves it open where the peer is gone
    return answered


def assert_all_acknowledged_are_there(node: Receiver, answered: int) -> None:
    rows = node.instances()
    assert {uid("leg", number) for number in range(1, answered + 1)} <= {row.sop_instance_uid for row in rows}
    for row in rows:
        assert hashlib.sha256(node.spool.path_of(row.path).read_bytes()).hexdigest() == row.sha256


def assert_a_repeat_completes(node: Receiver, files: list[Path]) -> None:
    assert not node.leftovers()
    assert {status.code for status in send_series(files, node.peer, "PACS")} == {0}
    assert [row.sop_instance_uid for row in node.instances()] == [uid("leg", n + 1) for n in range(len(files))]
    assert [series.run for series in node.series()] == [0]
    node.verify()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_each_moment_of_an_instance(tmp_path: Path, moment: str) -> None:
    files = write_series(tmp_path, "leg", LAST + 2)
    with listening(tmp_path, moment) as (process, peer):
        assert send_until_death(files, peer, process, kill_after=-1) == LAST - 1
        assert process.wait(20) == -signal.SIGKILL
    left = list((tmp_path / "spool" / "incoming").iterdir())
    assert len(left) == (1 if moment in ("writing", "received") else 0)
    with receiver(tmp_path) as node:
        assert_all_acknowledged_are_there(node, LAST - 1)
        assert_a_repeat_completes(node, files)


def test_killed_from_outside_in_the_middle_of_a_series(tmp_path: Path) -> None:
    files = write_series(tmp_path, "leg", 20)
    with listening(tmp_path, "never") as (process, peer):
        answered = send_until_death(files, peer, process, kill_after=7)
        assert 7 <= answered < len(files)
        assert process.wait(20) == -signal.SIGKILL
    with receiver(tmp_path) as node:
        assert_all_acknowledged_are_there(node, answered)
        assert_a_repeat_completes(node, files)
