"""DCMTK's tools as peers.

They run with TCP_NODELAY=1: DCMTK leaves Nagle's algorithm on, and each answer would then wait for 40 ms.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from peers.ports import LOOPBACK

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}

PROPOSE: dict[str, str] = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""The option of storescu that proposes a transfer syntax."""


def need(tool: str) -> str:
    """The path of a tool of DCMTK; skips the test where it is not installed."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} of DCMTK is not installed")
    return path


def storescu_command(
    files: Sequence[Path], port: int, called_ae: str, calling_ae: str = "PACS", options: Sequence[str] = ()
) -> list[str]:
    """The command line that sends files in one association."""
    titles = ("-aec", called_ae, "-aet", calling_ae)
    return [need("storescu"), "-v", *titles, *options, LOOPBACK, str(port), *map(str, files)]


def storescu(
    files: Sequence[Path], port: int, called_ae: str, calling_ae: str = "PACS", options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Send files in one association, and wait for the end."""
    return _run(storescu_command(files, port, called_ae, calling_ae, options))


def echoscu(port: int, called_ae: str, calling_ae: str = "PACS") -> subprocess.CompletedProcess[str]:
    """Verify a connection with C-ECHO."""
    return _run([need("echoscu"), "-v", "-aec", called_ae, "-aet", calling_ae, LOOPBACK, str(port)])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
