"""The training loop: phase by phase, step by step, able to stop and go on anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine.labels import LabelSet, thigh29
from engine.training.checkpoint import newest_of, write_whole
from engine.training.devices import open_machine
from engine.training.draws import Batch, Source, Start
from engine.training.errors import TrainingError
from engine.training.pace import paces, rate_at
from engine.training.preset import Budget, Preset
from engine.training.records import Identity, Records, claim
from engine.training.state import State
from engine.training.validation import MEAN, judge

BEST = "best.pt"


@dataclass(frozen=True)
class RunPlan:
    """One run.

    Attributes:
        preset: what is trained, and how.
        folder: where the run is kept.
        seed: fresh weights and every draw follow from it.
        device: `cpu`, `cuda` or `cuda:1`.
        budget: None takes the preset's.
        pause_after_s: wall-clock after which the run stops with a checkpoint, to be gone on with; None never stops.
        start_from: another run's checkpoint whose weights this one begins with.
    """

    preset: Preset
    folder: Path
    seed: int = 1
    device: str = "cpu"
    budget: Budget | None = None
    pause_after_s: float | None = None
    start_from: Path | None = None


@dataclass(frozen=True)
class StepReport:
    """One step that is done.

    Attributes:
        phase: its name.
        step: how many are done, over all phases.
        share: what of the phase is behind, 0..1.
        rate: the learning rate.
        loss: the network's, without what helps it along.
        left_s: seconds until the run ends; phases that are still to come are taken to be as slow a step as this one.
    """

    phase: str
    step: int
    share: float
    rate: float
    loss: float
    left_s: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended: whether it is over or only stopped, its steps, and the highest mean Dice (NaN for none)."""

    finished: bool
    steps: int
    best_dice: float


def identity_of(plan: RunPlan, data: Mapping[str, Any]) -> Identity:
    """What tells this run from others in the same folder.

    Args:
        plan: of the run; what may change when it is gone on with is left out.
        data: what it learns from, in the types of JSON.
    """
    begun_by = None if plan.start_from is None else str(plan.start_from)
    return {"preset": plan.preset.told(), "seed": plan.seed, "start_from": begun_by, "data": dict(data)}


class Watcher(Protocol):
    """Is told how a run goes."""

    def phase(self, name: str, number: int, of: int) -> None:
        """A phase begins or goes on; numbers count from 1."""

    def step(self, report: StepReport) -> None:
        """A step is done."""

    def validated(self, step: int, dice: float, best: bool) -> None:
        """The network was judged; its mean Dice."""

    def wants_stop(self) -> bool:
        """Whether to stop after this step, with a checkpoint."""


