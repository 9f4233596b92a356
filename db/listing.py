"""Looking at what the node remembers, for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session, aliased, joinedload

from db.jobs import MeasurementRow, ModelRow, ResultRow
from db.models import Delivery, Instance, Job, JobInstance, Measurement, Model, Result, Series
from db.status import DeliveryStatus, JobStatus
from engine.plugins import Credit


@dataclass(frozen=True)
class JobSummary:
    """One job on one page.

    Attributes:
        instances: how many instances it was made of.
        stage_seconds: seconds by the name of the stage; empty until the job is done.
        plugins: whose the parts are that it was made with; empty until the job is done.
        deliveries: how many deliveries there are of each status.
        changed: how many other versions of its instances there are, that is with other bytes under the same UID.
    """

    job_id: str
    correlation_id: str
    study_uid: str
    series_uid: str
    modality: str | None
    calling_ae: str
    model: str
    run: int
    status: JobStatus
    reason_code: str | None
    reason: str | None
    instances: int
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stage_seconds: Mapping[str, float]
    backend: str | None
    precision: str | None
    model_digest: str | None
    plugins: tuple[Credit, ...]
    deliveries: Mapping[DeliveryStatus, int]
    changed: int = 0

    @property
    def seconds(self) -> float | None:
        """Seconds from the first start to the end; None while the job is not at its end."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class DeliverySummary:
    """One object on its way to one destination."""

    job_id: str
    destination: str
    kind: str
    sop_instance_uid: str
    status: DeliveryStatus
    dicom_status: int | None
    comment: str | None
    attempts: int
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    accepted_at: datetime | None


def list_jobs(session: Session, limit: int, status: JobStatus | None = None) -> tuple[JobSummary, ...]:
    """The newest jobs, the newest first; of one status, or of all."""
    statement = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    return _summaries(session, statement if status is None else statement.where(Job.status == status.value))


def job_summary(session: Session, job_id: str) -> JobSummary | None:
    """One job; None if there is none of that id."""
    return next(iter(_summaries(session, select(Job).where(Job.id == job_id))), None)


def jobs_of_series(session: Session, series_uid: str) -> tuple[JobSummary, ...]:
    """The jobs of one series, the first run first."""
    statement = select(Job).join(Series, Series.id == Job.series_id).where(Series.series_uid == series_uid)
    return _summaries(session, statement.order_by(Job.run, Job.model))


def unfinished_since(session: Session, before: datetime) -> tuple[JobSummary, ...]:
    """Jobs that were made before a time and are not at their end: the alarm that no queue of its own can give."""
    waiting = Job.status.in_((JobStatus.QUEUED.value, JobStatus.RUNNING.value))
    return _summaries(session, select(Job).where(waiting, Job.created_at < before).order_by(Job.created_at))


def count_jobs(session: Session) -> dict[JobStatus, int]:
    """How many jobs there are of each status; every status is there."""
    counts = dict(session.execute(select(Job.status, func.count()).group_by(Job.status)).all())
    return {status: counts.get(status.value, 0) for status in JobStatus}


def deliveries_of(session: Session, job_id: str) -> tuple[DeliverySummary, ...]:
    """The deliveries of a job, by destination, in the order in which they were planned."""
    rows = session.scalars(
        select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.destination, Delivery.id)
    )
    return tuple(
        DeliverySummary(
            row.job_id,
            row.destination,
            row.kind,
            row.sop_instance_uid,
            DeliveryStatus(row.status),
            row.dicom_status,
            row.comment,
            row.attempts,
            row.last_attempt_at,
            row.next_attempt_at,
            row.accepted_at,
        )
        for row in rows
    )


def measurements_of(session: Session, job_id: str) -> tuple[MeasurementRow, ...]:
    """The figures of a job, in the order in which they were recorded."""
    rows = session.scalars(select(Measurement).where(Measurement.job_id == job_id).order_by(Measurement.id))
    return tuple(
        MeasurementRow(row.structure, row.side, row.quantity, row.value, row.unit, tuple(row.flags.split()))
        for row in rows
    )


def model_of(session: Session, job_id: str) -> ModelRow | None:
    """The model that a job was made with; None before its end, or where the job is older than the table of models."""
    row = session.scalars(select(Model).join(Job, Job.model_digest == Model.digest).where(Job.id == job_id)).first()
    if row is None:
        return None
    return ModelRow(row.digest, row.name, row.version, row.intended_use, row.training, row.attribution)


def results_of(session: Session, job_id: str) -> tuple[ResultRow, ...]:
    """The objects that a job wrote, in the order in which they were recorded."""
    rows = session.scalars(select(Result).where(Result.job_id == job_id).order_by(Result.id))
    return tuple(
        ResultRow(
            row.kind, row.series_uid, row.sop_class_uid, row.sop_instance_uid, row.path, row.sha256, row.size_bytes
        )
        for row in rows
    )


def _summaries(session: Session, jobs: Select[Job]) -> tuple[JobSummary, ...]:
    found = session.scalars(jobs.options(joinedload(Job.series)).execution_options(populate_existing=True)).all()
    ids = [job.id for job in found]
    by_job = select(JobInstance.job_id, func.count()).where(JobInstance.job_id.in_(ids)).group_by(JobInstance.job_id)
    instances = dict(session.execute(by_job).all())
    by_status = select(Delivery.job_id, Delivery.status, func.count()).where(Delivery.job_id.in_(ids))
    deliveries: dict[str, dict[DeliveryStatus, int]] = {}
    for job_id, status, count in session.execute(by_status.group_by(Delivery.job_id, Delivery.status)):
        deliveries.setdefault(job_id, {})[DeliveryStatus(status)] = count
    changed = _changed(session, ids)
    return tuple(
        _summary(job, instances.get(job.id, 0), deliveries.get(job.id, {}), changed.get(job.id, 0)) for job in found
    )


def _changed(session: Session, ids: Sequence[str]) -> dict[str, int]:
    """For each job that has any, the number of other versions of its instances."""
    used, other = aliased(Instance), aliased(Instance)
    same = and_(other.series_id == used.series_id, other.sop_instance_uid == used.sop_instance_uid)
    versions = (
        select(JobInstance.job_id, func.count(other.id.distinct()))
        .join(used, used.id == JobInstance.instance_id)
        .join(other, and_(same, other.id != used.id))
        .where(JobInstance.job_id.in_(ids))
    )
    return dict(session.execute(versions.group_by(JobInstance.job_id)).all())


def _summary(job: Job, instances: int, deliveries: Mapping[DeliveryStatus, int], changed: int) -> JobSummary:
    return JobSummary(
        job_id=job.id,
        correlation_id=job.series.correlation_id,
        study_uid=job.series.study_uid,
        series_uid=job.series.series_uid,
        modality=job.series.modality,
        calling_ae=job.series.calling_ae,
        model=job.model,
        run=job.run,
        status=JobStatus(job.status),
        reason_code=job.reason_code,
        reason=job.reason,
        instances=instances,
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        stage_seconds=job.stage_seconds,
        backend=job.backend,
        precision=job.precision,
        model_digest=job.model_digest,
        plugins=tuple(Credit(**row) for row in job.plugins or ()),
        deliveries=deliveries,
        changed=changed,
    )
