"""`vastus train`: train a model on synthetic scans, or on a folder of scans with labels."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from engine.evaluation.cases import LabelScheme
from node.cli.console import CONSOLE

if TYPE_CHECKING:
    from engine.training.loop import RunPlan, StepReport
    from engine.training.preset import Budget
    from node.training import DataPlan

STOPPED_STATUS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


Preset = Annotated[str, typer.Option(help="A preset that came with the program, or a file that ends in .toml.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with images/NAME and labels/NAME: NIfTI, NRRD, or a DICOM series and its SEG."),
]
Run = Annotated[Path | None, typer.Option(help="Folder of the run; default: training-runs/PRESET.")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="How long to train.")]
Steps = Annotated[int | None, typer.Option(min=1, help="How many steps to train, instead of a time.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1; never another one than asked.")]
Seed = Annotated[int, typer.Option(min=0, help="All draws follow from it.")]
Fold = Annotated[int, typer.Option(min=0, help="The fold of --data that validates.")]
Search = Annotated[bool, typer.Option("--search", help="Try the preset's learning rates, report the best.")]
Atlas = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, help="An atlas to draw synthetic persons from, too.")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that make windows; 0: this one, synthetic ones on --device.")
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the CPU; 0: as torch thinks best.")]
Labels = Annotated[
    LabelScheme,
    typer.Option(help="What label files hold: segments, with sides, as Vastus writes them; or structures, without."),
]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Go on though a structure is in no label file.")]
StartFrom = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="A checkpoint of another run to begin with.")
]


def train(  # noqa: PLR0913 - one argument an option of the command
    preset: Preset = "compact",
    data: Data = None,
    run: Run = None,
    minutes: Minutes = None,
    steps: Steps = None,
    device: Device = "cpu",
    seed: Seed = 1,
    fold: Fold = 0,
    search: Search = False,
    atlas: Atlas = None,
    workers: Workers = 1,
    threads: Threads = 0,
    labels: Labels = LabelScheme.SEGMENTS,
    allow_missing: AllowMissing = False,
    start_from: StartFrom = None,
) -> None:
    """Train a model. The same command goes on with a run that was stopped; exit status 3 where it was stopped again."""
    from engine.training.devices import prepare_process
    from engine.training.loop import RunPlan
    from engine.training.preset import load_preset
    from node.training import DataPlan

    folder, budget = run or Path("training-runs") / Path(preset).stem, _budget(minutes, steps)
    start = start_from and start_from.resolve()
    plan = RunPlan(load_preset(preset), folder, seed=seed, device=device, budget=budget, start_from=start)
    given, drawn_from = data and data.resolve(), atlas and atlas.resolve()
    sources = DataPlan(given, fold, labels, allow_missing, workers, drawn_from)
    prepare_process(threads)
    with _watching() as watcher:
        finished = _search(plan, sources, watcher) if search else _train(plan, sources, watcher)
    if not finished:
        CONSOLE.print("Stopped with a checkpoint. The same command goes on from there.")
        raise typer.Exit(STOPPED_STATUS)


def _train(plan: RunPlan, data: DataPlan, watcher: ProgressWatcher) -> bool:
    from engine.training.checkpoint import CHECKPOINT
    from engine.training.loop import BEST, Trainer
    from node.training import training_data

    source, identity = training_data(plan, data, watcher.prepared)
    outcome = Trainer(plan, source, identity, watcher).run()
    if outcome.finished:
        dice = "none" if math.isnan(outcome.best_dice) else f"{outcome.best_dice:.3f}"
        watcher.say(
            f"done after {outcome.steps} steps, best mean Dice on held-out data {dice}. Last weights: "
            f"{plan.folder / CHECKPOINT}, best: {plan.folder / BEST}"
        )
    return outcome.finished


def _search(plan: RunPlan, data: DataPlan, watcher: ProgressWatcher) -> bool:
    from engine.training.search import best_of, search_rates, write_trials
    from node.training import training_data

    source, identity = training_data(plan, data, watcher.prepared)
    trials = []
    for trial in search_rates(plan, source, identity, watcher):
        watcher.say(f"rate {trial.rate:g}: best mean Dice {trial.outcome.best_dice:.4f}")
        trials.append(trial)
    table = Table(title="Learning rates", title_justify="left")
    for column in ("rate", "steps", "best mean Dice", "run"):
        table.add_column(column)
    best = best_of(trials)
    for trial in trials:
        row = (f"{trial.rate:g}", str(trial.outcome.steps), f"{trial.outcome.best_dice:.4f}", str(trial.folder))
        table.add_row(*row, style="bold" if trial is best else None)
    path = write_trials(trials, plan.folder)
    CONSOLE.print(table)
    CONSOLE.print(f"The best is in bold. The same as a table: {path}")
    return all(trial.outcome.finished for trial in trials) and len(trials) == len(plan.preset.search.rates)


def _budget(minutes: float | None, steps: int | None) -> Budget | None:
    from engine.training.preset import Budget

    if minutes is not None and steps is not None:
        raise typer.BadParameter("give --minutes or --steps, not both")
    if minutes is not None:
        return Budget(minutes, "minutes")
    return None if steps is None else Budget(steps, "steps")


class ProgressWatcher:
    """Shows how a run goes: a bar where there is a terminal, a line now and then where there is none.

    Args:
        progress: the bar; it is started.
        stop: set when the run is to stop.
    """

    QUIET_STEPS = 50

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop
        self._bar = progress.add_task("reading", total=None)
        self._phase = ""

    def say(self, line: str) -> None:
        """A line that stays."""
        self._progress.console.print(line, highlight=False, markup=False)

    def prepared(self, done: int, of: int, name: str) -> None:
        """A case of the data is ready."""
        self._progress.update(self._bar, description=f"reading {name}", completed=done, total=of)

    def phase(self, name: str, number: int, of: int) -> None:
        """See `engine.training.loop.Watcher`."""
        self._phase = f"{number}/{of} {name}"
        self._progress.update(self._bar, description=self._phase, completed=0, total=1)
        self.say(f"phase {self._phase}")

    def step(self, report: StepReport) -> None:
        """See `engine.training.loop.Watcher`."""
        words = f"{self._phase}, step {report.step}, loss {report.loss:.3f}, {_clock(report.left_s)} left"
        self._progress.update(self._bar, description=words, completed=report.share)
        if not self._progress.console.is_terminal and report.step % self.QUIET_STEPS == 0:
            self.say(words)

    def validated(self, step: int, dice: float, best: bool) -> None:
        """See `engine.training.loop.Watcher`."""
        self.say(f"step {step}: mean Dice on held-out data {dice:.4f}{', the best so far' if best else ''}")

    def wants_stop(self) -> bool:
        """See `engine.training.loop.Watcher`."""
        return self._stop.is_set()


def _clock(seconds: float) -> str:
    minutes = math.ceil(seconds / 60) if math.isfinite(seconds) else 0
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


@contextmanager
def _watching() -> Iterator[ProgressWatcher]:
    """A watcher that stops the run in order on SIGINT and SIGTERM; a second signal ends it at once."""
    stop = threading.Event()
    former = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, former[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    try:
        with Progress(*columns, console=CONSOLE, transient=True) as progress:
            yield ProgressWatcher(progress, stop)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
