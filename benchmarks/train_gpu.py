"""Training where a command may run for ten minutes at the most, as on a GPU that is lent.

Every call trains on for some minutes from where the last one stopped, then writes the averaged weights in pieces::

    python benchmarks/train_gpu.py train --preset compact --run training-runs/gpu --total-minutes 120
    python benchmarks/train_gpu.py join training-runs/gpu/pieces weights.safetensors

`train` ends with status 3 while there is more to do, and 0 when the run is over. The pieces go where `--pieces` says.
A machine that keeps nothing between two calls needs the run's folder carried along.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.errors import VastusError
from engine.training.checkpoint import CHECKPOINT, read_state
from engine.training.devices import prepare_process
from engine.training.loop import RunPlan, StepReport, Trainer
from engine.training.preset import Budget, load_preset
from engine.training.weights import join_pieces, weights_of, write_pieces
from node.training import DataPlan, training_data

MORE_STATUS = 3
REFUSED_STATUS = 2
SHUTDOWN_S = 45.0
"""Kept free at the end of a call: for the last step, the checkpoint and the pieces."""


class Lines:
    """Tells how a run goes, a line now and then."""

    def __init__(self, console: Console, every_s: float = 15.0) -> None:
        self._console, self._every_s, self._last = console, every_s, 0.0

    def phase(self, name: str, number: int, of: int) -> None:
        """See `engine.training.loop.Watcher`."""
        self._console.print(f"phase {number} of {of}: {name}")

    def step(self, report: StepReport) -> None:
        """See `engine.training.loop.Watcher`."""
        if time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        self._console.print(
            f"step {report.step}  loss {report.loss:.3f}  {100 * report.share:.1f} % of {report.phase}", highlight=False
        )

    def validated(self, step: int, dice: float, best: bool) -> None:
        """See `engine.training.loop.Watcher`."""
        self._console.print(f"step {step}  mean Dice on held-out data {dice:.4f}{' (best)' if best else ''}")

    def wants_stop(self) -> bool:
        """See `engine.training.loop.Watcher`."""
        return False


def train(given: argparse.Namespace, console: Console) -> int:
    began = time.monotonic()
    prepare_process(given.threads)
    budget = Budget(given.steps, "steps") if given.steps else Budget(given.total_minutes, "minutes")
    plan = RunPlan(load_preset(given.preset), given.run, given.seed, given.device, budget)
    data = DataPlan(folder=given.data, workers=given.workers, atlas=given.atlas, allow_missing=given.allow_missing)
    source, identity = training_data(plan, data, lambda done, of, name: console.print(f"{done} of {of}: {name}"))
    left_s = given.call_minutes * 60 - SHUTDOWN_S - (time.monotonic() - began)
    plan = RunPlan(plan.preset, given.run, given.seed, given.device, budget, pause_after_s=max(0.0, left_s))
    outcome = Trainer(plan, source, identity, Lines(console)).run()
    about = {
        "preset": given.preset,
        "steps": outcome.steps,
        "finished": outcome.finished,
        "best_dice": None if math.isnan(outcome.best_dice) else outcome.best_dice,
    }
    manifest = pack(given.run, given.pieces or given.run / "pieces", about, given.piece_bytes)
    console.print(f"{'finished' if outcome.finished else 'to be gone on with'} at step {outcome.steps}: {manifest}")
    return 0 if outcome.finished else MORE_STATUS


def pack(run: Path, folder: Path, about: dict[str, Any], piece_bytes: int) -> Path:
    state = read_state(run / CHECKPOINT, ("averaged",))
    words = {name: str(value) for name, value in about.items()}
    return write_pieces(weights_of(state["averaged"], words), folder, about, piece_bytes)


def join(given: argparse.Namespace, console: Console) -> int:
    about = join_pieces(given.folder, given.target)
    console.print(f"{given.target}: {given.target.stat().st_size} bytes, {about}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", help="train on for some minutes")
    one.set_defaults(run_command=train)
    one.add_argument("--preset", default="compact")
    one.add_argument("--run", type=Path, default=Path("training-runs/gpu"))
    one.add_argument("--total-minutes", type=float, default=120.0, help="of the whole run, over all calls")
    one.add_argument("--steps", type=int, help="of the whole run, instead of a time")
    one.add_argument("--call-minutes", type=float, default=9.0, help="of this call, its start included")
    one.add_argument("--device", default="cuda")
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes for patches")
    one.add_argument("--threads", type=int, default=0)
    one.add_argument("--data", type=Path, help="folder of pairs instead of synthetic scans")
    one.add_argument("--allow-missing", action="store_true")
    one.add_argument("--atlas", type=Path)
    one.add_argument("--pieces", type=Path, help="where the weights go; default: RUN/pieces")
    one.add_argument("--piece-bytes", type=int, default=15_000_000)
    other = commands.add_parser("join", help="put the pieces together and check them")
    other.set_defaults(run_command=join)
    other.add_argument("folder", type=Path)
    other.add_argument("target", type=Path)
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    console = Console()
    try:
        return int(given.run_command(given, console))
    except VastusError as error:
        console.print(str(error), markup=False)
        return REFUSED_STATUS


if __name__ == "__main__":
    sys.exit(main())
