"""What a run writes down beside its checkpoints: what it is, and how it goes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from torch.utils.tensorboard import SummaryWriter

from engine.training.checkpoint import newest_of
from engine.training.errors import TrainingError

RUN, METRICS, VALIDATION, TENSORBOARD = "run.json", "metrics.csv", "validation.csv", "tensorboard"
COLUMNS = ("step", "phase", "seconds", "rate", "loss")
FLUSH_STEPS = 20

Identity = Mapping[str, Any]
"""What makes a run this run, in the types of JSON: preset, seed, data."""


def refuse_other(folder: Path, identity: Identity) -> None:
    """See that a folder is free or belongs to this run; changes nothing.

    Raises:
        TrainingError: it belongs to another run, or to none but holds a checkpoint.
    """
    path = folder / RUN
    if not path.exists():
        if found := newest_of(folder):
            reason = f"it holds {found.name}, but no {RUN} says what that is"
            raise TrainingError(f"run folder {folder}", reason, "Name another folder with --run")
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = f"it cannot be read: {error}"
        raise TrainingError(f"file {path}", reason, "Name another folder with --run") from error
    if different := _differences(known, json.loads(json.dumps(identity))):
        reason = f"its run is another one: {different[0]}"
        remedy = "Ask for the same again, or name another folder with --run"
        raise TrainingError(f"run folder {folder}", reason, remedy)


def claim(folder: Path, identity: Identity) -> None:
    """Make a run's folder and say in it whose it is.

    Raises:
        TrainingError: see `refuse_other`, or the folder cannot be written.
    """
    refuse_other(folder, identity)
    path = folder / RUN
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(identity, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        reason = f"it cannot be written: {error.strerror}"
        raise TrainingError(f"run folder {folder}", reason, "Name another folder with --run") from error


def _differences(known: Any, asked: Any, name: str = "") -> list[str]:
    """What differs, as `preset.loss.kind is 'dice' there and 'dice_ce' here`."""
    if isinstance(known, dict) and isinstance(asked, dict):
        keys = dict.fromkeys([*known, *asked])
        return [
            line
            for key in keys
            for line in _differences(known.get(key), asked.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if known == asked else [f"{name} is {known!r} there and {asked!r} here"]


class Records:
    """The tables `metrics.csv` and `validation.csv`, and TensorBoard's files.

    Args:
        folder: the run's.
        step: rows after this one are dropped: a run that was killed does those steps again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._metrics = _table(folder / METRICS, step)
        self._validation = _table(folder / VALIDATION, step)
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._validation.close()
        self._board.close()

    def step(self, row: Sequence[float | int | str]) -> None:
        """One step, in the order of `COLUMNS`."""
        step = int(row[0])
        self._write(self._metrics, COLUMNS, row)
        for name, value in zip(COLUMNS[3:], row[3:], strict=True):
            self._board.add_scalar(f"{row[1]}/{name}", float(value), step)
        if step % FLUSH_STEPS == 0:
            self.flush()

    def validated(self, step: int, dice: Mapping[str, float]) -> None:
        """Dice of each structure and their mean, under `mean`."""
        self._write(self._validation, ("step", *dice), (step, *(round(value, 4) for value in dice.values())))
        self._board.add_scalar("validation/mean_dice", dice["mean"], step)
        self.flush()

    def flush(self) -> None:
        """See what was written on its way to the disk."""
        self._metrics.flush()
        self._validation.flush()
        self._board.flush()

    @staticmethod
    def _write(file: IO[str], columns: Sequence[str], row: Sequence[float | int | str]) -> None:
        table = csv.writer(file)
        if file.tell() == 0:
            table.writerow(columns)
        table.writerow(row)


def _table(path: Path, step: int) -> IO[str]:
    """A table to append to, without the rows after a step."""
    lines: list[str] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
    kept = lines[:1] + [line for line in lines[1:] if int(line.split(",", 1)[0]) <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8", newline="")
    part.replace(path)
    return path.open("a", newline="", encoding="utf-8")
