"""A real `serve` with its three processes as a subprocess, and a stand-in PACS that remembers every C-STORE."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from peers.ports import free_port
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from dicom_io.files import write_durably
from dicom_io.series import SeriesRef
from node.standin_pacs import Peer, send_series
from node.storage_classes import accepted_contexts

SCRIPT = Path(__file__).with_name("kill_service.py")


@dataclass
class Pacs:
    """An SCP that counts what arrives, in order, and answers with `answers` in turn, then with `status`."""

    port: int
    status: int = 0x0000
    answers: list[int] = field(default_factory=list)
    arrived: list[tuple[str, str, bytes]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order of arrival, repeats included."""
        with self.lock:
            return [uid for _, uid, _ in self.arrived]

    def keep(self, event: evt.Event) -> int:
        """Remember one C-STORE request."""
        with self.lock:
            request = event.request
            assert isinstance(request, C_STORE) and request.DataSet is not None
            content = request.DataSet.getvalue()
            self.arrived.append((str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), content))
            return self.answers.pop(0) if self.answers else self.status


@contextmanager
def pacs_on(port: int, status: int = 0x0000) -> Iterator[Pacs]:
    """A PACS on that port."""
    entity = AE(ae_title="PACS")
    entity.supported_contexts = accepted_contexts()
    pacs = Pacs(port, status)
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, pacs.keep)])
    try:
        yield pacs
    finally:
        entity.shutdown()


@dataclass
class Node:
    """A node under test: its settings file, port and plan of death, and the process while it runs."""

    folder: Path
    pacs_port: int
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    database_url: str = ""
    deaths: int = 0

    def __post_init__(self) -> None:
        self.plan("", "")
        self.settings_path.write_text(
            f"""
            [node]
            state_dir = "{self.folder / "state"}"
            [listener]
            host = "127.0.0.1"
            port = {self.port}
            calling_ae_titles = ["SCANNER"]
            quiet_period_s = 0.5
            soft_free_mib = 2
            hard_free_mib = 1
            [database]
            url = "{self.database_url}"
            [series]
            min_slices = 20
            min_coverage_mm = 150.0
            [delivery]
            longest_retry_s = 2.0
            [destinations.pacs]
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {self.pacs_port}
            """
        )

    @property
    def settings_path(self) -> Path:
        """The settings file."""
        return self.folder / "vastus.toml"

    @property
    def state_url(self) -> str:
        """The database, where none was named."""
        return f"sqlite:///{self.folder / 'state' / 'vastus.db'}"

    @property
    def log_path(self) -> Path:
        """What the service wrote."""
        return self.folder / "service.log"

    def plan(self, step: str, moment: str, whom: str = "all") -> None:
        """Say when the service kills itself; it may run already."""
        chosen = {"step": step, "moment": moment, "whom": whom, "marker": str(self._next_marker())}
        write_durably(self.folder / "plan.json", lambda file: _written(file.write(json.dumps(chosen).encode())))

    def _next_marker(self) -> Path:
        self.deaths += 1
        return self.folder / f"death-{self.deaths}"

    @property
    def killed(self) -> bool:
        """Whether it has killed itself by the last plan."""
        return (self.folder / f"death-{self.deaths}").exists()

    def listens(self) -> bool:
        """Whether the port of the listener is open."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False

    def start(self, environ: dict[str, str] | None = None) -> None:
        """Start the supervisor in a process group of its own."""
        command = [sys.executable, str(SCRIPT), str(self.folder / "plan.json"), "serve", "--settings"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.settings_path)],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )

    def stop(self, timeout_s: float = 40.0) -> int:
        """Ask the service to stop, and wait. Returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def kill_all(self) -> None:
        """End what is left of the process group."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def events(self, name: str) -> list[dict[str, object]]:
        """The log lines of one event, over all starts."""
        if not self.log_path.exists():
            return []
        lines = (line for line in self.log_path.read_text().splitlines() if line.startswith("{"))
        return [event for line in lines if (event := json.loads(line)).get("event") == name]

    def send(self, ref: SeriesRef) -> None:
        """Send a series to the listener, as a scanner would."""
        statuses = send_series(ref.files, Peer("127.0.0.1", self.port, "VASTUS"), "SCANNER")
        assert {status.code for status in statuses} == {0x0000}


def _written(_: int) -> None:
    return
