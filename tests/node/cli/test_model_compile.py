"""`vastus model compile`: what was measured is shown, and the fastest that passed is what the service starts with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from config.settings import Settings, load_settings
from engine import choice, trials
from engine.choice import Candidate, Conditions, Trial
from engine.errors import BackendError
from node import compose
from node.cli import model_compile

NOW = Conditions("digest", "CPU", "", "cpu", 2, 0, False, (), {}, {})
TRIALS = (
    Trial(Candidate("openvino", "bf16"), seconds=0.2, error=0.006, same_class=1.0),
    Trial(Candidate("openvino", "fp32"), seconds=0.5, error=0.001, same_class=1.0),
    Trial(Candidate("torch", "fp16"), refused="it does not compute in fp16 on this machine"),
)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(compose, "package_of", lambda _: SimpleNamespace(name="tiny", version="1"))
    monkeypatch.setattr(choice, "conditions_of", lambda *_: NOW)
    monkeypatch.setattr(trials, "candidates", lambda: tuple(trial.candidate for trial in TRIALS))
    monkeypatch.setattr(trials, "run_trials", lambda *_: iter(TRIALS))
    group = typer.Typer()
    group.callback()(lambda: None)
    model_compile.register(group)
    return group


def settings_file(folder: Path, engine: str = "") -> tuple[Path, Settings]:
    path = folder / "vastus.toml"
    path.write_text(f'[node]\nstate_dir = "{folder / "state"}"\n[engine]\n{engine}\n', encoding="utf-8")
    return path, load_settings(path, {})


@pytest.mark.parametrize(("engine", "precision"), [("", "bf16"), ('precision = "fp32"', "fp32")])
def test_the_fastest_that_passed_is_what_the_service_starts_with(
    app: typer.Typer, tmp_path: Path, engine: str, precision: str
) -> None:
    path, settings = settings_file(tmp_path, engine)
    told = CliRunner().invoke(app, ["compile", "--settings", str(path)])
    assert told.exit_code == 0, told.output
    assert f"The service takes openvino {precision}" in " ".join(told.output.split())
    wanted = Candidate(settings.engine.backend, settings.engine.precision)
    found = choice.decide(wanted, compose.cache_of(settings), lambda: NOW)
    assert (found.backend, found.precision, found.source) == ("openvino", precision, "measurement")


def test_where_none_may_serve_nothing_is_kept(app: typer.Typer, tmp_path: Path) -> None:
    path, settings = settings_file(tmp_path, 'precision = "fp16"')
    told = CliRunner().invoke(app, ["compile", "--settings", str(path)])
    assert isinstance(told.exception, BackendError)
    assert "none of 3 may serve, of those that the settings ask for: fp16" in str(told.exception)
    assert not compose.cache_of(settings).exists()


def test_the_table_tells_every_trial() -> None:
    table = model_compile.trial_table(TRIALS, TRIALS[0])
    assert table.row_count == len(TRIALS)
    words = [str(cell) for cell in table.columns[-1].cells]
    assert words == ["yes, the fastest", "yes", "no: it does not compute in fp16 on this machine"]
