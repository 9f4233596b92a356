"""Deliveries, and the lists that the command line shows. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from peers.sample_rows import RESULTS, T0, arrival, attempt, make_job, new_job, record
from sqlalchemy import Engine, select

from db.models import Series
from db.queries import (
    PendingDelivery,
    WaitingChain,
    count_jobs,
    create_job,
    deliveries_of,
    job_summary,
    list_jobs,
    park_job,
    pending_deliveries,
    plan_deliveries,
    record_delivery_attempt,
    record_results,
    refused_destinations,
    send_again,
    unfinished_since,
    waiting_chains,
)
from db.session import transaction
from db.status import DeliveryStatus, JobStatus


@pytest.fixture
def planned(engine: Engine) -> Engine:
    """A job with three results for the destination `pacs`."""
    make_job(engine)
    with transaction(engine) as session:
        record_results(session, "job-1", RESULTS)
        assert plan_deliveries(session, "job-1", ["pacs"]) == 3
    return engine


def test_deliveries_are_planned_once(planned: Engine) -> None:
    with transaction(planned) as session:
        assert plan_deliveries(session, "job-1", ["pacs", "archive"]) == 3
        assert {row.destination for row in deliveries_of(session, "job-1")} == {"pacs", "archive"}
        assert pending_deliveries(session, "job-1", "pacs") == tuple(
            PendingDelivery(row.kind, row.sop_class_uid, row.sop_instance_uid, row.path, row.sha256, 0)
            for row in RESULTS
        )


def test_an_accepted_object_is_no_longer_pending(planned: Engine) -> None:
    with transaction(planned) as session:
        record_delivery_attempt(session, attempt(1, DeliveryStatus.WAITING))
        record_delivery_attempt(session, attempt(1, DeliveryStatus.WAITING))
        record_delivery_attempt(session, attempt(2, DeliveryStatus.ACCEPTED))
        record_delivery_attempt(session, attempt(3, DeliveryStatus.REFUSED))
        assert [row.kind for row in pending_deliveries(session, "job-1", "pacs")] == ["sr", "sc"]
        row = next(row for row in deliveries_of(session, "job-1") if row.kind == "seg")
        assert (row.status, row.attempts, row.accepted_at) == (DeliveryStatus.ACCEPTED, 2, T0 + timedelta(seconds=2))


def test_an_older_attempt_told_late_changes_nothing(planned: Engine) -> None:
    with transaction(planned) as session:
        record_delivery_attempt(session, attempt(5, DeliveryStatus.WAITING))
        record_delivery_attempt(session, attempt(4, DeliveryStatus.REFUSED))
        row = next(row for row in deliveries_of(session, "job-1") if row.kind == "seg")
    assert (row.status, row.attempts, row.comment) == (DeliveryStatus.WAITING, 5, "attempt 5")
    assert row.next_attempt_at == T0 + timedelta(seconds=65)


def test_planning_again_keeps_what_was_accepted(planned: Engine) -> None:
    with transaction(planned) as session:
        record_delivery_attempt(session, attempt(1, DeliveryStatus.WARNING))
        record_results(session, "job-1", RESULTS)
        assert plan_deliveries(session, "job-1", ["pacs"]) == 0
        assert len(pending_deliveries(session, "job-1", "pacs")) == 2


def test_refused_objects_wait_again_on_an_operators_word(planned: Engine) -> None:
    with transaction(planned) as session:
        for kind in ("seg", "sr", "sc"):
            record_delivery_attempt(session, attempt(3, DeliveryStatus.REFUSED, kind))
        assert waiting_chains(session) == ()
        assert refused_destinations(session, "job-1") == ("pacs",)
        assert send_again(session, "job-1", "pacs") == 3
        assert refused_destinations(session, "job-1") == ()
        series = session.scalars(select(Series.correlation_id)).one()
        assert waiting_chains(session) == (WaitingChain("job-1", "pacs", 3, series),)


def test_jobs_are_listed_the_newest_first(planned: Engine) -> None:
    for number in (2, 3):
        outcome = record(planned, arrival(1, series=f"1.9.{number}"))
        with transaction(planned) as session:
            made = replace(new_job(f"job-{number}"), created_at=T0 + timedelta(hours=number))
            create_job(session, outcome.series_id, made)
    with transaction(planned) as session:
        park_job(session, "job-2", "not_ct", "it is MR")
        assert [job.job_id for job in list_jobs(session, 2)] == ["job-3", "job-2"]
        assert [job.job_id for job in list_jobs(session, 9, JobStatus.PARKED)] == ["job-2"]
        assert [job.job_id for job in unfinished_since(session, T0 + timedelta(hours=1))] == ["job-1"]
        assert count_jobs(session) == {
            JobStatus.QUEUED: 2,
            JobStatus.RUNNING: 0,
            JobStatus.DONE: 0,
            JobStatus.PARKED: 1,
            JobStatus.FAILED: 0,
        }


def test_a_job_on_one_page(planned: Engine) -> None:
    with transaction(planned) as session:
        record_delivery_attempt(session, attempt(1, DeliveryStatus.ACCEPTED))
        found = job_summary(session, "job-1")
        assert job_summary(session, "none") is None
    assert found is not None
    assert (found.series_uid, found.study_uid, found.calling_ae, found.instances) == ("1.2.3", "1.2", "PACS", 2)
    assert found.deliveries == {DeliveryStatus.ACCEPTED: 1, DeliveryStatus.WAITING: 2}
    assert found.seconds is None
