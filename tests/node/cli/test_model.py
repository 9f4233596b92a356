"""`vastus model`: what is there, what it is, and what answers as it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flat_model import NAME, write_flat_package
from typer.testing import CliRunner

from engine.backends import onnxruntime, openvino
from node.cli.console import CONSOLE
from node.cli.main import app

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with a folder that holds the second model."""
    monkeypatch.setattr(CONSOLE, "width", 1000)
    write_flat_package(tmp_path / "models" / NAME)
    settings = tmp_path / "vastus.toml"
    settings.write_text(
        f'[node]\nstate_dir = "{tmp_path / "state"}"\n[engine]\nmodel = "{NAME}"\n'
        f'model_dirs = ["{tmp_path / "models"}"]\nbackend = "onnxruntime"\nthreads = 1\n'
    )
    return lambda *words: CliRunner().invoke(app, ["model", *words, "--settings", str(settings)])


def test_list_tells_of_every_package_and_who_brings_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models" / "torn" / "configs").mkdir(parents=True)
    (tmp_path / "models" / "torn" / "configs" / "metadata.json").write_text("{")
    shown = run("list")
    assert shown.exit_code == 0
    lines = {line.split("│")[1].strip(): line for line in shown.stdout.splitlines() if line.startswith("│")}
    assert set(lines) == {"compact", f"{NAME} *", "torn"}
    assert all(word in lines["compact"] for word in ("vastus 0.1.0", "thigh29", "30", "not for diagnosis"))
    assert all(word in lines[f"{NAME} *"] for word in ("2.1.0", "tissues3", "folder", "For tests only"))
    assert "refused" in lines["torn"]


def test_show_tells_properties_codes_and_card(run: Run) -> None:
    shown = run("show")
    assert shown.exit_code == 0
    for words in (
        "tissues3: 4 classes, 3 segments",
        "99TISSUES MUSCLE",
        "FMA FMA5018",
        "slice -> scores, 2 dimensions",
    ):
        assert words in shown.stdout
    assert "Tells three tissues apart." in shown.stdout  # the card's own sentence


def test_a_name_that_nobody_offers_is_refused(run: Run) -> None:
    assert "there is no package of this name" in str(run("show", "absent").exception)


def test_verify_asks_every_backend_and_passes_those_that_answer_well(run: Run) -> None:
    shown = run("verify")
    rows = {tuple(line.split()[:1]): line for line in shown.stdout.splitlines() if "yes" in line.split()}
    assert shown.exit_code == 0
    assert "passed" in rows[("onnxruntime",)] and "onnxruntime *" in rows[("onnxruntime",)]
    assert "passed" in rows[("openvino",)] and "refused" in rows[("torch",)]
    assert "no UNETR" in shown.stdout


def test_verify_fails_where_the_chosen_backend_does(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = onnxruntime.OnnxRuntimeSession.run
    monkeypatch.setattr(onnxruntime.OnnxRuntimeSession, "run", lambda self, windows: 1.1 * honest(self, windows))
    shown = run("verify")
    assert shown.exit_code == 1
    assert "onnxruntime fp32: error of the logits 0.1" in shown.stdout.replace("0.13", "0.1")


def test_verify_does_not_mind_another_backend_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = openvino.OpenVinoSession.run
    monkeypatch.setattr(openvino.OpenVinoSession, "run", lambda self, windows: honest(self, windows).flip(1))
    shown = run("verify")
    assert shown.exit_code == 0
    assert "openvino fp32: error of the logits" in shown.stdout and "same class" in shown.stdout
