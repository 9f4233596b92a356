"""A worker's job: the pipeline with SQL behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db import queries
from db.models import Job
from db.session import transaction
from db.status import JobStatus
from dicom_io.findings import figures
from dicom_io.results import ResultFile
from dicom_io.series import SeriesRef
from dicom_io.uids import ResultUids
from engine.flags import RaisedFlag
from engine.labels import side_word
from engine.measure import Measurements
from engine.plugins import Credit
from node import log
from node.executor import MOST_CRASHES, JobEngine
from node.faults import StepAside, code_of, frames_of, is_full_disk, words_of
from node.jobs import JobQueue
from node.made_by import MadeBy
from node.pipeline import RETRIABLE, Counts, Outcome, Parked, StepReport, StepRunner, process
from node.spool import Spool
from node.stages import JobOrder, SeriesStages, Workshop


class JobLedger:
    """Remembers jobs in SQL, inside the transaction of the step that calls it.

    Args:
        session: gives the session of that transaction.
        queue: where deliveries are queued, in the same transaction.
        destinations: names of all destinations.
    """

    def __init__(self, session: Callable[[], Session], queue: JobQueue, destinations: Sequence[str]) -> None:
        self._session = session
        self._queue = queue
        self._destinations = tuple(destinations)

    def record(self, order: JobOrder, measurements: Measurements, files: tuple[ResultFile, ...]) -> Counts:
        """Figures and results, as upserts; the figures are those that the report states."""
        rows = [
            queries.MeasurementRow(
                each.structure, side_word(each.side), each.quantity, each.value, each.unit, each.flags
            )
            for each in figures(measurements)
        ]
        queries.record_measurements(self._session(), order.job_id, rows)
        queries.record_results(self._session(), order.job_id, [_result_row(file, order.folder) for file in files])
        return {"figures": len(rows)}

    def note_flags(self, order: JobOrder, raised: tuple[RaisedFlag, ...]) -> Counts:
        """The flags; those of an earlier run of the job that were not raised again go."""
        queries.record_flags(self._session(), order.job_id, raised)
        return {"flags": len(raised)}

    def deliver(self, order: JobOrder) -> Counts:
        """The first attempt for every destination; one that is queued already is not queued again."""
        queries.plan_deliveries(self._session(), order.job_id, self._destinations)
        for destination in self._destinations:
            self._queue.deliver(self._session(), order.job_id, destination, 0)
        return {"destinations": len(self._destinations)}

    def park(self, order: JobOrder, parked: Parked) -> Counts:
        """The reason why the series is not segmented."""
        queries.park_job(self._session(), order.job_id, parked.code, parked.reason)
        return {}

    def finish(self, order: JobOrder, outcome: Outcome, made_by: MadeBy) -> Counts:
        """The job is done; the model that it was made with is remembered with its words."""
        name = (made_by.model_digest, made_by.model_name, made_by.model_version)
        words = (made_by.intended_use, made_by.training_statement, made_by.attribution)
        queries.record_model(self._session(), queries.ModelRow(*name, *words))
        parts = queries.MadeWith(made_by.backend, made_by.precision, made_by.model_digest, made_by.plugins)
        queries.finish_job(self._session(), order.job_id, outcome.stage_seconds, parts)
        return {}


LABELLING_STEPS = ("read", "segment")
"""Steps that only a worker with the job's model takes: the first, before anything is done in vain, and the one that
labels, because a worker may be started again with another model between two steps."""


@dataclass(frozen=True)
class _Begun:
    """A job that begins, or begins again.

    Attributes:
        order: what it is made of.
        attempt: how often it has begun now.
        correlation_id: of its series.
        model: name of the model that it was queued for.
    """

    order: JobOrder
    attempt: int
    correlation_id: str
    model: str


@dataclass(frozen=True)
class Worker:
    """Takes a job from its row to its end.

    Attributes:
        database: the node's database.
        spool: where the files lie.
        workshop: the warm model and the rules.
        ledger: what remembers the job.
        engine: the job engine of this process.
        run_step: how a step is run: by the engine, unless a test stands in between.
    """

    database: Engine
    spool: Spool
    workshop: Workshop
    ledger: JobLedger
    engine: JobEngine
    run_step: StepRunner

    def run(self, job_id: str) -> str:
        """The workflow `process`. Returns `done`, `parked` or `failed`.

        Raises:
            StepAside: the process is stopping, or must restart because its database is full; the job waits for that.
        """
        begun = self.engine.patiently(partial(self._start, job_id))
        with log.correlated(begun.correlation_id):
            if begun.attempt > MOST_CRASHES:
                return self._fail(job_id, "crashed_worker", f"it ended its worker {MOST_CRASHES} times")
            log.event("job.started", job_id=job_id, attempt=begun.attempt)
            try:
                stages = SeriesStages(begun.order, self.workshop, self.ledger, _no_progress)
                outcome = process(stages, self._telling(job_id, begun.model))
            except StepAside:
                self._forgive(job_id)
                raise
            except Exception as error:  # boundary of a job: it is told, and the engine records it; the next job runs
                if is_full_disk(error):
                    self._forgive(job_id)
                    self.engine.leave_full_disk()
                self._fail(job_id, code_of(error), words_of(error), frames_of(error))
                raise
            return self._tell(job_id, outcome)

    def _telling(self, job_id: str, model: str) -> StepRunner:
        """Run steps as ever, and tell of each that really ran; one that is replayed from its checkpoint is silent.

        A step that labels is not run where the job is another model's.
        """

        def run(name: str, step: Callable[[], StepReport]) -> StepReport:
            def told() -> StepReport:
                refused = self._refused(model) if name in LABELLING_STEPS else None
                report = step() if refused is None else StepReport(0.0, {}, refused)
                log.event("job.stage", job_id=job_id, stage=name, seconds=report.seconds)
                return report

            return self.run_step(name, told)

        return run

    def _refused(self, model: str) -> Parked | None:
        """Why a job of this model is not for this worker; None where it is."""
        served = self.workshop.package.name
        if model == served:
            return None
        reason = f"It was queued for the model {model}, and this worker has {served}."
        return Parked("another_model", f"{reason} {RETRIABLE['another_model']}")

    def _start(self, job_id: str) -> _Begun:
        with transaction(self.database) as session:
            attempt = queries.start_job(session, job_id)
            job = session.get_one(Job, job_id)
            files = tuple(self.spool.path_of(path) for path in queries.job_files(session, job_id))
            ref = SeriesRef(job.series.study_uid, job.series.series_uid, files)
            folder = self.spool.work_folder(job_id).parent
            # In local time: an object without an offset from UTC is read as local (PS3.3 C.12.1.1).
            created_at = job.created_at.astimezone()
            order = JobOrder(job_id, ref, ResultUids.from_dict(job.uids), created_at, folder)
            return _Begun(order, attempt, job.series.correlation_id, job.model)

    def _forgive(self, job_id: str) -> None:
        """A job that stepped aside did not end its worker: the attempt does not count."""

        def forgive() -> None:
            with transaction(self.database) as session:
                job = session.get_one(Job, job_id, with_for_update=True)
                if job.status == JobStatus.RUNNING.value:
                    job.attempts = max(0, job.attempts - 1)

        self.engine.patiently(forgive)  # for a moment: a full database ends this process soon

    def _fail(self, job_id: str, code: str, words: str, frames: Sequence[str] = ()) -> str:
        def note() -> None:
            with transaction(self.database) as session:
                queries.fail_job(session, job_id, code, words)

        self.engine.patiently(note)
        log.event("job.failed", job_id=job_id, code=code, reason=words, frames=list(frames))
        return "failed"

    def _tell(self, job_id: str, outcome: Outcome) -> str:
        facts = {"seconds": outcome.stage_seconds, "total_seconds": round(sum(outcome.stage_seconds.values()), 3)}
        if outcome.parked is not None:
            log.event("job.parked", job_id=job_id, code=outcome.parked.code, reason=outcome.parked.reason, **facts)
            return "parked"
        made_with = self.engine.patiently(partial(self._made_with, job_id))
        log.event("job.done", job_id=job_id, **made_with, **facts, **outcome.counts)
        return "done"

    def _made_with(self, job_id: str) -> dict[str, object]:
        """Who made a job's results, as SQL has it: this worker may only have ended it."""
        with transaction(self.database) as session:
            job, model = session.get_one(Job, job_id), queries.model_of(session, job_id)
            plugins = [str(Credit(**part)) for part in job.plugins or ()]
            facts = {"digest": job.model_digest, "backend": job.backend, "precision": job.precision, "plugins": plugins}
            if model is None:  # ended before there was the table of models
                return {"model": job.model, **facts}
            words = {"intended_use": model.intended_use, "training": model.training}
            return {"model": model.name, "version": model.version, **words, **facts}


def _result_row(file: ResultFile, folder: Path) -> queries.ResultRow:
    return queries.ResultRow(
        kind=file.kind,
        series_uid=file.series_uid,
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        path=str(file.path.relative_to(folder)),
        sha256=file.sha256,
        size_bytes=file.size_bytes,
    )


def _no_progress(_done: int, _of: int) -> None:
    return
