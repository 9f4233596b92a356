"""The life of a job and what it found. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from peers.sample_rows import RESULTS, T0, attempt, make_job, new_job, summary_of
from sqlalchemy import Engine, select

from db.errors import UnknownRow
from db.models import Job, Series
from db.queries import (
    MadeWith,
    MeasurementRow,
    ModelRow,
    create_job,
    fail_job,
    finish_job,
    job_files,
    job_summary,
    lock_series,
    measurements_of,
    model_of,
    open_series_ids,
    park_job,
    record_delivery_attempt,
    record_measurements,
    record_model,
    record_results,
    reopen_series,
    requeue_job,
    results_of,
    start_job,
)
from db.session import transaction
from db.status import DeliveryStatus, JobStatus
from engine.plugins import Credit

MADE_WITH = MadeWith("openvino", "bf16", "d" * 64, (Credit("backend", "openvino", "vastus", "0.1.0"),))


def test_a_job_is_made_once_for_each_run_and_model(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        series_id = session.scalars(select(Series.id)).one()
        assert create_job(session, series_id, new_job("job-other")) is None
        assert create_job(session, series_id, new_job("job-3", model="other")) is not None
        job = session.get(Job, "job-1")
        assert job is not None
        assert (job.status, job.run, job.uids, job.created_at) == ("queued", 0, {"seg_series": "2.25.1"}, T0)
        assert open_series_ids(session) == ()


def test_a_job_is_done(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        assert start_job(session, "job-1") == 1
    assert summary_of(engine) == (JobStatus.RUNNING, None, None, 1)
    with transaction(engine) as session:
        assert start_job(session, "job-1") == 2, "begun again after a crash"
        finish_job(session, "job-1", {"read": 0.5, "segment": 2.0}, MADE_WITH)
    with transaction(engine) as session:
        first = job_summary(session, "job-1")
    with transaction(engine) as session:
        finish_job(session, "job-1", {"read": 0.5, "segment": 2.0}, MADE_WITH)
    with transaction(engine) as session:
        assert job_summary(session, "job-1") == first, "twice is once"
    assert first is not None
    assert (first.status, first.stage_seconds) == (JobStatus.DONE, {"read": 0.5, "segment": 2.0})
    assert (first.backend, first.precision, first.model_digest) == ("openvino", "bf16", "d" * 64)
    assert first.plugins == MADE_WITH.plugins
    assert first.seconds is not None
    assert first.seconds >= 0


def test_a_job_leads_to_the_words_of_its_model(engine: Engine) -> None:
    make_job(engine)
    row = ModelRow("d" * 64, "compact", "1.0.0", "For research", "Synthetic CT only.", "")
    with transaction(engine) as session:
        assert model_of(session, "job-1") is None
        record_model(session, row)
        finish_job(session, "job-1", {}, MADE_WITH)
        assert model_of(session, "job-1") == row
        record_model(session, replace(row, training="Synthetic CT only, again."))
        found = model_of(session, "job-1")
    assert found is not None and found.training == "Synthetic CT only, again."


@pytest.mark.parametrize(("end", "status"), [(park_job, JobStatus.PARKED), (fail_job, JobStatus.FAILED)])
def test_a_job_ends_with_a_reason_and_may_be_queued_again(
    engine: Engine, end: Callable[..., None], status: JobStatus
) -> None:
    make_job(engine)
    with transaction(engine) as session:
        start_job(session, "job-1")
        end(session, "job-1", "too_few_slices", "x" * 2000)
    assert summary_of(engine) == (status, "too_few_slices", "x" * 1024, 1)
    with transaction(engine) as session:
        requeue_job(session, "job-1")
    assert summary_of(engine) == (JobStatus.QUEUED, None, None, 1)


@pytest.mark.parametrize("attempts", [1, 5])
def test_a_job_at_its_end_is_not_begun_again(engine: Engine, attempts: int) -> None:
    """As when its worker dies between the last commit and the last word of the job engine, and the job is replayed."""
    make_job(engine)
    with transaction(engine) as session:
        start_job(session, "job-1")
        park_job(session, "job-1", "not_ct", "it is MR")
        before = job_summary(session, "job-1")
        assert [start_job(session, "job-1") for _ in range(attempts)] == [1] * attempts
        assert job_summary(session, "job-1") == before
        finish_job(session, "job-1", {}, MADE_WITH)
        start_job(session, "job-1")
    assert summary_of(engine) == (JobStatus.DONE, None, None, 1)


def test_a_failed_job_is_begun_again(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        fail_job(session, "job-1", "os_error", "the disk")
        assert start_job(session, "job-1") == 1
    assert summary_of(engine) == (JobStatus.RUNNING, None, None, 1)


def test_run_again_on_purpose(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        series_id = session.scalars(select(Series.id)).one()
        assert [reopen_series(session, series_id), reopen_series(session, series_id)] == [1, 1]
        assert create_job(session, series_id, new_job("job-2")) is not None
        assert job_files(session, "job-2") == job_files(session, "job-1")


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: start_job(session, "none"),
        lambda session: job_files(session, "none"),
        lambda session: park_job(session, "none", "a", "b"),
        lambda session: lock_series(session, 99),
        lambda session: create_job(session, 99, new_job()),
        lambda session: record_delivery_attempt(session, attempt(1, DeliveryStatus.WAITING)),
    ],
)
def test_what_is_unknown_is_told(engine: Engine, ask: Callable[..., object]) -> None:
    with transaction(engine) as session, pytest.raises(UnknownRow):
        ask(session)


def test_figures_are_recorded_twice_as_once(engine: Engine) -> None:
    make_job(engine)
    rows = [
        MeasurementRow("sartorius", "left", "volume", 1.5, "mL", ("truncated", "small")),
        MeasurementRow("sartorius", "right", "volume", 2.5, "mL"),
    ]
    with transaction(engine) as session:
        record_measurements(session, "job-1", [replace(rows[0], value=9.0, flags=()), rows[1]])
    with transaction(engine) as session:
        record_measurements(session, "job-1", rows)
        assert measurements_of(session, "job-1") == tuple(rows)


def test_results_are_recorded_twice_as_once(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        record_results(session, "job-1", [replace(row, size_bytes=1) for row in RESULTS])
        record_results(session, "job-1", RESULTS)
        assert results_of(session, "job-1") == RESULTS
