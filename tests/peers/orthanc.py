"""Orthanc as a PACS: it stores, routes CT series on, and takes results back.

It runs on the loopback address with everything it writes below one folder, and is ended by its process id.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from peers.ports import LOOPBACK, free_port, wait_for_port

BINARIES = ("Orthanc", "/usr/sbin/Orthanc")
NODE = "vastus"  # the name under which Orthanc knows our node

# SendToModality() of Lua fails without a word where the peer is away; the REST call at least says so in the log.
ROUTING = """
function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'CT' then
      print('routing series ' .. seriesId)
      RestApiPost('/modalities/%s/store', DumpJson({ Resources = { seriesId } }, true))
   end
end
"""


@dataclass(frozen=True)
class NodeAddress:
    """Where our node listens, for Orthanc's list of modalities."""

    ae_title: str
    port: int


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        ae_title: its AE title.
        dicom_port: where it takes associations.
        http_port: where it answers REST, without a password.
        log: the file of its log.
    """

    ae_title: str
    dicom_port: int
    http_port: int
    log: Path

    def get(self, path: str) -> Any:
        """GET a JSON answer, as `get("/series")`."""
        return json.loads(self._ask("GET", path, None))

    def get_bytes(self, path: str) -> bytes:
        """GET an answer as it is, as `get_bytes(f"/instances/{id}/file")`."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """POST JSON (or bytes as they are) and return the JSON answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self._ask("POST", path, data)
        return json.loads(answer) if answer else None

    def upload(self, path: Path) -> str:
        """Store a DICOM file through REST. Returns Orthanc's id of the instance."""
        return str(self.post("/instances", path.read_bytes())["ID"])

    def find(self, level: str, **query: str) -> list[str]:
        """Orthanc's ids of what matches, as `find("Series", Modality="SEG")`."""
        return cast(list[str], self.post("/tools/find", {"Level": level, "Query": query}))

    def instances(self, **query: str) -> list[str]:
        """Orthanc's ids of the instances that match, as `instances(SeriesInstanceUID=uid)`."""
        return self.find("Instance", **query)

    def send_to_node(self, orthanc_id: str) -> Any:
        """Send a patient, study, series or instance to our node now, by hand."""
        return self.post(f"/modalities/{NODE}/store", {"Resources": [orthanc_id], "Synchronous": True})

    def echo_node(self) -> None:
        """C-ECHO to our node; raises urllib.error.HTTPError where it fails."""
        self.post(f"/modalities/{NODE}/echo", {})

    def _ask(self, method: str, path: str, data: bytes | None) -> bytes:
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.http_port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return cast(bytes, answer.read())


@contextmanager
def orthanc_server(
    folder: Path, node: NodeAddress, ae_title: str = "ORTHANC", route: bool = True, dicom_port: int | None = None
) -> Iterator[Orthanc]:
    """Run Orthanc for the length of the block.

    Args:
        folder: where it writes; give the same folder again to start it with what it held.
        node: our node, which Orthanc may send to and which may send to it.
        ae_title: Orthanc's AE title.
        route: whether a CT series that is stable for two seconds is sent to our node.
        dicom_port: where it takes associations; a free port if None.
    """
    server = Orthanc(ae_title, dicom_port or free_port(), free_port(), folder / "orthanc.log")
    configuration = _configure(folder, node, server, route)
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            [_binary(), "--verbose", str(configuration)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
    try:
        if not (wait_for_port(server.http_port) and wait_for_port(server.dicom_port)):
            pytest.fail(f"Orthanc did not start: {server.log.read_text(errors='replace')[-2000:]}")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0, interval_s: float = 0.2) -> bool:
    """Wait until something is so. Returns whether it is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(interval_s)
    return condition()


def _binary() -> str:
    for name in BINARIES:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("Orthanc is not installed")


def _configure(folder: Path, node: NodeAddress, server: Orthanc, route: bool) -> Path:
    """Write the configuration, and the script that routes."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "routing.lua"
    script.write_text(ROUTING % NODE if route else "")
    configuration = {
        "Name": "vastus-test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "LuaScripts": [str(script)],
        "Plugins": [],
        "DicomAet": server.ae_title,
        "DicomPort": server.dicom_port,
        "DicomCheckCalledAet": True,
        "DicomServerEnabled": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "DicomModalities": {NODE: [node.ae_title, LOOPBACK, node.port]},
        "HttpServerEnabled": True,
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StableAge": 2,
        "OverwriteInstances": True,
        "SynchronousCMove": True,
        "ConcurrentJobs": 2,
        "SaveJobs": False,
        "KeepAlive": False,
        "HttpsVerifyPeers": False,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration, indent=2))
    return path
