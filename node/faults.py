"""How a step of a job can go wrong, besides the expected ends that it returns as values."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from engine.errors import VastusError

T = TypeVar("T")


class StepAside(BaseException):
    """Ends a job's thread at the boundary of a step. Not an `Exception`, so that the job engine records no verdict."""


class StepFault(Exception):  # noqa: N818 - the word for a bug in a step
    """A bug in a step: its kind and its place, without its words, which may quote a patient.

    Args:
        kind: name of the exception.
        frames: where it happened, the innermost place last.
    """

    def __init__(self, kind: str, frames: tuple[str, ...] = ()) -> None:
        super().__init__(f"{kind}: a fault of the program")
        self.kind = kind
        self.frames = frames


def without_words(step: Callable[[], T]) -> T:
    """Run a step; a bug in it comes out as a `StepFault`, because the job engine stores what it says.

    Raises:
        StepFault: a bug.
        VastusError, OSError, DBAPIError: as they are; their words name files and tables, never a patient.
    """
    try:
        return step()
    except (VastusError, OSError, DBAPIError):
        raise
    except Exception as error:  # noqa: BLE001 - boundary of a job step: a bug loses its words here
        raise StepFault(type(error).__name__, frames_of(error)) from None


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says, itself or in its cause, that the disk is full."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "database or disk is full" in str(error):
        return True
    return error.__cause__ is not None and is_full_disk(error.__cause__)


def code_of(error: Exception) -> str:
    """A stable key for a failure, as `backend_error`."""
    kind = error.kind if isinstance(error, StepFault) else type(error).__name__
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def words_of(error: Exception) -> str:
    """A failure in words for SQL and the log: ours and a bug's as they are, of another only its kind."""
    return str(error) if isinstance(error, VastusError | StepFault) else f"{type(error).__name__}: see the log"


def frames_of(error: Exception) -> tuple[str, ...]:
    """Where it happened, the innermost place last."""
    if isinstance(error, StepFault) and error.frames:
        return error.frames
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return tuple(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
