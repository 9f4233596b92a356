from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from peers.instances import data_set_bytes, write_ct, write_series
from peers.ports import LOOPBACK, free_port, wait_for_port
from peers.scu import request

from node.errors import NetworkError
from node.standin_pacs import Peer, StandinPacs, send_series


def test_it_keeps_what_it_is_sent_and_answers_echo(tmp_path: Path) -> None:
    files = [*write_series(tmp_path, "leg", 2), write_ct(tmp_path, "leg", 3, "1.2.840.10008.1.2.4.201")]
    seen: list[tuple[int, int]] = []
    with StandinPacs(0, "PACS", tmp_path / "pacs") as pacs:
        statuses = send_series(files, pacs.peer, "VASTUS", lambda done, of: seen.append((done, of)))
        assert [status.code for status in statuses] == [0, 0, 0]
        assert seen == [(1, 3), (2, 3), (3, 3)]
        assert {data_set_bytes(path) for path in pacs.files()} == {data_set_bytes(path) for path in files}
        send_series(files, pacs.peer, "VASTUS")
        assert len(pacs.files()) == 3
        made = request(pacs.peer)
        assert made.send_c_echo().Status == 0
        made.release()


def test_a_rejection_is_told_in_words(tmp_path: Path) -> None:
    files = write_series(tmp_path, "leg", 1)
    with StandinPacs(0, "PACS", tmp_path / "pacs") as pacs:
        wrong = Peer(pacs.peer.host, pacs.peer.port, "OTHER")
        with pytest.raises(NetworkError, match="called AE title not recognized"):
            send_series(files, wrong, "VASTUS")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom leaves that socket open
def test_a_peer_that_is_away_is_told(tmp_path: Path) -> None:
    files = write_series(tmp_path, "leg", 1)
    with pytest.raises(NetworkError, match="cannot be reached"):
        send_series(files, Peer(LOOPBACK, free_port(), "PACS"), "VASTUS")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with StandinPacs(0, "PACS", tmp_path / "pacs") as pacs, pytest.raises(NetworkError, match="Choose another port"):
        StandinPacs(pacs.peer.port, "PACS", tmp_path / "second").start()


def test_it_runs_as_a_process_and_ends_when_asked(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "node.standin_pacs", "--port", str(port), "--ae-title", "PACS"]
    repository = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path / "pacs")],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_for_port(port, 60)
        send_series(write_series(tmp_path, "leg", 1), Peer(LOOPBACK, port, "PACS"), "VASTUS")
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert f"PACS listens on {LOOPBACK}:{port}" in told
    assert len(list((tmp_path / "pacs").glob("*.dcm"))) == 1
