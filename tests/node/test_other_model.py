"""A job is segmented with the model that it was queued for, or with another on an operator's word only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import job_bench
import pytest
from dbos import DBOS
from job_bench import job_of, node_base, receive, running, settings_for, wait_until
from peers.receiver import listen_to_log
from sqlalchemy.orm import Session
from step_wrappers import Leaving
from stub_workshop import stub_workshop

from db import queries
from db.models import Job
from db.session import transaction
from db.status import JobStatus
from node import compose
from node.errors import JobsError
from node.jobs import JobQueue

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[compose.Base]:
    with node_base(settings_for(tmp_path)) as made:
        yield made
    DBOS.destroy(destroy_registry=True)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Any:
    return listen_to_log(monkeypatch)


def queued(base: compose.Base, folder: Path, model: str) -> str:
    """A job of a received phantom, queued by a listener whose settings named the model."""
    queue = JobQueue(base.database, model)
    job_id = queue.series_complete(receive(base, folder))
    queue.close()
    assert job_id is not None
    return job_id


def ended(base: compose.Base, job_id: str, status: JobStatus) -> queries.JobSummary:
    """The job at its end, when the job engine has heard of it too."""
    wait_until(lambda: job_of(base, job_id).status is status)
    wait_until(lambda: base.queue._status(job_id) == "SUCCESS")
    return job_of(base, job_id)


def test_a_job_of_another_model_is_parked_and_a_retry_takes_the_present_one(
    base: compose.Base, tmp_path: Path, events: Any
) -> None:
    job_id = queued(base, tmp_path, "former")
    assert [event["model"] for event in events.named("job.queued")] == ["former"]
    with running(base):
        parked = ended(base, job_id, JobStatus.PARKED)
        assert (parked.reason_code, parked.model, parked.deliveries) == ("another_model", "former", {})
        assert "queued for the model former, and this worker has stub" in str(parked.reason)
        assert list(base.spool.results_folder(job_id).iterdir()) == []
        base.queue.retry(job_id)
        done = ended(base, job_id, JobStatus.DONE)
    assert (done.model, done.reason_code) == ("stub", None)
    with transaction(base.database) as session:
        made_with = queries.model_of(session, job_id)
    assert made_with is not None and made_with.name == "stub"


def test_one_that_another_model_began_is_not_labelled_by_this_one(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queued(base, tmp_path, "former")
    monkeypatch.setattr(job_bench, "stub_workshop", lambda: stub_workshop("former"))
    with running(base, partial(Leaving, "check")):
        wait_until(lambda: (base.spool.work_folder(job_id) / "volume.npy").exists())
    monkeypatch.setattr(job_bench, "stub_workshop", stub_workshop)
    with running(base):
        assert ended(base, job_id, JobStatus.PARKED).reason_code == "another_model"


def test_a_retry_never_makes_a_second_job_of_a_run_for_one_model(base: compose.Base, tmp_path: Path) -> None:
    job_id = queued(base, tmp_path, "former")
    with transaction(base.database) as session:
        queries.park_job(session, job_id, "another_model", "It was queued for another model.")
        job = session.get_one(Job, job_id)
        rival = queries.NewJob("job-rival", "stub", job.uids, job.created_at)
        assert queries.create_job(session, job.series_id, rival) is not None
    with pytest.raises(JobsError, match="stub has its own job of that run: job-rival"):
        base.queue.retry(job_id)
    assert (job_of(base, job_id).model, job_of(base, job_id).status) == ("former", JobStatus.PARKED)


def test_the_log_names_who_segmented_though_another_ended_it(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Any
) -> None:
    job_id = queued(base, tmp_path, "stub")
    with running(base, partial(Leaving, "deliver")):
        wait_until(lambda: (base.spool.work_folder(job_id) / "results.json").exists())
    newer = stub_workshop()
    package = replace(newer.package, version="9", intended_use="Other words", training_statement="Other training")
    newer = replace(newer, package=package, backend="other", precision="bf16")
    monkeypatch.setattr(job_bench, "stub_workshop", lambda: newer)
    with running(base):
        ended(base, job_id, JobStatus.DONE)
    (done,) = events.named("job.done")
    assert (done["model"], done["version"], done["backend"], done["precision"]) == ("stub", "0", "rule", "fp32")
    assert (done["intended_use"], done["digest"]) == ("For tests only", "0" * 64)
    assert done["training"].startswith("A rule of Hounsfield units")
    with Session(base.database) as session:
        assert session.get_one(Job, job_id).backend == done["backend"]
