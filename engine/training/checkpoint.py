"""Files of a run's state: written whole or not at all, the one before kept beside."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.training.errors import TrainingError

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint-previous.pt"
# What torch raises on a file that is cut short, damaged, or something else.
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


def write_whole(state: object, path: Path) -> None:
    """Write a state under a temporary name, see it on the disk, and give it its name.

    Raises:
        TrainingError: the disk refused it; an older file of that name is as it was.
    """
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch wraps the disk's error in the second
        part.unlink(missing_ok=True)
        remedy = "Make room on its disk, then start the same command again"
        raise TrainingError(f"file {path}", f"it cannot be written: {error}", remedy) from error


def keep(state: Mapping[str, Any], folder: Path) -> Path:
    """Write a run's checkpoint; the one before becomes `PREVIOUS`."""
    newest = folder / CHECKPOINT
    fresh = folder / "checkpoint-new.pt"
    write_whole(state, fresh)
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    return fresh.replace(newest)


def newest_of(folder: Path) -> Path | None:
    """The checkpoint that a run goes on from; None before the first one.

    A kill between two renames may leave `PREVIOUS` alone, and then that is the newest.
    """
    return next((path for path in (folder / CHECKPOINT, folder / PREVIOUS) if path.exists()), None)


def read_state(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a state, its tensors on the CPU.

    Args:
        path: the file.
        keys: what it must hold.

    Raises:
        TrainingError: the file is missing, cut short, damaged, or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"checkpoint {path}", f"it is damaged or cut short ({words})", _remedy(path)) from error
    absent = [key for key in keys if key not in state] if isinstance(state, dict) else list(keys)
    if absent:
        raise TrainingError(f"checkpoint {path}", f"it holds no {absent[0]!r}", _remedy(path))
    return dict(state)


def _remedy(path: Path) -> str:
    previous = path.with_name(PREVIOUS)
    if path.name == CHECKPOINT and previous.exists():
        return f"Move it away: the run then goes on from {previous.name} beside it"
    return "Copy the file again, or begin a run in another folder"
