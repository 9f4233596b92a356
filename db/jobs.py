"""The life of a job: made of what has arrived, started, then done, parked or failed; and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.arrivals import lock_series
from db.errors import UnknownRow
from db.models import Instance, Job, JobInstance, Measurement, Model, Result
from db.rows import fitted, insert_if_absent, upsert
from db.session import now
from db.status import JobStatus
from engine.plugins import Credit

_BARE = {"synchronize_session": False}  # what the session knows is read anew afterwards
_AT_ITS_END = (JobStatus.DONE.value, JobStatus.PARKED.value)


@dataclass(frozen=True)
class NewJob:
    """What is fixed before any work starts: the id, the model, the UIDs of the results."""

    job_id: str
    model: str
    uids: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class MeasurementRow:
    """One figure: quantity (`volume`, `mean_hu`, `sd_hu`), value, UCUM unit, flags as words without spaces."""

    structure: str
    side: str
    quantity: str
    value: float
    unit: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultRow:
    """One DICOM object that was written: kind (its writer's name), UIDs, file below the job's folder, digest."""

    kind: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ModelRow:
    """A model, with the words of its results: what they are for, what it was trained on, whose work that stands on."""

    digest: str
    name: str
    version: str
    intended_use: str
    training: str
    attribution: str


@dataclass(frozen=True)
class MadeWith:
    """What a job was made with.

    Attributes:
        backend: what ran the network.
        precision: what that computed in.
        model_digest: sha256 of the network, hexadecimal.
        plugins: whose the parts were.
    """

    backend: str
    precision: str
    model_digest: str
    plugins: tuple[Credit, ...] = ()


def create_job(session: Session, series_id: int, new: NewJob) -> Job | None:
    """Make the job of the series' present run: of the newest version of each of its instances. It closes the series.

    Returns:
        The job; None if that run of that model has its job already.

    Raises:
        UnknownRow: there is no such series.
    """
    series = lock_series(session, series_id)
    values = {
        "id": new.job_id,
        "series_id": series_id,
        "run": series.run,
        "model": new.model,
        "status": JobStatus.QUEUED.value,
        "uids": dict(new.uids),
        "stage_seconds": {},
        "attempts": 0,
        "created_at": new.created_at,
    }
    made = insert_if_absent(session, Job, values)
    if made:
        newest = select(Instance.id).where(Instance.series_id == series_id, Instance.newest)
        for instance_id in session.scalars(newest).all():
            session.add(JobInstance(job_id=new.job_id, instance_id=instance_id))
    series.open = False
    session.flush()
    return _job(session, new.job_id) if made else None


def job_files(session: Session, job_id: str) -> tuple[str, ...]:
    """The files of a job, relative to the spool, in the order in which they first arrived.

    Raises:
        UnknownRow: there is no such job.
    """
    _job(session, job_id)
    files = select(Instance.path).join(JobInstance, JobInstance.instance_id == Instance.id)
    return tuple(session.scalars(files.where(JobInstance.job_id == job_id).order_by(Instance.id)))


def start_job(session: Session, job_id: str) -> int:
    """A worker begins a job, or begins it again after a crash. A job that is done or parked stays as it is.

    Such a job is only replayed: its worker died after the last commit, before the job engine had heard of the end.

    Returns:
        How often it has begun now: a job that kills its worker shows here.
    """
    begins = update(Job).where(Job.id == job_id, Job.status.not_in(_AT_ITS_END))
    session.execute(begins.values(attempts=Job.attempts + 1), execution_options=_BARE)
    job = _job(session, job_id)
    if job.status in _AT_ITS_END:
        return job.attempts
    job.started_at = job.started_at or now()
    _set(job, JobStatus.RUNNING)
    job.finished_at = None
    session.flush()
    return job.attempts


def park_job(session: Session, job_id: str, code: str, reason: str) -> None:
    """The series is kept but not segmented, for a reason that a radiographer understands."""
    job = _job(session, job_id)
    _set(job, JobStatus.PARKED, code, reason)
    session.flush()


def park_by_rules(session: Session, job_id: str, code: str, reason: str, winner_uid: str | None) -> None:
    """The rules of selection do not take the series; `winner_uid` is the series that was taken in its place."""
    job = _job(session, job_id)
    _set(job, JobStatus.PARKED, code, reason)
    job.by_rules, job.winner_uid = True, winner_uid
    session.flush()


def fail_job(session: Session, job_id: str, code: str, reason: str) -> None:
    """The job failed through a fault of the node."""
    job = _job(session, job_id)
    _set(job, JobStatus.FAILED, code, reason)
    session.flush()


def finish_job(session: Session, job_id: str, stage_seconds: Mapping[str, float], made_with: MadeWith) -> None:
    """The job is done; `stage_seconds` are told by the name of the stage."""
    job = _job(session, job_id)
    job.stage_seconds = dict(stage_seconds)
    job.backend, job.precision, job.model_digest = made_with.backend, made_with.precision, made_with.model_digest
    job.plugins = [asdict(credit) for credit in made_with.plugins]
    _set(job, JobStatus.DONE)
    session.flush()


def requeue_job(session: Session, job_id: str) -> None:
    """Put a job back in line, on an operator's word. The UIDs of its results stay the same."""
    job = _job(session, job_id)
    _set(job, JobStatus.QUEUED)
    job.by_rules, job.winner_uid = False, None
    job.started_at = job.finished_at = None
    session.flush()


def record_measurements(session: Session, job_id: str, rows: Sequence[MeasurementRow]) -> None:
    """Remember the figures of a job; a second time overwrites the first."""
    values = [{**asdict(row), "job_id": job_id, "flags": " ".join(row.flags)} for row in rows]
    upsert(session, Measurement, ("job_id", "structure", "side", "quantity"), values)


def record_results(session: Session, job_id: str, rows: Sequence[ResultRow]) -> None:
    """Remember the objects that a job wrote; a second time overwrites the first."""
    upsert(session, Result, ("job_id", "kind"), [{**asdict(row), "job_id": job_id} for row in rows])


def record_model(session: Session, row: ModelRow) -> None:
    """Remember the model that a job was made with; a second time overwrites the first."""
    upsert(session, Model, ("digest",), [asdict(row)])


def _job(session: Session, job_id: str) -> Job:
    """The job as it is now, locked where the database can.

    Raises:
        UnknownRow: there is none.
    """
    job = session.get(Job, job_id, populate_existing=True, with_for_update=True)
    if job is None:
        raise UnknownRow(f"job {job_id}", "the database does not hold it", "List what it holds: vastus jobs.")
    return job


def _set(job: Job, status: JobStatus, code: str | None = None, reason: str | None = None) -> None:
    """Set the status, with its reason; the time when the job ended stays that of the first telling."""
    told_before = job.status == status.value
    job.status, job.reason_code, job.reason = status.value, fitted(code, 64), fitted(reason, 1024)
    if status in (JobStatus.DONE, JobStatus.PARKED, JobStatus.FAILED) and not (told_before and job.finished_at):
        job.finished_at = now()
