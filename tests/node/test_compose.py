from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from job_bench import settings_for
from plugins.environments import metadata_in

from config.settings import Settings
from engine import choice
from engine.backends import cores
from engine.choice import Candidate, Measurement, Trial
from engine.errors import BackendError
from engine.models import find_model
from engine.plugins import BACKENDS
from node import compose, log
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


def test_what_the_settings_leave_open_is_open_in_the_options(tmp_path: Path) -> None:
    engine = {"plugin_libraries": ("/opt/own.so",), "portable_plans": True, "precision": "fp32", "batch": 2}
    settings = Settings.model_validate({"node": {"state_dir": tmp_path}, "engine": engine})
    found = compose.options_of(settings)
    assert (found.threads, found.precision, found.batch, found.device) == (cores(), "fp32", 2, "cpu")
    assert (found.libraries, found.portable) == ((Path("/opt/own.so"),), True)
    assert found.cache == tmp_path / "engine"
    assert compose.options_of(Settings()).precision == "auto"


def test_an_unknown_backend_stops_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    engine = settings.engine.model_copy(update={"backend": "abacus"})
    with pytest.raises(BackendError, match="none of this name"):
        compose.refuse_unusable(settings.model_copy(update={"engine": engine}))


def test_the_worker_takes_what_was_measured_and_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(log, "event", lambda name, **fields: told.update({name: fields}))
    settings = Settings.model_validate({"node": {"state_dir": tmp_path}, "engine": {"threads": 1}})
    package = find_model(settings.engine.model)
    now = choice.conditions_of(package, compose.options_of(settings))
    trial = Trial(Candidate("onnxruntime", "fp32"), seconds=0.1)
    choice.remember(Measurement(now, (trial,)), compose.cache_of(settings))
    session = compose.session_of(settings, package)
    assert (session.name, session.precision, session.batch) == ("onnxruntime", "fp32", 1)
    chosen = told["backend.chosen"]
    assert (chosen["backend"], chosen["precision"], chosen["source"]) == ("onnxruntime", "fp32", "measurement")
    assert isinstance(chosen["error_of_logits"], float) and 0 < chosen["error_of_logits"] < 0.005


def test_a_node_whose_settings_name_all_imports_no_other_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(log, "event", lambda name, **fields: told.update({name: fields}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("engine.gate.admit", lambda *_: None)
    text = "import sys\nsys.modules['some_lines_was_imported'] = sys\nX = None"
    metadata_in(tmp_path, "some-lines", {BACKENDS: {"lines": "some_lines_there:X"}}, {"some_lines_there": text})
    engine = {"threads": 1, "backend": "onnxruntime", "precision": "fp32"}
    settings = Settings.model_validate({"node": {"state_dir": tmp_path}, "engine": engine})
    session = compose.session_of(settings, find_model(settings.engine.model))
    assert (session.name, told["backend.chosen"]["source"]) == ("onnxruntime", "settings")
    assert told["backend.chosen"]["versions"] == {"onnxruntime": version("onnxruntime")}
    assert "some_lines_was_imported" not in sys.modules


def test_a_backend_that_answers_otherwise_never_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BackendError("backend openvino", "it answers otherwise than the network", "Choose another")

    monkeypatch.setattr("engine.gate.admit", refuse)
    settings = Settings.model_validate({"node": {"state_dir": tmp_path}})
    with pytest.raises(BackendError, match="answers otherwise"):
        compose.session_of(settings, find_model(settings.engine.model))
