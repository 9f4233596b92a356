"""How a process takes part in running jobs: its lock, its steps with their checkpoints, its leaving in good order.

One process for each executor id (an OS lock), no remote part, and no verdict on a job that meets a full disk or a
database that is away. What the jobs are and how they are queued is in `node.jobs`.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from dbos import DBOS, DBOSPortableJSONSerializer, PortableWorkflowError, SQLAlchemyDatasource
from pydantic import TypeAdapter
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from node import log
from node.errors import JobsError
from node.faults import StepAside, is_full_disk, without_words
from node.jobs import APPLICATION, SLOTS, VERSION
from node.pipeline import StepReport

MOST_CRASHES = 3
"""A job that ended its worker this often is not tried again."""

MOST_RECOVERIES = 1_000
"""The job engine's own limit counts restarts in good order too, so it must lie far above ours."""

FULL_DISK_WAIT_S = 15.0
"""Wait before a step that found the disk full is run again."""

DATABASE_WAIT_S = 2.0
"""Wait before a database that was away is asked again."""

POLL_S = 0.5
"""Wait before a queue is looked at again."""

LAUNCH_S = 30.0
"""Longest wait until the job engine takes work."""

T = TypeVar("T")

_REPORT = TypeAdapter(StepReport)
_TRANSACTIONS = ("record", "deliver", "park", "finish", "again")
"""Steps that only touch SQL: their rows and their checkpoint are one commit."""


def prepare_database(url: str) -> None:
    """Bring the tables of the job engine to the version of this program; ours have their own migrations."""
    DBOS.migrate(url)
    SQLAlchemyDatasource.migrate(url)


@contextlib.contextmanager
def executor_lock(folder: Path, executor_id: str) -> Iterator[None]:
    """Hold an executor's id for the life of this process.

    Raises:
        JobsError: another process holds it. Two processes of one id would run the same step at once.
    """
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    with (folder / f"{executor_id}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobsError(
                f"executor {executor_id}",
                "another process runs jobs under this id",
                "Stop the other process; systemctl status vastus shows it",
            ) from error
        yield


@dataclass(frozen=True)
class Executor:
    """How a process takes part in running jobs.

    Attributes:
        executor_id: stable and unique among all processes on the database, as `node-<random>-worker`.
        queues: the queues that it takes work from.
        url: the database; `engine` is open on it.
    """

    executor_id: str
    queues: tuple[str, ...]
    url: str
    engine: Engine


