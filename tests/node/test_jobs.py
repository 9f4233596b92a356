"""Jobs under the real job engine: made once, run once, taken up again, failed and retried."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import job_bench
import pytest
from dbos import DBOS
from job_bench import job_of, node_base, receive, receive_files, running, settings_for, uids_of, wait_until
from peers.ports import free_port
from peers.postgres import postgres_server
from peers.receiver import listen_to_log
from pydicom import dcmread
from service_bench import pacs_on
from sqlalchemy import text
from sqlalchemy.orm import Session
from step_wrappers import Breaking, Dying, Filling, FullDatabase, Holding, Leaving, Listing, Telling
from stub_workshop import RuleSegmenter, phantom_series, stub_workshop

from db import queries
from db.models import Job
from db.session import transaction
from db.status import DeliveryStatus, JobStatus
from engine.errors import DeviceMemoryError
from engine.segmentation import Segmentation
from engine.volume import Volume
from node import compose, executor, jobs
from node.chores import mind_jobs
from node.errors import JobsError
from node.executor import MOST_CRASHES, executor_lock
from node.jobs import STAT
from node.pipeline import STEPS

# pynetdicom leaves it to the garbage collector to close a socket that never came to be connected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[compose.Base]:
    with node_base(settings_for(tmp_path)) as made:
        yield made
    DBOS.destroy(destroy_registry=True)


def test_a_complete_series_becomes_one_job_however_often_it_is_announced(base: compose.Base, tmp_path: Path) -> None:
    series_id = receive(base, tmp_path)
    job_id = base.queue.series_complete(series_id)
    assert job_id is not None
    assert [base.queue.series_complete(series_id) for _ in range(3)] == [None, None, None]
    with Session(base.database) as session:
        queued = session.execute(text("SELECT workflow_uuid, queue_name, priority FROM workflow_status")).all()
    assert queued == [(job_id, "segment", 10)]


def test_a_job_runs_to_its_end(base: compose.Base, tmp_path: Path) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path), STAT)
    assert job_id is not None
    with running(base):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    job = job_of(base, job_id)
    assert set(job.stage_seconds) == {"read", "check", "segment", "measure", "write", "record", "deliver"}
    assert (job.attempts, job.backend, job.model_digest) == (1, "rule", "0" * 64)
    with transaction(base.database) as session:
        results = {row.kind: row for row in queries.results_of(session, job_id)}
        assert len(queries.measurements_of(session, job_id)) == 12
        made_with = queries.model_of(session, job_id)
    assert made_with is not None
    assert (made_with.name, made_with.intended_use) == ("stub", "For tests only")
    assert made_with.training == "A rule of Hounsfield units for tests; nothing was trained."
    uids = uids_of(base, job_id)
    folder = base.spool.results_folder(job_id).parent
    for kind, row in results.items():
        written = dcmread(folder / row.path, stop_before_pixels=True)
        assert written.SOPInstanceUID == row.sop_instance_uid == uids[f"{kind}_instance"]
    assert set(results) == {"seg", "sr", "sc"}
    assert not (folder / "work").exists()


def test_urgent_work_is_taken_first(base: compose.Base, tmp_path: Path) -> None:
    routine = [base.queue.series_complete(receive(base, tmp_path, seed)) for seed in (1, 2)]
    urgent = base.queue.series_complete(receive(base, tmp_path, 3), STAT)
    order: list[str] = []
    with running(base, partial(Listing, order)):
        wait_until(lambda: len(order) == 3)
    assert order == [urgent, *routine]


def test_a_series_that_is_no_volume_is_parked_with_its_reason(base: compose.Base, tmp_path: Path) -> None:
    ref = phantom_series(tmp_path / "sent")
    job_id = base.queue.series_complete(receive_files(base, replace(ref, files=ref.files[:5])))
    assert job_id is not None
    with running(base):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.PARKED)
    job = job_of(base, job_id)
    assert (job.reason_code, job.deliveries) == ("too_few_slices", {})
    assert job.reason


def test_a_bug_fails_the_job_and_a_retry_takes_it_to_its_end_with_the_same_uids(
    base: compose.Base, tmp_path: Path
) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    uids = uids_of(base, job_id)
    broken = [True]
    with running(base, partial(Breaking, broken, "measure")):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.FAILED)
        failed = job_of(base, job_id)
        assert failed.reason_code == "zero_division_error"
        assert failed.reason == "ZeroDivisionError: a fault of the program"
        wait_until(lambda: base.queue.lost([job_id]) == {job_id: "ERROR"})
        broken.clear()
        base.queue.retry(job_id)
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert uids_of(base, job_id) == uids
    assert {row.sop_instance_uid for row in results_in(base, job_id)} == {
        uid for name, uid in uids.items() if name.endswith("_instance")
    }


def test_a_retry_never_writes_again_what_is_on_its_way(base: compose.Base, tmp_path: Path) -> None:
    """Its last step failed, when its results were queued for delivery already."""
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    broken, begun = [True], list[str]()
    with running(base, partial(Breaking, broken, "finish")):
        wait_until(lambda: base.queue.lost([job_id]) == {job_id: "ERROR"})
    broken.clear()
    assert "runs again" in base.queue.retry(job_id)
    with running(base, partial(Telling, begun)):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert not {"read", "segment", "write"} & set(begun)
    assert sum(job_of(base, job_id).deliveries.values()) == 3


def test_only_a_failed_job_is_retried(base: compose.Base, tmp_path: Path) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    with pytest.raises(JobsError, match="has not failed"):
        base.queue.retry(job_id)
    with pytest.raises(JobsError, match="holds no such job"):
        base.queue.retry("job-0")
    with transaction(base.database) as session:
        queries.park_job(session, job_id, "too_few_slices", "It has 5 slices.")
    with pytest.raises(JobsError, match=r"it is parked.*parked as out_of_memory"):
        base.queue.retry(job_id)


def test_a_job_that_a_passing_lack_of_memory_parked_is_retried_to_its_end(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [True]

    class Crowded(RuleSegmenter):
        def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
            if full:
                raise DeviceMemoryError("device cuda", "it has too little memory", "End what else uses it")
            return super().segment(volume, progress)

    monkeypatch.setattr(job_bench, "stub_workshop", lambda: replace(stub_workshop(), segmenter=Crowded()))
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    uids = uids_of(base, job_id)
    with running(base):
        wait_until(lambda: stands(base, job_id) == "SUCCESS")
        parked = job_of(base, job_id)
        assert (parked.status, parked.reason_code) == (JobStatus.PARKED, "out_of_memory")
        assert "vastus jobs --retry" in str(parked.reason)
        full.clear()
        assert "runs again" in base.queue.retry(job_id)
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert uids_of(base, job_id) == uids
    assert (job_of(base, job_id).reason_code, len(results_in(base, job_id))) == (None, 3)


def test_a_job_names_who_segmented_though_another_ended_it(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    with running(base, partial(Leaving, "segment")):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.RUNNING and bool(segmented(base, job_id)))
    monkeypatch.setattr(job_bench, "stub_workshop", lambda: replace(stub_workshop(), backend="other", precision="bf16"))
    with running(base):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    with Session(base.database) as session:
        job = session.get_one(Job, job_id)
        assert (job.backend, job.precision) == ("rule", "fp32")


def test_a_retry_is_told_with_the_series_it_belongs_to(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    with transaction(base.database) as session:
        queries.fail_job(session, job_id, "os_error", "the disk")
    events = listen_to_log(monkeypatch)
    base.queue.retry(job_id)
    told = {"correlation_id": job_of(base, job_id).correlation_id, "job_id": job_id}
    assert events.named("job.retried") == [told]


def test_a_job_that_keeps_ending_its_worker_fails_and_the_next_one_runs(base: compose.Base, tmp_path: Path) -> None:
    poison = base.queue.series_complete(receive(base, tmp_path, 1))
    healthy = base.queue.series_complete(receive(base, tmp_path, 2))
    assert poison is not None
    assert healthy is not None
    with transaction(base.database) as session:
        for _ in range(MOST_CRASHES):  # as three workers that died in it would have left it
            queries.start_job(session, poison)
    with running(base):
        wait_until(lambda: job_of(base, healthy).status is JobStatus.DONE)
    assert (job_of(base, poison).status, job_of(base, poison).reason_code) == (JobStatus.FAILED, "crashed_worker")


@pytest.mark.parametrize("end", [JobStatus.DONE, JobStatus.PARKED])
def test_a_worker_that_dies_after_the_last_commit_leaves_the_job_at_its_end(
    base: compose.Base, tmp_path: Path, end: JobStatus
) -> None:
    ref = phantom_series(tmp_path / "sent")
    files = ref.files if end is JobStatus.DONE else ref.files[:5]
    job_id = base.queue.series_complete(receive_files(base, replace(ref, files=files)))
    assert job_id is not None
    with running(base, Dying):
        wait_until(lambda: job_of(base, job_id).status is end)
    assert stands(base, job_id) == "PENDING"  # the job engine has not heard of the end
    before = job_of(base, job_id)
    with running(base):
        wait_until(lambda: stands(base, job_id) == "SUCCESS")
    after = job_of(base, job_id)
    assert (after.status, after.reason_code, after.attempts) == (end, before.reason_code, 1)
    assert after.finished_at == before.finished_at


def test_a_full_disk_fails_no_job(base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "FULL_DISK_WAIT_S", 0.05)
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    with running(base, partial(Filling, [3], "write")):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert job_of(base, job_id).attempts == 1


def test_a_full_database_fails_no_job_and_counts_no_attempt(base: compose.Base, tmp_path: Path) -> None:
    """The worker leaves and is started again, until there is room."""
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    left = [2]
    for remaining in (1, 0):
        with running(base, partial(FullDatabase, left, "record")) as engine:
            wait_until(engine.must_restart.is_set)
            wait_until(lambda: job_of(base, job_id).attempts == 0)
        assert left == [remaining]
    with running(base, partial(FullDatabase, left, "record")):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert job_of(base, job_id).attempts == 1


def test_a_drain_leaves_the_job_at_the_boundary_of_a_step_and_the_next_start_goes_on(
    base: compose.Base, tmp_path: Path
) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    done: list[str] = []
    reached, go_on = threading.Event(), threading.Event()
    with running(base, partial(Holding, done, reached, go_on)) as engine:
        assert reached.wait(30)
        engine.stopping.set()
        go_on.set()
    assert done == ["read", "check"]
    assert (job_of(base, job_id).status, job_of(base, job_id).attempts) == (JobStatus.RUNNING, 0)
    with base.database.begin() as connection:  # however often it was interrupted in good order
        connection.execute(text("UPDATE workflow_status SET recovery_attempts = 50"))
    with running(base, partial(Holding, done, reached, go_on)):
        wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
    assert done == list(STEPS)  # no step ran twice
    assert job_of(base, job_id).attempts == 1


def test_the_job_engine_gives_up_and_our_table_says_so(base: compose.Base, tmp_path: Path) -> None:
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    mind_jobs(base.database, base.queue)
    assert job_of(base, job_id).status is JobStatus.QUEUED
    with base.database.begin() as connection:
        connection.execute(text("UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'"))
    mind_jobs(base.database, base.queue)
    assert (job_of(base, job_id).status, job_of(base, job_id).reason_code) == (JobStatus.FAILED, "given_up")


def test_an_operators_pause_outlives_a_restart(base: compose.Base) -> None:
    for _ in range(2):
        with running(base):
            queue = DBOS.retrieve_queue("segment")
            assert queue is not None
            paused = queue.worker_concurrency
            queue.set_worker_concurrency(0)
    assert paused == 0


def test_the_database_holds_no_pickle_and_no_patient_even_after_a_bug(base: compose.Base, tmp_path: Path) -> None:
    done, failed = (base.queue.series_complete(receive(base, tmp_path, seed)) for seed in (1, 2))
    assert done is not None
    assert failed is not None
    with running(base, partial(Breaking, [True], "measure", failed)):
        wait_until(lambda: job_of(base, done).status is JobStatus.DONE)
        wait_until(lambda: job_of(base, failed).status is JobStatus.FAILED)
    with closing(sqlite3.connect(base.settings.node.state_dir / "vastus.db")) as connection:
        everything = "\n".join(connection.iterdump())
        kinds = {row[0] for row in connection.execute("SELECT DISTINCT serialization FROM operation_outputs")}
    assert kinds == {"portable_json"}
    assert f'"positionalArgs":["{done}"]' in everything
    assert "ZeroDivisionError" in everything
    assert not re.search("gAS[A-Za-z0-9+/]|gAW[A-Za-z0-9+/]", everything), "a pickle in base64"
    for word in ("Phantom", "SYNTH-"):  # the patient's name and id in the files, and in the words of the bug
        assert word not in everything


def test_an_executor_id_is_held_by_one_process(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\nsys.path.insert(0, sys.argv[1])\nfrom node.executor import executor_lock\n"
        "with executor_lock(pathlib.Path(sys.argv[2]), 'ct-worker'): pass"
    )
    command = [sys.executable, "-c", script, str(Path(jobs.__file__).parents[1]), str(tmp_path)]
    with executor_lock(tmp_path, "ct-worker"):
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1, refused.stderr
    assert "JobsError: executor ct-worker: another process runs jobs under this id" in refused.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_two_nodes_give_the_results_of_the_same_series_different_uids(tmp_path: Path) -> None:
    """So does one node that lost its state, or that has another model under the same name."""
    uids: set[str] = set()
    for name in ("one", "two"):
        with node_base(settings_for(tmp_path / name)) as base:
            job_id = base.queue.series_complete(receive(base, tmp_path / name))
            assert job_id is not None
            assert re.fullmatch("job-[0-9a-f]{32}", job_id)
            uids |= set(uids_of(base, job_id).values())
    assert len(uids) == 12


def test_the_settings_of_a_cloud_are_forgotten(base: compose.Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOS__VMID", "elsewhere")
    monkeypatch.setenv("DBOS__APPVERSION", "other")
    with running(base):
        assert (DBOS.executor_id, DBOS.application_version) == ("test", jobs.VERSION)


@pytest.mark.slow
def test_the_same_on_postgresql(tmp_path: Path) -> None:
    with postgres_server(tmp_path) as url, pacs_on(free_port()) as pacs:
        settings = settings_for(tmp_path, pacs.port, {"database": {"url": url}})
        with node_base(settings) as base:
            job_id = base.queue.series_complete(receive(base, tmp_path))
            assert job_id is not None
            assert base.queue.series_complete(1) is None
            with running(base):
                wait_until(lambda: job_of(base, job_id).status is JobStatus.DONE)
                wait_until(lambda: job_of(base, job_id).deliveries == {DeliveryStatus.ACCEPTED: 3})
            instances = {uid for name, uid in uids_of(base, job_id).items() if name.endswith("_instance")}
        DBOS.destroy(destroy_registry=True)
    assert set(pacs.uids()) == instances
    assert len(pacs.uids()) == 3


def segmented(base: compose.Base, job_id: str) -> list[Path]:
    """Who segmented, as the worker leaves it when the step is at its end."""
    return [path for path in base.spool.work_folder(job_id).glob("made_by.json") if stands(base, job_id) == "PENDING"]


def stands(base: compose.Base, job_id: str) -> str:
    """Where a job stands to the job engine."""
    with base.database.connect() as connection:
        found = connection.execute(text("SELECT status FROM workflow_status WHERE workflow_uuid = :id"), {"id": job_id})
        return str(found.scalar_one())


def results_in(base: compose.Base, job_id: str) -> tuple[queries.ResultRow, ...]:
    with transaction(base.database) as session:
        return queries.results_of(session, job_id)
