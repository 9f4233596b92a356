"""Durable jobs on DBOS: queues, the one-transaction enqueue, and how a process takes part.

What must hold so that nothing is lost and nothing is made twice: one process for each executor id (an OS lock), a
version pinned by hand, a priority on every enqueue, portable JSON and no pickle, ids and relative paths as arguments,
and a limit for the jobs that kill their worker. Our own table `job` is the truth; the engine's tables say how far.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, SQLAlchemyDatasource, WorkflowStatus
from pydantic import TypeAdapter
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from db import queries
from db.models import Job
from db.session import now, transaction
from db.status import JobStatus
from dicom_io.uids import derive_uids
from node import log
from node.errors import JobsError
from node.faults import StepAside, is_full_disk, without_words
from node.pipeline import StepReport

APPLICATION = "vastus"
VERSION = "1"
"""Version of the workflows, pinned by hand. Work of another version is never taken: change steps behind DBOS.patch."""

PROCESS, DELIVER = "process", "deliver"
"""Names of the workflows."""

SEGMENT_QUEUE, DELIVER_QUEUE = "segment", "deliver"
SLOTS: Mapping[str, int] = {SEGMENT_QUEUE: 1, DELIVER_QUEUE: 2}
"""Queues and how many jobs of each a process runs at once. No global limit: a dead worker would keep its slot."""

STAT, ROUTINE = 1, 10
"""Priorities. Always given: the engine's default, 0, would run before STAT."""

MOST_CRASHES = 3
"""A job that ended its worker this often is not tried again."""

FULL_DISK_WAIT_S = 15.0
"""Wait before a step that found the disk full is run again."""

DATABASE_WAIT_S = 2.0
"""Wait before a database that was away is asked again."""

LAUNCH_S = 30.0
"""Longest wait until the job engine takes work."""

T = TypeVar("T")

_REPORT = TypeAdapter(StepReport)
_TRANSACTIONS = ("record", "deliver", "park", "finish", "again")
"""Steps that only touch SQL: their rows and their checkpoint are one commit."""


def job_id_of(series_uid: str, model: str, run: int) -> str:
    """The id of a job; the same series, model and run always give the same."""
    return f"job-{uuid.uuid5(uuid.NAMESPACE_OID, f'{series_uid}|{model}|{run}').hex}"


def delivery_id(job_id: str, destination: str, attempt: int) -> str:
    """The id of one attempt to deliver; an id that exists is never run again, so attempts count on."""
    return f"deliver-{job_id}-{destination}-{attempt}"


class JobQueue:
    """Puts work into the queues, in the same transaction as the rows it belongs to. Runs nothing itself.

    Args:
        engine: the one database of our tables and the job engine's.
        model: name of the model that new jobs are for.
    """

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._model = model
        self._client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
        )

    def series_complete(self, series_id: int, priority: int = ROUTINE) -> str | None:
        """Make the job of a complete series and queue it: one commit. Called twice, the second call does nothing.

        Returns:
            The job's id; None where the job was there already.
        """
        with transaction(self._engine) as session:
            series = queries.lock_series(session, series_id)
            job_id = job_id_of(series.series_uid, self._model, series.run)
            new = queries.NewJob(job_id, self._model, derive_uids(job_id).to_dict(), now())
            if queries.create_job(session, series_id, new) is None:
                return None
            self._client.enqueue_in_transaction(session, _options(PROCESS, SEGMENT_QUEUE, job_id, priority), job_id)
            correlation_id = series.correlation_id
        log.event("job.queued", correlation_id=correlation_id, job_id=job_id, priority=priority)
        return job_id

    def deliver(self, session: Session, job_id: str, destination: str, attempt: int, delay_s: float = 0.0) -> None:
        """Queue one attempt to deliver a job's results, in the caller's transaction."""
        options = _options(DELIVER, DELIVER_QUEUE, delivery_id(job_id, destination, attempt), ROUTINE)
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        self._client.enqueue_in_transaction(session, options, job_id, destination, attempt)

    def next_attempt(self, job_id: str, destination: str) -> int:
        """Number of the attempt after those that were ever queued."""
        return (
            max((int(each.workflow_id.rpartition("-")[2]) for each in self._chain(job_id, destination)), default=-1) + 1
        )

    def on_its_way(self, job_id: str, destination: str) -> bool:
        """Whether an attempt to deliver runs or is to come."""
        return any(each.status in ("PENDING", "ENQUEUED", "DELAYED") for each in self._chain(job_id, destination))

    def lost(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Those of the jobs that the engine has given up, with its word for it."""
        if not job_ids:
            return {}
        given_up = ["ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        found = self._client.list_workflows(
            workflow_ids=list(job_ids), status=given_up, load_input=False, load_output=False
        )
        return {each.workflow_id: each.status for each in found}

    def retry(self, job_id: str) -> None:
        """Run a failed job again, from its first step: the same id, so the same UIDs.

        Raises:
            JobsError: the job has not failed.
        """
        status = self._client.retrieve_workflow(job_id).get_status().status
        with transaction(self._engine) as session:
            if session.get_one(Job, job_id).status != JobStatus.FAILED.value:
                raise JobsError(f"job {job_id}", "it has not failed", "Only a failed job can be run again")
            queries.requeue_job(session, job_id)
            session.get_one(Job, job_id).attempts = 0
        if status in ("ERROR", "SUCCESS"):
            # resume_workflow on ERROR does nothing and says nothing
            self._client.rewind_workflow(job_id, start_step=1)
        else:
            self._client.resume_workflow(job_id, queue_name=SEGMENT_QUEUE)
        log.event("job.retried", job_id=job_id)

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def _chain(self, job_id: str, destination: str) -> list[WorkflowStatus]:
        prefix = delivery_id(job_id, destination, 0)[:-1]
        return self._client.list_workflows(workflow_id_prefix=prefix, load_input=False, load_output=False)


def _options(workflow: str, queue: str, workflow_id: str, priority: int) -> EnqueueOptions:
    return EnqueueOptions(
        workflow_name=workflow,
        queue_name=queue,
        workflow_id=workflow_id,
        app_version=VERSION,
        priority=priority,
    )


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
        executor_id: stable and unique among all processes on the database, as `ct-node-worker`.
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

        DBOS.workflow(name=name, max_recovery_attempts=MOST_CRASHES)(run)

    def launch(self) -> None:
        """Recover what this executor left behind, and take work from its queues.

        Raises:
            JobsError: the engine does not come to take work.
        """
        DBOS.listen_queues(self._executor.queues)
        DBOS.launch()
        for name, slots in SLOTS.items():
            # never_update: an operator's pause of a queue outlives a restart.
            DBOS.register_queue(name, worker_concurrency=slots, polling_interval_sec=0.5, on_conflict="never_update")
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
            StepAside: the process is stopping; the step was not begun.
        """
        if self.stopping.is_set():
            raise StepAside
        if name in _TRANSACTIONS:
            return _REPORT.validate_python(self.ledger.run_tx_step({"name": name}, partial(_dumped, step)))
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
                log.event("database.lost", error=error)
            if self.stopping.wait(DATABASE_WAIT_S):
                raise StepAside

    def session(self) -> Session:
        """The session of the transaction that the current step runs in."""
        return self.ledger.sql_session()

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
