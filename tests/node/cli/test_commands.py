"""The commands as an administrator types them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import CommandLine
from peers.ports import free_port
from peers.sample_rows import arrival, make_job, record

from db.queries import ReceivedInstance, record_instance
from db.session import migrate, open_database, transaction
from node.executor import prepare_database


def vastus(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VASTUS")}
    return subprocess.run(
        [sys.executable, "-m", "node.cli.main", *arguments],
        cwd=folder,
        env={**clean, "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "vastus.toml"
    path.write_text(
        f'[node]\nstate_dir = "{tmp_path / "state"}"\n[listener]\nport = {free_port()}\ncalling_ae_titles = ["PACS"]\n'
        f'[destinations.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    )
    return path


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = vastus("--help", folder=tmp_path)
    assert shown.returncode == 0
    names = ("serve", "demo", "segment", "jobs", "doctor", "train", "evaluate", "model")
    assert all(name in shown.stdout for name in names)


def test_an_unknown_key_is_refused_with_its_line_and_remedy(typed: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[listener]\nprt = 5\n")
    for command in ("serve", "jobs", "doctor"):
        run = vastus if command == "serve" else typed
        refused = run(command, "--settings", str(path), folder=tmp_path)
        assert refused.returncode == 2
        assert "line 2" in refused.stderr and "listener.port" in refused.stderr


def test_serve_refuses_to_start_without_peers(tmp_path: Path) -> None:
    refused = vastus("serve", folder=tmp_path, VASTUS__NODE__STATE_DIR=str(tmp_path / "state"))
    assert refused.returncode == 2
    assert "listener.calling_ae_titles" in refused.stderr
    assert not (tmp_path / "state").exists()


def test_jobs_without_a_database_says_what_to_do(typed: CommandLine, tmp_path: Path, settings: Path) -> None:
    refused = typed("jobs", "--settings", str(settings), folder=tmp_path)
    assert refused.returncode == 2
    assert "Remedy" in refused.stderr


def test_jobs_lists_none_when_only_instances_wait(typed: CommandLine, tmp_path: Path, settings: Path) -> None:
    (tmp_path / "state").mkdir()
    engine = open_database(f"sqlite:///{tmp_path / 'state' / 'vastus.db'}")
    migrate(engine)
    with transaction(engine) as session:
        record_instance(
            session,
            ReceivedInstance(
                study_uid="1.2.3",
                series_uid="1.2.3.4",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                sop_instance_uid="1.2.3.4.5",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                modality="CT",
                calling_ae="PACS",
                path="series/a/b.dcm",
                sha256="0" * 64,
                size_bytes=1,
                received_at=datetime(2026, 1, 1, tzinfo=UTC),
            ),
        )
    engine.dispose()
    listed = typed("jobs", "--settings", str(settings), folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "0 jobs" in listed.stdout


def test_jobs_tells_of_images_that_came_again_changed(typed: CommandLine, tmp_path: Path, settings: Path) -> None:
    (tmp_path / "state").mkdir()
    engine = open_database(f"sqlite:///{tmp_path / 'state' / 'vastus.db'}")
    migrate(engine)
    make_job(engine)
    listed = typed("jobs", "--settings", str(settings), folder=tmp_path)
    assert listed.returncode == 0 and "other" not in listed.stdout
    record(engine, arrival(1, "b"))
    engine.dispose()
    listed = typed("jobs", "--settings", str(settings), folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "version" in listed.stdout and "other" in listed.stdout


def test_doctor_names_a_destination_that_does_not_answer(tmp_path: Path, settings: Path) -> None:
    looked = vastus("doctor", "--settings", str(settings), folder=tmp_path)
    assert looked.returncode == 1
    assert "destination pacs" in looked.stdout and "cannot be reached" in looked.stdout


def test_segment_of_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused = vastus("segment", "empty", folder=tmp_path)
    assert refused.returncode == 2
    assert "Remedy" in refused.stderr


def test_retry_of_an_unknown_job_is_refused(typed: CommandLine, tmp_path: Path, settings: Path) -> None:
    (tmp_path / "state").mkdir()
    url = f"sqlite:///{tmp_path / 'state' / 'vastus.db'}"
    engine = open_database(url)
    migrate(engine)
    engine.dispose()
    prepare_database(url)
    for option in ("--retry", "--resend"):
        refused = typed("jobs", option, "job-unknown", "--settings", str(settings), folder=tmp_path)
        assert refused.returncode == 2
        assert "job-unknown" in refused.stderr and "Remedy" in refused.stderr
