"""Every candidate is held against the gate and timed; one that fails hinders no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import backends, trials
from engine.backends import PRECISIONS, SessionOptions
from engine.choice import Candidate
from engine.contract import GateLimits
from engine.errors import BackendError, DeviceMemoryError, PluginError
from engine.gate import ask, store
from engine.package import ModelPackage
from engine.trials import candidates, one_window, run_trials, seconds_a_window

IMAGES = np.random.default_rng(3).random((1, 1, 32, 32, 32), dtype=np.float32)
LOOSE = GateLimits(least_agreement=0.5, least_dice=0.5)


@pytest.fixture(scope="module")
def package(
    tiny_package: ModelPackage, tiny_network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """The tiny package with windows; its limits know that a network with random weights is sure of little."""
    path: Path = tmp_path_factory.mktemp("trials") / "windows.safetensors"
    store(ask(tiny_network, IMAGES), path)
    return replace(tiny_package, windows=path, limits=LOOSE)


def test_candidates_are_what_can_be_used_here() -> None:
    found = candidates()
    assert {Candidate("openvino", "fp32"), Candidate("onnxruntime", "fp32"), Candidate("torch", "fp32")} <= set(found)
    assert len(set(found)) == len(found)
    assert {each.precision for each in found} <= set(PRECISIONS)


def test_each_is_timed_and_one_that_fails_hinders_no_other(package: ModelPackage) -> None:
    which = (Candidate("torch", "fp16"), Candidate("abacus", "fp32"), Candidate("onnxruntime", "fp32"))
    said: list[str] = []
    found = list(run_trials(package, SessionOptions(1, batch=0), which, said.append))
    assert [trial.candidate for trial in found] == list(which)
    assert [bool(trial.refused) for trial in found] == [True, True, False]
    assert "fp16" in found[0].refused and found[0].seconds is None
    assert found[2].seconds is not None and found[2].error is not None and 0 < found[2].error < 0.005
    assert said


def test_one_that_answers_otherwise_is_refused(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = backends.open_session

    class Wrong:
        name, precision, batch, device = "onnxruntime", "fp32", 1, torch.device("cpu")

        def __init__(self, session: backends.Session) -> None:
            self._session = session

        def run(self, windows: torch.Tensor) -> torch.Tensor:
            return self._session.run(windows).flip(1)

    monkeypatch.setattr(trials, "open_session", lambda *given: Wrong(opened(*given)))
    (found,) = run_trials(package, SessionOptions(1), (Candidate("onnxruntime", "fp32"),), lambda _: None)
    assert "answers otherwise" in found.refused and found.seconds is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "OutOfMemoryError: CUDA out of memory"),
        (DeviceMemoryError("device cuda", "it is full", "Lower the batch"), "it is full"),
        (RuntimeError("a plug-in's\n own words"), "RuntimeError: a plug-in's own words"),
        (PluginError("plug-in", "it cannot be imported", "Install it again"), "it cannot be imported"),
    ],
)
def test_one_that_runs_out_of_memory_or_breaks_hinders_no_other(
    error: Exception, words: str, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = backends.open_session

    def open_or_break(name: str, *given: Any) -> backends.Session:
        if name == "torch":
            raise error
        return opened(name, *given)

    monkeypatch.setattr(trials, "open_session", open_or_break)
    which = (Candidate("torch", "fp32"), Candidate("onnxruntime", "fp32"))
    broken, sound = run_trials(package, SessionOptions(1), which, lambda _: None)
    assert (broken.refused, broken.seconds) == (words, None)
    assert sound.refused == "" and sound.seconds is not None


def test_a_package_without_a_gate_is_timed_on_air(tiny_package: ModelPackage) -> None:
    free = replace(tiny_package, windows=None, limits=None)
    assert one_window(free).shape == (1, 1, 32, 32, 32)
    (found,) = run_trials(free, SessionOptions(1), (Candidate("onnxruntime", "fp32"),), lambda _: None)
    assert (found.refused, found.error) == ("", None) and found.seconds is not None


def test_the_shortest_run_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Two:
        name, precision, batch, device = "two", "fp32", 2, torch.device("cpu")

        def run(self, windows: torch.Tensor) -> torch.Tensor:
            seen.append(len(windows))
            return windows

    def clock() -> Iterator[float]:
        for seconds in (9.0, 3.0, 1.0, 2.0):
            yield 0.0
            yield seconds

    ticks = clock()
    monkeypatch.setattr("engine.trials.time.perf_counter", lambda: next(ticks))
    assert seconds_a_window(Two(), torch.zeros(1, 1, 2, 2, 2), runs=3) == 0.5
    assert seen == [2, 2, 2, 2]


def test_an_error_of_the_runtime_reaches_the_caller() -> None:
    class Broken:
        name, precision, batch, device = "broken", "fp32", 1, torch.device("cpu")

        def run(self, windows: torch.Tensor) -> torch.Tensor:
            raise BackendError("backend broken", "a window failed", "Mend it")

    with pytest.raises(BackendError, match="a window failed"):
        seconds_a_window(Broken(), torch.zeros(1, 1, 2, 2, 2))
