"""Whatever another's backend raises names who brings it, and hinders no other backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from flat_model import write_flat_package
from plugins.environments import metadata_in

from engine import backends
from engine.backends import ONNXRUNTIME, SessionOptions, load_backend, open_session
from engine.backends.guard import GuardedSession
from engine.choice import Candidate
from engine.errors import BackendError, DeviceMemoryError, PluginError, VastusError
from engine.package import ModelPackage
from engine.plugins import BACKENDS, plugin
from engine.trials import run_trials
from engine.verification import verify

BACKEND = """
import torch
from engine.errors import BackendError

RAISED = {
    "runtime": RuntimeError("a library's\\n own words"),
    "own": type("LibraryFault", (Exception,), {})("code 7"),
    "memory": torch.OutOfMemoryError("CUDA out of memory"),
    "ours": BackendError("backend strange", "it was told so", "Tell it otherwise"),
}
WHERE, WHAT = "", ""


def reach(where):
    if where == WHERE:
        raise RAISED[WHAT]


class Strange:
    name, requirements, precisions = "strange", ("torch",), ("fp32",)

    def missing(self):
        reach("missing")

    def open(self, package, options):
        reach("open")
        return Opened(package.label_set.class_count)


class Opened:
    name, precision, device, batch = "strange", "fp32", torch.device("cpu"), 2

    def __init__(self, classes):
        self.classes = classes

    def run(self, windows):
        reach("run")
        return windows.expand(-1, self.classes, -1, -1)


BACKEND = Strange()
"""
WINDOW = torch.zeros(1, 1, 1, 48, 48)


@dataclass(frozen=True)
class Strange:
    """The backend of another, installed, and what it is asked to raise, where."""

    patch: pytest.MonkeyPatch

    def raises(self, what: str, where: str) -> None:
        """From now on."""
        self.patch.setattr("strange_backend.WHAT", what)
        self.patch.setattr("strange_backend.WHERE", where)


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Strange:
    monkeypatch.syspath_prepend(tmp_path)
    metadata_in(
        tmp_path, "some-parts", {BACKENDS: {"strange": "strange_backend:BACKEND"}}, {"strange_backend": BACKEND}
    )
    return Strange(monkeypatch)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return write_flat_package(tmp_path_factory.mktemp("guard") / "package")


def run_it(package: ModelPackage) -> torch.Tensor:
    return open_session("strange", package, SessionOptions(1)).run(WINDOW)


def test_what_works_is_as_it_was(strange: Strange, package: ModelPackage) -> None:
    strange.raises("runtime", "nowhere")
    session = open_session("strange", package, SessionOptions(1))
    assert (session.name, session.precision, session.device.type, session.batch) == ("strange", "fp32", "cpu", 2)
    assert session.run(WINDOW).shape == (1, 4, 1, 48, 48)


@pytest.mark.parametrize(
    ("what", "words"), [("runtime", "RuntimeError: a library's own words"), ("own", "LibraryFault: code 7")]
)
@pytest.mark.parametrize("where", ["open", "run"])
def test_what_it_raises_names_who_brings_it(
    what: str, words: str, where: str, strange: Strange, package: ModelPackage
) -> None:
    strange.raises(what, where)
    with pytest.raises(PluginError, match=f"some-parts 9.9.*{words}") as caught:
        run_it(package)
    assert caught.value.thing == f"plug-in {BACKENDS}:strange"
    assert "another backend" in caught.value.remedy


@pytest.mark.parametrize("where", ["open", "run"])
@pytest.mark.parametrize(("what", "kind"), [("memory", DeviceMemoryError), ("ours", BackendError)])
def test_too_little_memory_is_that_and_an_error_of_ours_stays(
    what: str, kind: type[VastusError], where: str, strange: Strange, package: ModelPackage
) -> None:
    strange.raises(what, where)
    with pytest.raises(kind) as caught:
        run_it(package)
    assert type(caught.value) is kind


def test_one_that_cannot_tell_whether_it_is_usable_is_not(strange: Strange) -> None:
    strange.raises("own", "missing")
    assert "LibraryFault: code 7" in str(backends.availability()["strange"])
    assert "strange" not in backends.usable() and "onnxruntime" in backends.usable()


def test_one_that_lacks_what_is_asked_of_a_session_is_refused(
    strange: Strange, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange.raises("runtime", "nowhere")
    load_backend(plugin(BACKENDS, "strange"))
    monkeypatch.delattr("strange_backend.Opened.batch")
    with pytest.raises(PluginError, match="cannot open a session: AttributeError"):
        open_session("strange", package, SessionOptions(1))


def test_ours_are_not_held(package: ModelPackage) -> None:
    assert load_backend(plugin(BACKENDS, "onnxruntime")) is ONNXRUNTIME
    session = ONNXRUNTIME.open(package, SessionOptions(1))
    assert not isinstance(session, GuardedSession)


@pytest.mark.parametrize("where", ["open", "run"])
@pytest.mark.parametrize("what", ["runtime", "own", "memory"])
def test_verify_and_trials_tell_of_it_in_a_row_and_go_on(
    what: str, where: str, strange: Strange, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange.raises(what, where)
    held = ("strange", "onnxruntime")
    monkeypatch.setattr(backends, "_in_order", lambda names: [name for name in held if name in names])
    found = {each.backend: each for each in verify(package, SessionOptions(1), Candidate("onnxruntime", "fp32"))}
    assert set(found) == set(held) and found["onnxruntime"].refused == ""
    assert found["strange"].refused.startswith("some-parts 9.9: ") and found["strange"].available
    tried = list(run_trials(package, SessionOptions(1), [Candidate(name, "fp32") for name in held], lambda _: None))
    assert [trial.refused for trial in tried] == [found["strange"].refused, ""]