class JobEngine:
    """This process's part in running jobs. One a process; hold `executor_lock` around it.

    Args:
        executor: who takes part, and in what.
        ledger_engine: a second SQLAlchemy engine on the same database, for the steps that are transactions: they
            change the isolation of their connections, which must not return to the pool of `executor.engine`.
    """

    def __init__(self, executor: Executor, ledger_engine: Engine) -> None:
        _leave_cloud_settings()
        self._executor = executor
        self.stopping = threading.Event()
        self.must_restart = threading.Event()
        serializer = DBOSPortableJSONSerializer()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": executor.url,
                "system_database_engine": executor.engine,
                "executor_id": executor.executor_id,
                "application_version": VERSION,
                "serializer": serializer,
                "log_level": "WARNING",
                "max_executor_threads": 64,
                "run_migrations": False,
            }
        )
        self.ledger = SQLAlchemyDatasource.create(
            executor.url, engine=ledger_engine, serializer=serializer, run_migrations=False
        )
        for engine in (executor.engine, ledger_engine):
            event.listen(engine, "handle_error", self._notice_full_disk)

    def add(self, name: str, workflow: Callable[..., str]) -> None:
        """Give the engine the function behind a workflow's name; before `launch`."""

        def run(*arguments: Any) -> str:  # the engine marks the function that it is given; a method takes no mark
            return workflow(*arguments)

        DBOS.workflow(name=name, max_recovery_attempts=MOST_RECOVERIES)(run)

    def launch(self) -> None:
        """Recover what this executor left behind, and take work from its queues.

        Raises:
            JobsError: the engine does not come to take work.
        """
        DBOS.listen_queues(self._executor.queues)
        DBOS.launch()
        for name, slots in SLOTS.items():
            # never_update: an operator's pause of a queue outlives a restart.
            DBOS.register_queue(name, worker_concurrency=slots, polling_interval_sec=POLL_S, on_conflict="never_update")
        deadline = time.monotonic() + LAUNCH_S
        while not self.alive():
            if time.monotonic() > deadline:
                reason = f"it takes no work from its queues {LAUNCH_S:g} s after its start"
                raise JobsError("the job engine", reason, "Look into the log; start the service again")
            time.sleep(0.05)

    def drain(self, limit_s: float) -> None:
        """Take no more work, let running steps end, and let go. A step longer than the limit is left for recovery."""
        self.stopping.set()
        DBOS.destroy(workflow_completion_timeout_sec=math.ceil(limit_s))

    def alive(self) -> bool:
        """Whether the threads that take work from the queues run."""
        names = {thread.name for thread in threading.enumerate()}
        return all(f"queue-worker-{queue}" in names for queue in self._executor.queues)

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        """Run a step with a checkpoint: a `StepRunner` for the pipeline.

        Steps that only touch SQL run in one transaction with their checkpoint; `self.session()` is its session. They
        are upserts all the same, because a rewound job runs them again. All other steps may be repeated by a crash
        between their end and their checkpoint.

        Raises:
            StepAside: the process is stopping, and the step was not begun; or the database is full.
        """
        if self.stopping.is_set():
            raise StepAside
        if name in _TRANSACTIONS:
            return _REPORT.validate_python(self._in_transaction(name, step))
        return _REPORT.validate_python(DBOS.run_step({"name": name}, partial(self._with_room, step)))

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask the database outside a step; where it is away, ask again until it is back: that is no fault of the job.

        Raises:
            StepAside: the process is stopping.
        """
        while True:
            try:
                return ask()
            except (OperationalError, InterfaceError) as error:
                log.event("database.lost", error=error, where="jobs")
            if self.stopping.wait(DATABASE_WAIT_S):
                raise StepAside

    def session(self) -> Session:
        """The session of the transaction that the current step runs in."""
        return self.ledger.sql_session()

    def leave_full_disk(self) -> NoReturn:
        """End this job's thread and this process: the job engine takes the job up again after a restart only.

        Raises:
            StepAside: always.
        """
        self.must_restart.set()
        raise StepAside

    def _in_transaction(self, name: str, step: Callable[[], StepReport]) -> dict[str, Any]:
        while True:
            try:
                return self.ledger.run_tx_step({"name": name}, partial(_dumped, step))
            except DBAPIError as error:
                if is_full_disk(error):
                    self.leave_full_disk()
                raise
            except PortableWorkflowError as recorded:
                # Room for that verdict was left before the restart, so it is what a replay finds; the next step is new.
                if not is_full_disk(recorded):
                    raise

    def _with_room(self, step: Callable[[], StepReport]) -> dict[str, Any]:
        """Run a step; where the disk is full, wait for room and run it again: a full disk is no fault of the job."""
        while True:
            try:
                return _dumped(step)
            except Exception as error:
                if not is_full_disk(error):
                    raise
                log.event("disk.low", error=error)
            if self.stopping.wait(FULL_DISK_WAIT_S):
                raise StepAside

    def _notice_full_disk(self, context: ExceptionContext) -> None:
        if is_full_disk(context.original_exception):
            self.must_restart.set()


def _dumped(step: Callable[[], StepReport]) -> dict[str, Any]:
    return cast(dict[str, Any], _REPORT.dump_python(without_words(step), mode="json"))


def _leave_cloud_settings() -> None:
    """Forget variables that would give the job engine another identity or a remote part."""
    for name in [name for name in os.environ if name.startswith("DBOS_")]:
        del os.environ[name]
