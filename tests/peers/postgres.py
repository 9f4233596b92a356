"""A throw-away PostgreSQL server for tests: its own cluster in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_S = 60


@contextmanager
def postgres_server(tmp_path: Path) -> Iterator[str]:
    """Run a server for the length of the block and yield the URL of an empty database on it.

    The test is skipped where PostgreSQL is not installed. The server refuses to run as root, so root lends it the user
    `postgres` and a folder that this user may enter.
    """
    programs = _programs()
    prefix = _as_other_user()
    # pytest's folders are closed to other users, and a Unix socket's path must be short: a folder of its own is both.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if prefix:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", _free_port()
    log = tmp_path / "postgres.log"
    try:
        initdb = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "vastus",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run([*prefix, *map(str, initdb)], check=True, capture_output=True, timeout=PATIENCE_S, cwd=folder)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        start = [programs / "pg_ctl", "-D", data, "-w", "-t", PATIENCE_S, "-o", options, "-l", folder / "log", "start"]
        subprocess.run(
            [*prefix, *map(str, start)], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S + 10, cwd=folder
        )
        try:
            yield f"postgresql+psycopg://vastus@127.0.0.1:{port}/postgres"
        finally:
            # pg_ctl reads the process id from the cluster's own folder, so that no other server can be hit.
            stop = [programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"]
            subprocess.run([*prefix, *map(str, stop)], check=True, capture_output=True, timeout=PATIENCE_S, cwd=folder)
    finally:
        if (folder / "log").exists():
            shutil.copyfile(folder / "log", log)
        shutil.rmtree(folder)


def _programs() -> Path:
    """The folder of the newest installed server."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        pytest.skip("PostgreSQL is not installed (/usr/lib/postgresql/*/bin/initdb)")
    return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)


def _as_other_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and runuser is not installed")
    return ["runuser", "-u", "postgres", "--"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
