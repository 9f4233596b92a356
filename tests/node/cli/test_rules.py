from __future__ import annotations

import json
from pathlib import Path

import pytest
from job_bench import node_base, receive_files, settings_for
from stub_workshop import phantom_series
from typer.testing import CliRunner

from node.cli.main import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series of 36 slices, 216 mm long."""
    path: Path = tmp_path_factory.mktemp("study")
    phantom_series(path)
    return path


def test_json_tells_every_decision_with_what_decided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASTUS__SERIES__MIN_SLICES", "37")
    (told,) = json.loads(CliRunner().invoke(app, ["rules", "test", str(folder), "--json"]).stdout)
    assert (told["selected"], told["code"], told["by"]) == (False, "too_few_slices", {"slices": "36"})
    assert told["winner_uid"] is None and "36" in told["reason"]


def test_a_damaged_file_hides_no_series(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASTUS__SERIES__MIN_SLICES", "36")
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name in ("damaged-1.dcm", "damaged-2.dcm"):
        (tmp_path / name).write_bytes(next(folder.rglob("*.dcm")).read_bytes()[:2000])
    whole, damaged = json.loads(CliRunner().invoke(app, ["rules", "test", str(tmp_path), "--json"]).stdout)
    assert whole["selected"] and not damaged["selected"]
    assert damaged["code"] == "unreadable" and "damaged-1.dcm and 1 more" in damaged["series_uid"]


def test_the_table_tells_how_many_are_segmented(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASTUS__SERIES__MIN_SLICES", "36")
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["rules", "test", str(folder)])
    assert result.exit_code == 0
    assert "1 of 1 series would be segmented" in result.stdout and "selected" in result.stdout


def test_what_was_received_is_tried(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(tmp_path)
    with node_base(settings) as base:
        receive_files(base, phantom_series(tmp_path / "sent"))
    monkeypatch.setenv("VASTUS__NODE__STATE_DIR", str(settings.node.state_dir))
    monkeypatch.setenv("VASTUS__SERIES__MIN_SLICES", "36")
    (told,) = json.loads(CliRunner().invoke(app, ["rules", "test", "--since", "7d", "--json"]).stdout)
    assert told["selected"]


def test_a_folder_or_a_period_is_needed(folder: Path) -> None:
    for arguments in ([], [str(folder), "--since", "7d"]):
        assert CliRunner().invoke(app, ["rules", "test", *arguments]).exit_code == 2
