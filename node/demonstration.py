"""The parts of `vastus demo`: a real node and a stand-in PACS in processes of their own, and a synthetic patient.

Nothing here is a part of the service.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dicom_io.series import SeriesRef
from dicom_io.synthetic import SyntheticStudy, write_series
from engine.labels import Side
from engine.measure import measure
from engine.synthesis import ScanRecipe, SyntheticScan, synthesise, thigh_grid
from node.errors import ServiceError
from node.standin_pacs import Peer

NODE_AE, PACS_AE, DESTINATION = "VASTUS", "DEMOPACS", "pacs"
SHAPE = (150, 288, 352)
SPACING_MM = (4.0, 1.3, 1.3)
SEED = 2024
QUIET_PERIOD_S = 2.0
START_LIMIT_S, STOP_LIMIT_S, JOB_LIMIT_S = 120.0, 90.0, 600.0
MARKER = ".vastus-demo"

SETTINGS = """\
# Written by `vastus demo`: the node on its embedded defaults, with one peer.
[node]
ae_title = "{node_ae}"
state_dir = "{state}"

[listener]
host = "127.0.0.1"
port = {port}
calling_ae_titles = ["{pacs_ae}"]
quiet_period_s = {quiet}

[destinations.{destination}]
ae_title = "{pacs_ae}"
host = "127.0.0.1"
port = {pacs_port}
"""


@dataclass(frozen=True)
class DemoFolder:
    """Where the demonstration keeps everything."""

    root: Path

    @property
    def state(self) -> Path:
        """Spool and database of the node."""
        return self.root / "node"

    @property
    def scan(self) -> Path:
        """The series that is sent."""
        return self.root / "scan"

    @property
    def pacs(self) -> Path:
        """What the stand-in PACS got back."""
        return self.root / "pacs"

    @property
    def log(self) -> Path:
        """The node's log."""
        return self.root / "node.log"

    def make_empty(self) -> None:
        """Make the folder, without what an earlier demonstration left in it.

        Raises:
            ServiceError: there is a folder of that name that no demonstration made.
        """
        if self.root.exists() and any(self.root.iterdir()) and not (self.root / MARKER).exists():
            raise ServiceError(f"folder {self.root}", "it holds something else", "Name another one with --folder")
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        (self.root / MARKER).touch()

    def write_settings(self, port: int, pacs: Peer) -> Path:
        """Write the settings file of a node that knows one peer."""
        path = self.root / "vastus.toml"
        path.write_text(
            SETTINGS.format(
                node_ae=NODE_AE,
                pacs_ae=pacs.ae_title,
                state=self.state.resolve(),
                port=port,
                quiet=QUIET_PERIOD_S,
                destination=DESTINATION,
                pacs_port=pacs.port,
            ),
            encoding="utf-8",
        )
        return path


def make_patient(folder: Path) -> tuple[SyntheticScan, SeriesRef]:
    """Synthesise a hip-to-knee scan and write it as a CT series."""
    scan = synthesise(ScanRecipe(SEED, thigh_grid(SHAPE, SPACING_MM)))
    return scan, write_series(scan.volume, folder, SyntheticStudy(seed=SEED))


def true_volumes(scan: SyntheticScan) -> Mapping[tuple[str, Side | None], float]:
    """The volumes that the scan was made with, ml."""
    rows = measure(scan.volume, scan.truth).segments
    return {(row.segment.structure.key, row.segment.side): row.volume_ml for row in rows}


def free_port() -> int:
    """A TCP port on the loopback address that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could be started on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Process:
    """A process that is stopped in any case; a context manager.

    Args:
        name: what it is, for messages.
        command: its command line.
        output: the file that takes what it prints.
    """

    def __init__(self, name: str, command: list[str], output: Path) -> None:
        self.name = name
        self._command = command
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VASTUS")}
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(self._command, stdout=file, stderr=file, env=environ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to stop, and wait until it has; kill it where it does not."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def check(self) -> None:
        """Refuse to wait for a process that is gone.

        Raises:
            ServiceError: it has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            reason = f"it ended with status {self._process.returncode}"
            raise ServiceError(self.name, reason, f"Read {self._output}")


def pacs_process(folder: DemoFolder, port: int) -> Process:
    """The stand-in PACS."""
    arguments = ["--port", str(port), "--ae-title", PACS_AE, "--folder", str(folder.pacs)]
    return Process("stand-in PACS", [sys.executable, "-m", "node.standin_pacs", *arguments], folder.root / "pacs.log")


def node_process(folder: DemoFolder, settings: Path) -> Process:
    """The node, as an administrator starts it."""
    command = [sys.executable, "-m", "node.cli.main", "serve", "--settings", str(settings)]
    return Process("node", command, folder.log)


class LogReader:
    """Follows the log of a node line by line.

    Args:
        path: the log.
        check: called while waiting; raises where waiting is in vain.
    """

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        self._path = path
        self._check = check
        self._read = 0

    def follow(self, limit_s: float) -> Iterator[Mapping[str, Any]]:
        """Every new event; the caller leaves when it has seen what it waits for.

        Raises:
            ServiceError: the limit passed, or the process is gone.
        """
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            content = self._path.read_bytes() if self._path.exists() else b""
            whole = content.rfind(b"\n") + 1
            lines = content[self._read : whole].splitlines()
            self._read = whole
            for number, line in enumerate(lines):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # what Python itself prints before the log begins
                if isinstance(event, dict):
                    left = sum(len(each) + 1 for each in lines[number + 1 :])
                    self._read = whole - left
                    yield event
            self._check()
            time.sleep(0.1)
        raise ServiceError("demonstration", f"nothing happened within {limit_s:.0f} s", f"Read {self._path}")
