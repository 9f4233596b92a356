"""The grid search over the learning rate: each is tried for a few epochs, the best on the held-out data wins."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.training.draws import Source
from engine.training.loop import Outcome, RunPlan, Trainer, Watcher
from engine.training.preset import Budget
from engine.training.records import Identity

SEARCH = "search"
TABLE = "search.csv"


@dataclass(frozen=True)
class Trial:
    """One learning rate, how its run ended, and where the run is kept."""

    rate: float
    outcome: Outcome
    folder: Path


def search_rates(plan: RunPlan, source: Source, identity: Identity, watcher: Watcher) -> Iterator[Trial]:
    """Try every rate of the preset's grid; a trial that was stopped goes on where it was.

    Args:
        plan: of the run that is searched for; trials are kept below its folder.
        source: training data.
        identity: of that run.
        watcher: is told how each goes.

    Yields:
        trials in the grid's order, the last one unfinished where the watcher wants to stop.

    Raises:
        TrainingError: see `Trainer`.
    """
    grid = plan.preset.search
    for rate in grid.rates:
        folder = plan.folder / SEARCH / f"rate-{rate:g}"
        preset = plan.preset.with_rate(rate)
        trial = replace(plan, preset=preset, folder=folder, budget=plan.budget or Budget(grid.epochs, "epochs"))
        outcome = Trainer(trial, source, {**identity, "preset": preset.told()}, watcher).run()
        yield Trial(rate, outcome, folder)
        if not outcome.finished:
            return


def best_of(trials: list[Trial]) -> Trial | None:
    """The trial with the highest mean Dice; None where none was judged."""
    judged = [trial for trial in trials if not math.isnan(trial.outcome.best_dice)]
    return max(judged, key=lambda trial: trial.outcome.best_dice, default=None)


def write_trials(trials: list[Trial], folder: Path) -> Path:
    """Write what was found as the table `search.csv`."""
    path = folder / TABLE
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("rate", "steps", "best_mean_dice"))
        table.writerows((trial.rate, trial.outcome.steps, round(trial.outcome.best_dice, 4)) for trial in trials)
    return part.replace(path)
