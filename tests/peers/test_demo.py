"""`vastus demo` from the outside, as `make demo` runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from engine.labels import thigh29
from node.demonstration import port_is_free


@pytest.mark.slow
def test_the_demo_shows_what_came_back_and_leaves_nothing_running(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "node.cli.main", "demo", "--folder", str(tmp_path / "demo")],
        env={**os.environ, "COLUMNS": "180"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    returned = [pydicom.dcmread(path, stop_before_pixels=True) for path in (tmp_path / "demo" / "pacs").glob("*.dcm")]
    assert {each.Modality for each in returned} == {"SEG", "SR", "OT"}
    assert "For research, not for diagnosis." in shown.stdout
    assert all(structure.display in shown.stdout for structure in thigh29().structures)
    assert all(stage in shown.stdout for stage in ("read", "check", "segment", "measure", "write", "record", "deliver"))
    port = re.search(r"port (\d+) is free", shown.stdout)
    assert port is not None and port_is_free(int(port[1]))
    assert (tmp_path / "demo" / "picture.png").stat().st_size > 10_000
    log = (tmp_path / "demo" / "node.log").read_text()
    assert '"service.stopped"' in log and "Synthetic^Phantom" not in log


def test_the_demo_does_not_empty_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    refused = subprocess.run(
        [sys.executable, "-m", "node.cli.main", "demo", "--folder", str(tmp_path)], capture_output=True, text=True
    )
    assert refused.returncode == 2 and "--folder" in refused.stderr
    assert (tmp_path / "mine.txt").read_text() == "precious"
