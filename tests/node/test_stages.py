"""What the stages hand on. The network itself is the stub of `stub_workshop`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from stub_workshop import phantom_series, stub_workshop

from node.by_hand import segment_folder


@pytest.fixture
def in_seoul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "KST-9")
        time.tzset()
        yield
    time.tzset()


def test_results_bear_the_hospitals_own_time(in_seoul: None, tmp_path: Path) -> None:
    phantom_series(tmp_path / "in")
    began = time.localtime()
    (job,) = segment_folder(tmp_path / "in", tmp_path / "out", stub_workshop(), lambda *_: None)
    for file in job.files:
        header = pydicom.dcmread(file.path, stop_before_pixels=True)
        stated = time.strptime(header.ContentDate + header.ContentTime[:6], "%Y%m%d%H%M%S")
        assert 0 <= time.mktime(stated) - time.mktime(began) + 1 < 120
