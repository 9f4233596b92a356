"""Trials: every backend and precision that can be had here is held against the gate and timed on a stored window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch

from engine import backends
from engine.backends import Session, SessionOptions, open_session
from engine.choice import Candidate, Trial, options_for
from engine.errors import BackendError, PluginError, VastusError
from engine.gate import admit, stored
from engine.package import ModelPackage
from engine.plugins import told

RUNS = 5
"""Timed runs of a candidate, of which the shortest counts: what is longer is another program's."""
ENOUGH_S = 10.0
"""After so long no further run is begun, if there was one."""
HINDRANCES = (BackendError, PluginError, RuntimeError)
"""What keeps a candidate from serving, and no other one from being tried; torch's of its memory is a RuntimeError."""

Say = Callable[[str], None]
"""Told what is being done with the candidate whose turn it is."""


def candidates() -> tuple[Candidate, ...]:
    """Every backend that can be used here, in each precision that it knows."""
    usable = backends.usable()
    return tuple(Candidate(name, precision) for name, backend in usable.items() for precision in backend.precisions)


def run_trials(package: ModelPackage, options: SessionOptions, which: Iterable[Candidate], say: Say) -> Iterator[Trial]:
    """Try candidates one after the other; one that fails is told of and hinders no other.

    Args:
        package: the model; brings the windows.
        options: how they are run; the precision is each candidate's own, and a batch of 0 is what suits the device.
        which: the candidates.
        say: told what is being done.

    Raises:
        ModelError: the package's windows are damaged.
    """
    for candidate in which:
        asked = options_for(candidate, options)
        trial = Trial(candidate, asked.batch)
        try:
            trial = _tried(trial, package, asked, say)
        except HINDRANCES as error:
            trial = replace(trial, refused=reason_of(error))
        yield trial  # outside of the handlers: an error holds on to the memory of what failed


def reason_of(hindrance: Exception) -> str:
    """Why one of `HINDRANCES` keeps a candidate from serving, in one line."""
    return hindrance.reason if isinstance(hindrance, VastusError) else told(hindrance)


def _tried(trial: Trial, package: ModelPackage, options: SessionOptions, say: Say) -> Trial:
    say("loading, or building a plan")
    session = open_session(trial.candidate.backend, package, options)
    say("held against the network's own answers")
    found = admit(session, package)
    say("timed")
    seconds = seconds_a_window(session, one_window(package).to(session.device))
    trial = replace(trial, batch=session.batch, seconds=seconds)
    return trial if found is None else replace(trial, error=found.error, same_class=found.same_class)


def one_window(package: ModelPackage) -> torch.Tensor:
    """The first of the package's windows, float32 [1, 1, z, y, x]; where it has none, one of air.

    Raises:
        ModelError: the windows are damaged.
    """
    if package.windows is None:
        return torch.zeros(1, 1, *package.preprocessing.window)
    return torch.from_numpy(stored(package.windows).images[:1])


def seconds_a_window(session: Session, window: torch.Tensor, runs: int = RUNS) -> float:
    """The shortest time of a window in full batches of it, after one batch that does not count.

    Args:
        session: what runs them.
        window: float32 [1, 1, z, y, x] on the session's device.
        runs: batches that count.

    Raises:
        BackendError: the runtime failed.
    """
    batch = window.expand(session.batch, -1, -1, -1, -1).contiguous()
    _seconds(session, batch)
    times = [_seconds(session, batch)]
    while len(times) < runs and sum(times) < ENOUGH_S:
        times.append(_seconds(session, batch))
    return min(times) / session.batch


def _seconds(session: Session, batch: torch.Tensor) -> float:
    began = time.perf_counter()
    session.run(batch)
    if session.device.type == "cuda":
        torch.cuda.synchronize(session.device)
    return time.perf_counter() - began
