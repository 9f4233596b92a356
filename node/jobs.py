"""Durable jobs on DBOS: names, queues, the one-transaction enqueue, and what an operator can ask for.

What must hold so that nothing is lost and nothing is made twice: a version pinned by hand, a priority on every
enqueue, portable JSON and no pickle, ids and relative paths as arguments. Our own table `job` is the truth; the
engine's tables say how far. How a process runs jobs is in `node.executor`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db import queries
from db.models import Job
from db.session import now, transaction
from db.status import JobStatus
from dicom_io.uids import derive_uids
from node import log
from node.errors import JobsError
from node.pipeline import RETRIABLE, STEPS

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


def new_job_id() -> str:
    """The id of a new job, and the root of its results' UIDs: random, because no two results may share a UID.

    An id made from series, model and run would come again on another node, after the loss of the state folder, or with
    another model under the same name. That a job is made once is the matter of its row, unique in those three.
    """
    return f"job-{uuid.uuid4().hex}"


def delivery_id(job_id: str, destination: str, attempt: int) -> str:
    """The id of one attempt to deliver; an id that exists is never run again, so attempts count on."""
    return f"deliver-{job_id}-{destination}-{attempt}"


@dataclass(frozen=True)
class Unwanted:
    """Why the rules of selection do not take a series.

    Attributes:
        code: stable key of the reason.
        reason: in words.
        winner_uid: the series that is taken in its place; None where a rule refused it.
        winner_id: of that series, where it must be decided on again because nothing is made of it yet.
    """

    code: str
    reason: str
    winner_uid: str | None = None
    winner_id: int | None = None


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

    def series_complete(self, series_id: int, priority: int = ROUTINE, seen: datetime | None = None) -> str | None:
        """Make the job of a complete series and queue it: one commit. Called twice, the second call does nothing.

        Args:
            series_id: the series.
            priority: `STAT` or `ROUTINE`.
            seen: when its last instance had arrived, to whoever judged it complete.

        Returns:
            The job's id; None where the job was there already, or where more of the series arrived after `seen`.
        """
        with transaction(self._engine) as session:
            series = queries.lock_series(session, series_id)
            if seen is not None and series.last_received_at > seen:
                return None
            job_id = new_job_id()
            new = queries.NewJob(job_id, self._model, derive_uids(job_id).to_dict(), now())
            if queries.create_job(session, series_id, new) is None:
                return None
            self._client.enqueue_in_transaction(session, _options(PROCESS, SEGMENT_QUEUE, job_id, priority), job_id)
            correlation_id = series.correlation_id
        log.event("job.queued", correlation_id=correlation_id, job_id=job_id, priority=priority, model=self._model)
        return job_id

    def series_parked(self, series_id: int, why: Unwanted, seen: datetime | None = None) -> str | None:
        """Make the job of a complete series that the rules do not take, parked: one commit, and nothing is queued.

        Args:
            series_id: the series.
            why: what decided.
            seen: when its last instance had arrived, to whoever judged it complete.

        Returns:
            The job's id; None where the job was there already, or where more of the series arrived after `seen`.
        """
        with transaction(self._engine) as session:
            series = queries.lock_series(session, series_id)
            if seen is not None and series.last_received_at > seen:
                return None
            job_id = new_job_id()
            new = queries.NewJob(job_id, self._model, derive_uids(job_id).to_dict(), now())
            if queries.create_job(session, series_id, new) is None:
                return None
            queries.park_by_rules(session, job_id, why.code, why.reason, why.winner_uid)
            if why.winner_id is not None:
                queries.reopen_series(session, why.winner_id)
            told = {"correlation_id": series.correlation_id, "series_uid": series.series_uid, "job_id": job_id}
        event = "series.refused" if why.winner_uid is None else "series.unselected"
        log.event(event, **told, code=why.code, reason=why.reason)
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

    def retry(self, job_id: str) -> str:
        """Run a failed job again, or one that was parked for what may pass or by the rules: the same id and UIDs.

        It runs from its first step, with the model that the settings name now, unless its results are on their way
        already: those are never written again.

        Returns:
            What happens now, in words.

        Raises:
            JobsError: there is no such job, it has not failed and was parked neither for one of `RETRIABLE` nor by the
                rules of selection, or the present model has its own job of the same run.
        """
        if self._forced(job_id):
            return f"Job {job_id} runs as soon as the worker is free, whatever the rules say."
        first_step = 1
        with transaction(self._engine) as session:
            job = _job(session, job_id)
            may_pass = job.status == JobStatus.PARKED.value and job.reason_code in RETRIABLE
            if job.status != JobStatus.FAILED.value and not may_pass:
                remedy = f"Only a failed job runs again, or one parked as {', '.join(RETRIABLE)}"
                raise JobsError(f"job {job_id}", f"it has not failed: it is {job.status}", remedy)
            if queries.deliveries_of(session, job_id):
                first_step = STEPS.index("finish") + 1
            else:
                self._give_present_model(session, job)
            status = self._status(job_id)
            queries.requeue_job(session, job_id)
            job.attempts = 0
            correlation_id = job.series.correlation_id
        if status in ("ERROR", "SUCCESS"):
            # resume_workflow on ERROR does nothing and says nothing
            self._client.rewind_workflow(job_id, start_step=first_step)
        else:
            self._client.resume_workflow(job_id, queue_name=SEGMENT_QUEUE)
        log.event("job.retried", correlation_id=correlation_id, job_id=job_id)
        return f"Job {job_id} runs again as soon as the worker is free."

    def resend(self, job_id: str) -> str:
        """Send again what destinations refused for good of a job's results.

        Returns:
            What happens now, in words.

        Raises:
            JobsError: there is no such job, or nothing of it was refused.
        """
        with transaction(self._engine) as session:
            correlation_id = _job(session, job_id).series.correlation_id
            destinations = queries.refused_destinations(session, job_id)
        if not destinations:
            raise JobsError(
                f"job {job_id}", "no destination has refused anything of it", "See where it stands: vastus jobs"
            )
        objects = 0
        for destination in destinations:
            under_way, attempt = self.on_its_way(job_id, destination), self.next_attempt(job_id, destination)
            with transaction(self._engine) as session:
                objects += queries.send_again(session, job_id, destination)
                if not under_way:
                    self.deliver(session, job_id, destination, attempt)
            log.event("delivery.resent", correlation_id=correlation_id, job_id=job_id, destination=destination)
        return f"{objects} results of job {job_id} are sent again to {', '.join(destinations)}."

    def close(self) -> None:
        """Let go of the database."""
        self._client.destroy()

    def _forced(self, job_id: str) -> bool:
        """Queue a job that the rules of selection parked before it ever ran; false where it is none of those."""
        with transaction(self._engine) as session:
            job = _job(session, job_id)
            if job.status != JobStatus.PARKED.value or not job.by_rules:
                return False
            self._give_present_model(session, job)
            queries.requeue_job(session, job_id)
            options = _options(PROCESS, SEGMENT_QUEUE, job_id, ROUTINE)
            self._client.enqueue_in_transaction(session, options, job_id)
            correlation_id = job.series.correlation_id
        log.event("job.retried", correlation_id=correlation_id, job_id=job_id)
        return True

    def _give_present_model(self, session: Session, job: Job) -> None:
        """Let a job that begins anew be the present model's: an operator's word, never a worker's own choice."""
        if job.model == self._model:
            return
        same_run = select(Job.id).where(Job.series_id == job.series_id, Job.run == job.run, Job.model == self._model)
        other = session.scalar(same_run)
        if other is not None:
            reason = f"it was queued for {job.model}, and the model {self._model} has its own job of that run: {other}"
            raise JobsError(f"job {job.id}", reason, "Nothing is to be done; see vastus jobs")
        job.model = self._model
        session.flush()

    def _status(self, job_id: str) -> str:
        found = self._client.list_workflows(workflow_ids=[job_id], load_input=False, load_output=False)
        if not found:
            remedy = "Restore the database from a backup: it was changed by hand"
            raise JobsError(f"job {job_id}", "the job engine does not know it any more", remedy)
        return found[0].status

    def _chain(self, job_id: str, destination: str) -> list[WorkflowStatus]:
        prefix = delivery_id(job_id, destination, 0)[:-1]
        found = self._client.list_workflows(workflow_id_prefix=prefix, load_input=False, load_output=False)
        # The prefix of the destination `pacs` is that of `pacs-2` as well.
        return [each for each in found if each.workflow_id.removeprefix(prefix).isdecimal()]


def _job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise JobsError(f"job {job_id}", "the database holds no such job", "List what it holds: vastus jobs")
    return job


def _options(workflow: str, queue: str, workflow_id: str, priority: int) -> EnqueueOptions:
    return EnqueueOptions(
        workflow_name=workflow,
        queue_name=queue,
        workflow_id=workflow_id,
        app_version=VERSION,
        priority=priority,
    )
