"""`vastus jobs JOB`: one job with its flags."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from peers.sample_rows import make_job

from db.queries import record_flags
from db.session import migrate, open_database, transaction
from engine.flags import Policy, RaisedFlag, flag_of
from node.executor import prepare_database

FLAGS = (
    RaisedFlag(flag_of("metal", "There are 12.5 ml of metal in the body, over 40 slices.", 12.5), Policy.WARN),
    RaisedFlag(flag_of("contrast_medium", "The scan was made with a contrast medium."), Policy.NOTE),
)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings of a node that has one job with two flags."""
    url = f"sqlite:///{tmp_path / 'vastus.db'}"
    engine = open_database(url)
    migrate(engine)
    prepare_database(url)
    make_job(engine)
    with transaction(engine) as session:
        record_flags(session, "job-1", FLAGS)
    engine.dispose()
    path = tmp_path / "vastus.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path}"\n', encoding="utf-8")
    return path


def test_one_job_is_shown_with_all_its_flags(typed: CommandLine, settings: Path, tmp_path: Path) -> None:
    shown = typed("jobs", "job-1", "--settings", str(settings), folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for part in ("job job-1", "queued", "2 flags", "metal", "warn", "12.5", "ml", "contrast_medium", "note"):
        assert part in words


def test_a_job_that_is_not_there_is_told(typed: CommandLine, settings: Path, tmp_path: Path) -> None:
    refused = typed("jobs", "job-none", "--settings", str(settings), folder=tmp_path)
    assert refused.returncode == 2
    assert "job-none" in refused.stderr
