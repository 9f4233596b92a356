"""A node without its processes: database, spool and a received phantom, for the tests of jobs and deliveries."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from unittest import mock

from pydicom import dcmread
from sqlalchemy.orm import Session
from stub_workshop import STUB, phantom_series, stub_workshop

from config.settings import Settings
from db import queries
from db.models import Job
from db.session import migrate, now, open_database, transaction
from dicom_io.series import SeriesRef
from node import compose
from node.executor import Executor, JobEngine, prepare_database
from node.pipeline import StepRunner

Wrap = Callable[[StepRunner], StepRunner]
PROMPT_S = 0.1


def settings_for(
    folder: Path, destination_port: int = 1, sections: Mapping[str, object] = MappingProxyType({})
) -> Settings:
    """Settings of a node whose state lies in the folder, with one destination on the loopback address."""
    values: dict[str, object] = {
        "node": {"state_dir": folder / "state"},
        "listener": {"calling_ae_titles": ["SCANNER"], "host": "127.0.0.1", "quiet_period_s": 0.5},
        "destinations": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": destination_port}},
        "delivery": {"first_retry_s": 1.0, "longest_retry_s": 2.0, "acse_timeout_s": 2.0},
        "engine": {"model": STUB},
        "series": {"min_slices": 20, "min_coverage_mm": 150.0},
    }
    return Settings.model_validate({**values, **sections})


@contextmanager
def node_base(settings: Settings) -> Iterator[compose.Base]:
    """Database and spool, made ready as `vastus serve` does it, but without a model package."""
    base = compose.base_of(settings)
    base.spool.prepare()
    migrate(base.database)
    prepare_database(settings.database_url)
    try:
        yield base
    finally:
        base.close()


def receive(base: compose.Base, folder: Path, seed: int = 1) -> int:
    """Put a phantom into spool and database as the listener does. Returns the series' id."""
    return receive_files(base, phantom_series(folder / f"sent-{seed}", seed))


def receive_files(base: compose.Base, ref: SeriesRef) -> int:
    """Put the files of a series into spool and database. Returns the series' id."""
    outcome = None
    for file in ref.files:
        content, header = file.read_bytes(), dcmread(file, stop_before_pixels=True)
        sha256 = hashlib.sha256(content).hexdigest()
        kept = base.spool.keep(base.spool.receive(content), ref.series_uid, sha256)
        instance = queries.ReceivedInstance(
            study_uid=ref.study_uid,
            series_uid=ref.series_uid,
            modality=str(header.Modality),
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            transfer_syntax_uid=str(header.file_meta.TransferSyntaxUID),
            calling_ae="SCANNER",
            path=kept.relative,
            sha256=sha256,
            size_bytes=len(content),
            received_at=now(),
        )
        with transaction(base.database) as session:
            outcome = queries.record_instance(session, instance)
    assert outcome is not None
    return outcome.series_id


class PromptClock:
    """The module `time` for the job engine: its waits, which are whole seconds, become short ones."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Wait no longer than `PROMPT_S`."""
        time.sleep(min(seconds, PROMPT_S))


@contextmanager
def promptly() -> Iterator[None]:
    """Let the job engine look at its queues more often, and see at once that nothing runs any more when it ends."""
    clock = PromptClock()
    often, of_engine = mock.patch("node.executor.POLL_S", PROMPT_S), mock.patch("dbos._dbos.time", clock)
    with often, of_engine, mock.patch("dbos._sys_db.time", clock):
        yield


@contextmanager
def launched(executor: Executor, add: Callable[[JobEngine], None]) -> Iterator[JobEngine]:
    """A job engine in this process, with what `add` gives it to do."""
    ledger_engine = open_database(executor.url)
    engine = JobEngine(executor, ledger_engine)
    add(engine)
    with promptly():
        engine.launch()
        try:
            yield engine
        finally:
            engine.drain(20.0)
            ledger_engine.dispose()


@contextmanager
def delivering(base: compose.Base) -> Iterator[JobEngine]:
    """A job engine in this process that only delivers."""
    executor = Executor("sender", ("deliver",), base.settings.database_url, base.database)
    with launched(executor, partial(compose.add_sender, base=base)) as engine:
        yield engine


@contextmanager
def running(base: compose.Base, wrap: Wrap | None = None, name: str = "test") -> Iterator[JobEngine]:
    """A job engine in this process that segments and delivers."""

    def add(engine: JobEngine) -> None:
        compose.add_worker(engine, base, stub_workshop(), wrap)
        compose.add_sender(engine, base)

    executor = Executor(name, ("segment", "deliver"), base.settings.database_url, base.database)
    with launched(executor, add) as engine:
        yield engine


def job_of(base: compose.Base, job_id: str) -> queries.JobSummary:
    """The job as SQL has it."""
    with transaction(base.database) as session:
        found = queries.job_summary(session, job_id)
    assert found is not None
    return found


def uids_of(base: compose.Base, job_id: str) -> dict[str, str]:
    """The UIDs that the job's row fixes for its results."""
    with Session(base.database) as session:
        return dict(session.get_one(Job, job_id).uids)


def wait_until(happened: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for something; fail the test when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"this did not happen within {timeout_s:g} s")
        time.sleep(0.03)