class Trainer:
    """One run.

    Args:
        plan: what is run.
        source: training data.
        identity: what this run is; see `identity_of`.
        watcher: is told how it goes.

    Raises:
        TrainingError: the device is absent, the folder belongs to another run, or its checkpoint cannot be used.
    """

    def __init__(self, plan: RunPlan, source: Source, identity: Identity, watcher: Watcher) -> None:
        self._plan, self._preset, self._source, self._watcher = plan, plan.preset, source, watcher
        self._labels: LabelSet = thigh29()
        self._machine = open_machine(plan.device, plan.preset.precision)
        self._paces = paces(plan.preset, plan.budget or plan.preset.budget, source)
        self._state = State(plan.preset, self._labels.class_count, plan.seed, self._machine)
        claim(plan.folder, identity)
        if (newest := newest_of(plan.folder)) is not None:
            self._state.restore(newest)
        elif plan.start_from is not None:
            self._state.start_from(plan.start_from)
        self._saved_step, self._saved_at = self._state.total_steps, time.monotonic()

    def run(self) -> Outcome:
        """Train until the budget is spent or the run is told to stop; both leave a checkpoint.

        Raises:
            TrainingError: the loss is no number, or the device has too little memory; the last checkpoint is as it was.
        """
        began = time.monotonic()
        state, phases = self._state, self._preset.phases
        with Records(self._plan.folder, state.total_steps) as records:
            while self._phase(records, began):
                if state.number + 1 == len(phases):
                    if state.judged_step < state.total_steps:
                        self._validate(records)
                        self._save(records)
                    return Outcome(True, state.total_steps, state.best_dice)
                state.begin(state.number + 1)
                self._save(records)
        return Outcome(False, state.total_steps, state.best_dice)

    def _phase(self, records: Records, began: float) -> bool:
        """Go on with the present phase; whether it is over."""
        state, pace = self._state, self._paces[self._state.number]
        self._watcher.phase(state.plan.kind, state.number + 1, len(self._preset.phases))
        every = self._preset.validation.every_epochs * self._source.epoch_steps(state.plan.batch)
        source: Iterator[Batch] | None = None
        while (share := pace.share(state.step, state.trained_s)) < 1:
            if self._is_told_to_stop(began):
                self._save(records)
                return False
            source = source or self._batches()
            started = time.monotonic()
            rate = rate_at(state.plan, state.step, share)
            loss = self._learn(next(source), rate)
            state.trained_s += time.monotonic() - started
            self._tell(records, rate, loss)
            over = pace.share(state.step, state.trained_s) >= 1
            if state.plan.kind == "whole" and state.step % every == 0 and not over:
                self._validate(records)
            if self._is_time_to_save():
                self._save(records)
        return True

    def _batches(self) -> Iterator[Batch]:
        """The phase's batches from here on; the first is there already, so that no step's time holds the start."""
        state = self._state
        batches = self._source.batches(Start(state.number, state.plan.batch, state.step))
        return chain([next(batches)], batches)

    def _is_told_to_stop(self, began: float) -> bool:
        limit_s = self._plan.pause_after_s
        return self._watcher.wants_stop() or (limit_s is not None and time.monotonic() - began >= limit_s)

    def _is_time_to_save(self) -> bool:
        often = self._preset.checkpoint
        steps = self._state.total_steps - self._saved_step
        return steps >= often.every_steps or time.monotonic() - self._saved_at >= often.every_s

    def _learn(self, batch: Batch, rate: float) -> float:
        """One step; returns its loss."""
        state = self._state
        rng = np.random.default_rng((self._plan.seed, state.number, state.step))
        there = batch.to(self._machine.device)
        try:
            loss, told = state.phase.loss(there, rng)
            whole = float(loss.detach())
            if not math.isfinite(whole):
                raise self._spoilt(f"the loss is {whole}", "look at the data, or train with a lower rate or in fp32")
            norm = state.learn(loss, rate)
        except torch.OutOfMemoryError as error:
            remedy = "use a preset of your own with a smaller batch or fewer crops"
            raise self._spoilt(f"{self._machine.device} has too little memory", remedy) from error
        if not math.isfinite(norm):
            raise self._spoilt(f"the norm of the gradient is {norm}", "train with a lower rate or in fp32")
        return float(told.detach())

    def _spoilt(self, reason: str, remedy: str) -> TrainingError:
        state = self._state
        newest = newest_of(self._plan.folder)
        kept = "There is no checkpoint yet" if newest is None else f"The checkpoint {newest} is as it was"
        thing = f"step {state.total_steps + 1}, phase {state.plan.kind}"
        return TrainingError(thing, reason, f"{kept}: {remedy}")

    def _tell(self, records: Records, rate: float, loss: float) -> None:
        state, pace = self._state, self._paces[self._state.number]
        records.step((state.total_steps, state.plan.kind, round(state.trained_s, 2), rate, round(loss, 5)))
        share = min(1.0, pace.share(state.step, state.trained_s))
        step_s = state.trained_s / state.step
        to_come = (later.left_s(0, 0.0, step_s) for later in self._paces[state.number + 1 :])
        left_s = max(0.0, pace.left_s(state.step, state.trained_s, step_s)) + sum(to_come)
        self._watcher.step(StepReport(state.plan.kind, state.total_steps, share, rate, loss, left_s))

    def _validate(self, records: Records) -> None:
        """Judge the network that is kept, and keep its weights where it is the best so far."""
        state = self._state
        dice = judge(state.kept, self._source.held_out(), self._preset, self._machine, self._labels)
        records.validated(state.total_steps, dice)
        state.judged_step = state.total_steps
        best = not dice[MEAN] <= state.best_dice and not math.isnan(dice[MEAN])
        if best:
            state.best_dice = dice[MEAN]
            kept = {"averaged": state.kept.state_dict(), "step": state.total_steps, "mean_dice": dice[MEAN]}
            write_whole(kept, self._plan.folder / BEST)
        self._watcher.validated(state.total_steps, dice[MEAN], best)

    def _save(self, records: Records) -> None:
        self._state.save(self._plan.folder)
        records.flush()
        self._saved_step, self._saved_at = self._state.total_steps, time.monotonic()
