"""The loop: phases, budgets, faults, and what it writes down."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs.training import Notes, boxes, source, tiny

from engine.training.checkpoint import CHECKPOINT
from engine.training.draws import Batch, Start
from engine.training.errors import TrainingError
from engine.training.loop import BEST, RunPlan, Trainer, identity_of
from engine.training.preset import Budget, Preset
from engine.training.search import best_of, search_rates, write_trials
from engine.training.state import State
from engine.training.stream import Patch, Reuse
from engine.training.synthetic import SyntheticSource


class Spoilt(SyntheticSource):
    """A source whose batch of one step is not what it should be."""

    def __init__(self, inner: SyntheticSource, step: int, spoil: Callable[[Batch], Batch]) -> None:
        self.__dict__.update(inner.__dict__)
        self._step, self._spoil = step, spoil

    def batches(self, start: Start) -> Iterator[Batch]:
        """See `Source`."""
        for number, batch in enumerate(super().batches(start), start.step):
            yield self._spoil(batch) if (start.phase, number) == (0, self._step) else batch


def with_nan(batch: Batch) -> Batch:
    return Batch(batch.image * math.nan, batch.classes)


def trainer(folder: Path, watcher: Notes, preset: Preset | None = None, budget: Budget | None = None) -> Trainer:
    plan = RunPlan(preset or tiny(), folder, budget=budget)
    return Trainer(plan, source(preset=preset), identity_of(plan, {}), watcher)


def test_phases_share_the_budget(tmp_path: Path) -> None:
    notes = Notes()
    outcome = trainer(tmp_path, notes, budget=Budget(10, "steps")).run()
    assert outcome.finished and outcome.steps == 10
    assert notes.phases == ["1/3 tokens", "2/3 coarse", "3/3 whole"]
    assert [report.phase for report in notes.steps] == ["tokens"] * 3 + ["coarse"] * 3 + ["whole"] * 4
    assert [report.share for report in notes.steps[:3]] == pytest.approx([1 / 3, 2 / 3, 1])
    assert notes.dice == [(10, outcome.best_dice, True)]


def test_minutes_end_a_run(tmp_path: Path) -> None:
    notes = Notes()
    outcome = trainer(tmp_path, notes, budget=Budget(0.6 / 60, "minutes")).run()
    assert outcome.finished and len(notes.phases) == 3
    left = [report.left_s for report in notes.steps]
    assert max(left) <= 0.6 and left == sorted(left, reverse=True) and left[-1] == 0


def test_a_pause_leaves_a_checkpoint(tmp_path: Path) -> None:
    plan = RunPlan(tiny(), tmp_path, pause_after_s=0.0)
    outcome = Trainer(plan, source(), identity_of(plan, {}), Notes()).run()
    assert not outcome.finished and outcome.steps == 0
    assert (tmp_path / CHECKPOINT).exists()


def two_kinds(seed: int, reuse: Reuse) -> Iterator[Patch]:
    """Boxes that are femur or nothing, which brightness tells."""
    for hu, classes in boxes(seed, reuse):
        femur = classes % 2 == 1
        yield np.where(femur, 200, -100) + hu * 0, femur * np.uint8(28)


def test_training_fits_what_it_sees(tmp_path: Path) -> None:
    preset = tiny()
    phases = (replace(phase, schedule="constant", rate=5e-3, warm_up_steps=0) for phase in preset.phases)
    plan = RunPlan(replace(preset, phases=tuple(phases)), tmp_path, budget=Budget(50, "steps"))
    notes = Notes()
    Trainer(plan, SyntheticSource(two_kinds, plan.preset, 1, 0), identity_of(plan, {}), notes).run()
    for name in ("tokens", "coarse", "whole"):
        losses = [report.loss for report in notes.steps if report.phase == name]
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("step", [0, 4])
def test_a_loss_that_is_no_number_stops_the_run_and_overwrites_nothing(tmp_path: Path, step: int) -> None:
    plan = RunPlan(tiny(), tmp_path)
    bad = Spoilt(source(), step, with_nan)
    with pytest.raises(TrainingError, match="the loss is nan") as refused:
        Trainer(plan, bad, identity_of(plan, {}), Notes()).run()
    assert refused.value.thing == f"step {step + 1}, phase tokens"
    path = tmp_path / CHECKPOINT
    assert path.exists() == (step > 3)
    if path.exists():
        assert str(path) in refused.value.remedy
        state = torch.load(path, weights_only=True)
        assert state["total_steps"] == 3
        assert all(torch.isfinite(weight).all() for weight in state["pyramid"].values())


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "learn", lambda _self, _loss, _rate: math.inf)
    with pytest.raises(TrainingError, match="norm of the gradient is inf"):
        trainer(tmp_path, Notes()).run()


def test_everything_is_written_down(tmp_path: Path) -> None:
    trainer(tmp_path, Notes()).run()
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 21))
    assert all(float(row["loss"]) > 0 and float(row["rate"]) > 0 for row in rows)
    with (tmp_path / "validation.csv").open(newline="", encoding="utf-8") as file:
        judged = list(csv.DictReader(file))
    assert [row["step"] for row in judged] == ["16", "20"]
    assert "vastus_lateralis" in judged[0]
    assert list((tmp_path / "tensorboard").iterdir())
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert best["mean_dice"] == pytest.approx(max(float(row["mean"]) for row in judged), abs=1e-4)


def test_the_average_is_what_is_kept(tmp_path: Path) -> None:
    preset = tiny()
    trainer(tmp_path / "with", Notes(), preset).run()
    without = replace(preset, optimiser=replace(preset.optimiser, average_decay=0.0))
    trainer(tmp_path / "without", Notes(), without).run()
    for name, same in (("with", False), ("without", True)):
        state = torch.load(tmp_path / name / CHECKPOINT, weights_only=True)
        weights = state["pyramid"]["network.out.conv.conv.weight"]
        assert torch.equal(state["averaged"]["out.conv.conv.weight"], weights) is same


def test_bf16_learns_too(tmp_path: Path) -> None:
    outcome = trainer(tmp_path, Notes(), replace(tiny(), precision="bf16"), Budget(6, "steps")).run()
    assert outcome.finished


def test_the_search_tries_every_rate_and_finds_the_best(tmp_path: Path) -> None:
    plan = RunPlan(tiny(), tmp_path)
    trials = list(search_rates(plan, source(), identity_of(plan, {}), Notes()))
    assert [trial.rate for trial in trials] == [1e-3, 1e-4]
    assert all(trial.outcome.finished and trial.outcome.steps == 4 for trial in trials)
    best = best_of(trials)
    assert best is not None
    assert best.outcome.best_dice == max(trial.outcome.best_dice for trial in trials)
    with write_trials(trials, tmp_path).open(newline="", encoding="utf-8") as file:
        assert [float(row["rate"]) for row in csv.DictReader(file)] == [1e-3, 1e-4]
    assert best_of([]) is None


def test_a_search_that_is_stopped_goes_on(tmp_path: Path) -> None:
    plan = RunPlan(tiny(), tmp_path)
    (stopped,) = search_rates(plan, source(), identity_of(plan, {}), Notes(stop_after=2))
    assert not stopped.outcome.finished
    notes = Notes()
    assert len(list(search_rates(plan, source(), identity_of(plan, {}), notes))) == 2
    assert [report.step for report in notes.steps] == [3, 4, 1, 2, 3, 4]
