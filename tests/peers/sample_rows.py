"""Rows for tests of the database: a series that arrives, its job, its results, its deliveries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from db.queries import (
    Changed,
    DeliveryAttempt,
    InstanceOutcome,
    NewJob,
    ReceivedInstance,
    ResultRow,
    create_job,
    job_summary,
    record_instance,
)
from db.session import transaction
from db.status import DeliveryStatus, JobStatus

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def arrival(number: int, content: str = "a", seconds: float = 0.0, series: str = "1.2.3") -> ReceivedInstance:
    return ReceivedInstance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"{series}.{number}",
        study_uid="1.2",
        series_uid=series,
        modality="CT",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="PACS",
        path=f"series/{number}-{content}.dcm",
        sha256=f"{series}-{number}-{content}",
        size_bytes=10,
        received_at=T0 + timedelta(seconds=seconds),
    )


def record(engine: Engine, *arrivals: ReceivedInstance, changed: Changed = Changed.KEEP) -> InstanceOutcome:
    with transaction(engine) as session:
        return [record_instance(session, received, changed) for received in arrivals][-1]


def new_job(job_id: str = "job-1", model: str = "compact") -> NewJob:
    return NewJob(job_id, model, {"seg_series": "2.25.1"}, T0)


def make_job(engine: Engine, job_id: str = "job-1") -> str:
    """A job of one new series with two instances."""
    outcome = record(engine, arrival(1), arrival(2))
    with transaction(engine) as session:
        assert create_job(session, outcome.series_id, new_job(job_id)) is not None
    return job_id


def summary_of(engine: Engine, job_id: str = "job-1") -> tuple[JobStatus, str | None, str | None, int]:
    with transaction(engine) as session:
        found = job_summary(session, job_id)
    assert found is not None
    return found.status, found.reason_code, found.reason, found.attempts


RESULTS = tuple(
    ResultRow(kind, f"2.25.{n}", "1.2.840", f"2.25.{n}.1", f"{kind}.dcm", kind * 4, 100)
    for n, kind in enumerate(("seg", "sr", "sc"))
)


def attempt(number: int, status: DeliveryStatus, kind: str = "seg") -> DeliveryAttempt:
    at = T0 + timedelta(seconds=number)
    later = at + timedelta(seconds=60) if status is DeliveryStatus.WAITING else None
    return DeliveryAttempt("job-1", "pacs", kind, number, status, 0xA700, f"attempt {number}", at, later)
