"""`vastus model compile`: measures what runs the model fastest on this machine, and keeps it for the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from config.settings import Settings
from engine.errors import BackendError
from node.cli.console import CONSOLE, SettingsFile, settings_of

if TYPE_CHECKING:
    from engine.backends import SessionOptions
    from engine.choice import Trial
    from engine.package import ModelPackage


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile")(compile_model)


def compile_model(settings: SettingsFile = None) -> None:
    """Time every backend and precision to be had here, hold each against the network's own answers, keep the best.

    What TensorRT needs is built, which takes minutes. The service takes the result at its next start, for as long as
    package, hardware, libraries and settings are the same. Exit status 2 where none may serve.
    """
    from engine import choice
    from node import compose

    chosen = settings_of(settings)
    package = compose.package_of(chosen)
    options = compose.options_of(chosen)
    CONSOLE.print(f"{package.name} {package.version}, {options.threads} threads, device {options.device}", markup=False)
    trials = _try_all(package, options)
    wanted = choice.Candidate(chosen.engine.backend, chosen.engine.precision)
    measurement = choice.Measurement(choice.conditions_of(package, options), trials)
    best = measurement.fastest(wanted)
    CONSOLE.print(trial_table(trials, best))
    if best is None:
        reason = f"none of {len(trials)} may serve" + _limit(chosen)
        raise BackendError(f"model {package.name}", reason, "Read the last column; nothing was kept")
    path = choice.remember(measurement, compose.cache_of(chosen))
    CONSOLE.print(f"The service takes [bold]{best.candidate}[/] from its next start on. Kept in {path}", soft_wrap=True)


def trial_table(trials: tuple[Trial, ...], best: Trial | None) -> Table:
    """What was found, the fastest marked."""
    table = Table(title="Seconds a window; error of the logits, and voxels with the same class", title_justify="left")
    for column in ("backend", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("batch", "seconds", "error", "same class"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("may it serve", overflow="fold")
    for trial in trials:
        seconds = "" if trial.seconds is None else f"{trial.seconds:.4f}"
        error = "" if trial.error is None else f"{trial.error:.1e}"
        same = "" if trial.same_class is None else f"{trial.same_class:.3%}"
        word = f"no: {escape(trial.refused)}" if trial.refused else "yes, the fastest" if trial is best else "yes"
        row = (trial.candidate.backend, trial.candidate.precision, str(trial.batch), seconds, error, same, word)
        table.add_row(*row, style="bold green" if trial is best else "dim" if trial.refused else "")
    return table


def _try_all(package: ModelPackage, options: SessionOptions) -> tuple[Trial, ...]:
    from engine.trials import candidates, run_trials

    which = candidates()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    done: list[Trial] = []
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def say(words: str) -> None:
            progress.update(bar, description=f"{len(done) + 1} of {len(which)}  {which[len(done)]}: {words}")

        for trial in run_trials(package, options, which, say):
            done.append(trial)
    return tuple(done)


def _limit(chosen: Settings) -> str:
    """What the settings ask for, where they ask for anything."""
    asked = [word for word in (chosen.engine.backend, chosen.engine.precision) if word != "auto"]
    return f", of those that the settings ask for: {' '.join(asked)}" if asked else ""
