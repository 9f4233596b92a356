"""Step runners that stand between a job and the job engine: they watch, hold, break or fill up."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from dbos import DBOS
from sqlalchemy.exc import OperationalError

from node.faults import StepAside
from node.pipeline import StepReport, StepRunner


class Wrapper:
    """A step runner around the job engine."""

    def __init__(self, *arguments: Any) -> None:
        *self.arguments, self.inner = arguments

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        return cast(StepReport, self.inner(name, partial(self.around, name, step)))

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        return step()


class Listing(Wrapper):
    """Writes down which jobs begin, in their order."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        if name == "read":
            self.arguments[0].append(DBOS.workflow_id)
        return step()


class Breaking(Wrapper):
    """A bug in one step, as long as the list says so."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        broken, where, *job_ids = self.arguments
        if broken and name == where and DBOS.workflow_id in (job_ids or [DBOS.workflow_id]):
            raise ZeroDivisionError("Synthetic^Phantom")
        return step()


class Filling(Wrapper):
    """A disk that is full at one step, for so many tries."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        left, where = self.arguments
        if name == where and left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return step()


class Dying:
    """Ends the thread of a job after the commit of its last step."""

    def __init__(self, inner: StepRunner) -> None:
        self.inner = inner

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        report = self.inner(name, step)
        if name in ("finish", "park"):
            raise StepAside
        return report


class Leaving:
    """Ends the thread of a job after the commit of a step, as a drain does."""

    def __init__(self, after: str, inner: StepRunner) -> None:
        self.after, self.inner = after, inner

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        report = self.inner(name, step)
        if name == self.after:
            raise StepAside
        return report


class FullDatabase(Wrapper):
    """A database that is full at one step, for so many tries."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        left, where = self.arguments
        if name == where and left[0]:
            left[0] -= 1
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
        return step()


class Telling(Wrapper):
    """Writes down the steps that really run."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        self.arguments[0].append(name)
        return step()


class Holding(Wrapper):
    """Writes down the steps, and holds the second one until it may go on."""

    def around(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        done, reached, go_on = self.arguments
        if name == "check":
            reached.set()
            go_on.wait(30)
        report = step()
        done.append(name)
        return report
