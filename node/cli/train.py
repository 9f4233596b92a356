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

from node.cli.console import CONSOLE

if TYPE_CHECKING:
    from engine.training.loop import RunPlan, StepReport
    from engine.training.pairs import LabelValues
    from engine.training.preset import Budget
    from node.training import DataPlan

STOPPED_STATUS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(  # noqa: PLR0913 - one argument an option of the command
    preset: Annotated[str, typer.Option(help="A preset that came with the program, or a file that ends in .toml.")] = (
        "compact"
    ),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with images/NAME and labels/NAME: NIfTI, NRRD, or a DICOM series and its SEG."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default: training-runs/PRESET.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="How long to train.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps to train, instead of a time.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1; never another one than asked.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="All draws follow from it.")] = 1,
    fold: Annotated[int, typer.Option(min=0, help="The fold of --data that validates.")] = 0,
    search: Annotated[bool, typer.Option("--search", help="Try the preset's learning rates, report the best.")] = False,
    atlas: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="An atlas to draw synthetic persons from, too.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make windows; 0: this one, synthetic ones on --device.")
    ] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the CPU; 0: as torch thinks best.")] = 0,
    label_values: Annotated[
        str, typer.Option(help="What label files hold: segments (with sides, as Vastus writes them) or classes.")
    ] = "segments",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on though a structure is in no label file.")
    ] = False,
    start_from: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A checkpoint of another run to begin with.")
    ] = None,
) -> None:
    """Train a model. The same command goes on with a run that was stopped; exit status 3 where it was stopped again."""
    from engine.training.devices import prepare_process
    from engine.training.loop import RunPlan
    from engine.training.preset import load_preset
    from node.training import DataPlan

    folder = run or Path("training-runs") / Path(preset).stem
    chosen = load_preset(preset)
    plan = RunPlan(
        preset=chosen,
        folder=folder,
        seed=seed,
        device=device,
        budget=_budget(minutes, steps),
        start_from=start_from and start_from.resolve(),
    )
    sources = DataPlan(
        folder=data and data.resolve(),
        fold=fold,
        values=_values(label_values),
        allow_missing=allow_missing,
        workers=workers,
        atlas=atlas and atlas.resolve(),
    )
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


def _values(name: str) -> LabelValues:
    from engine.training.pairs import LabelValues

    try:
        return LabelValues(name)
    except ValueError as error:
        raise typer.BadParameter(f"{name!r} is neither segments nor classes", param_hint="--label-values") from error


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
