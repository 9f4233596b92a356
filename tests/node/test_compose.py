from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from job_bench import settings_for

from node import compose
from node.errors import SpoolError


@pytest.fixture(autouse=True)
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "package_of", lambda _: None)


def test_a_second_node_on_the_same_state_is_refused_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "PREDECESSOR_S", 0.1)
    settings = settings_for(tmp_path)
    spool = compose.spool_of(settings)
    spool.prepare()
    with spool.held():
        part = spool.receive(b"an image on its way in")
        with pytest.raises(SpoolError, match="another process receives into it"):
            compose.prepare(settings)
        assert part.exists()
        assert not (settings.node.state_dir / "vastus.db").exists()
    compose.prepare(settings)
    assert (settings.node.state_dir / "vastus.db").exists()


def test_a_node_waits_for_the_listener_of_its_predecessor(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    spool = compose.spool_of(settings)
    spool.prepare()
    with ExitStack() as predecessor:
        predecessor.enter_context(spool.held())
        threading.Timer(0.2, predecessor.pop_all().close).start()
        compose.prepare(settings)
    assert (settings.node.state_dir / "vastus.db").exists()
