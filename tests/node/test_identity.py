"""The name under which a node runs jobs: one for each state folder, whatever the machine is called."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from job_bench import settings_for

from node import compose
from node.errors import ServiceError
from node.identity import identity_of, make_identity


def test_the_name_stays_when_the_machine_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_identity(tmp_path)
    first = identity_of(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    make_identity(tmp_path)
    assert identity_of(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["executor-id"]


def test_every_state_folder_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        make_identity(folder)
        names.add(identity_of(folder))
    assert len(names) == 2


def test_worker_and_sender_run_jobs_under_ids_of_the_node(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    settings.node.state_dir.mkdir()
    make_identity(settings.node.state_dir)
    name = identity_of(settings.node.state_dir)
    assert [compose.executor_id(settings, role) for role in ("worker", "sender")] == [
        f"{name}-worker",
        f"{name}-sender",
    ]


@pytest.mark.parametrize("content", [None, "", "a/b", "x" * 200, "\xff"])
def test_a_name_that_is_absent_or_damaged_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "executor-id").write_text(content, encoding="latin-1")
    with pytest.raises(ServiceError, match="executor-id"):
        identity_of(tmp_path)
