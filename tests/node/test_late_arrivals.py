"""From the association to the job in SQL: listener, watcher and job queue as `vastus serve` puts them together.

Nothing runs the jobs here; what counts is which jobs are made, and of which files.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import pytest
from job_bench import node_base, running, settings_for, wait_until
from peers.dcmtk import storescu
from peers.instances import data_set_bytes, uid, write_ct, write_series
from peers.ports import LOOPBACK, free_port
from peers.receiver import listen_to_log
from peers.scu import association, store
from pydicom import dcmread
from service_bench import Pacs, pacs_on
from sqlalchemy import select
from stub_workshop import phantom_series

from db import queries
from db.models import Instance
from db.session import transaction
from db.status import JobStatus
from node import compose
from node.standin_pacs import Peer, send_series


@dataclass(frozen=True)
class Front:
    """A node that receives and makes jobs."""

    base: compose.Base

    @property
    def peer(self) -> Peer:
        """Where to send to."""
        return Peer(LOOPBACK, self.base.settings.listener.port, "VASTUS")

    def send(self, *files: Path) -> None:
        """Send files in one association, all of which are acknowledged."""
        assert {status.code for status in send_series(files, self.peer, "SCANNER")} == {0}

    def jobs(self, series: str) -> list[set[bytes]]:
        """The data sets of each job of a series, the first run first."""
        with transaction(self.base.database) as session:
            jobs = queries.jobs_of_series(session, uid(series))
            assert [job.run for job in jobs] == list(range(len(jobs)))
            files = [queries.job_files(session, job.job_id) for job in jobs]
        spool = self.base.spool
        return [{data_set_bytes(spool.path_of(path)) for path in each} for each in files]

    def waiting(self) -> tuple[queries.OpenSeries, ...]:
        """The series that wait for a job."""
        with transaction(self.base.database) as session:
            return queries.open_series(session)


@contextmanager
def front_of(folder: Path, changed_instance: str = "keep", destination_port: int = 1) -> Iterator[Front]:
    """A node without its watcher: nothing is announced."""
    listener = {"port": free_port(), "host": LOOPBACK, "calling_ae_titles": ["SCANNER", "PACS"]}
    limits = {"quiet_period_s": 0.5, "soft_free_mib": 2, "hard_free_mib": 1}
    rules = {"min_slices": 20, "min_coverage_mm": 150.0, "changed_instance": changed_instance}
    sections = {"listener": {**listener, **limits}, "series": rules}
    with node_base(settings_for(folder, destination_port, sections)) as base:
        yield Front(base)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A node that receives and makes jobs."""
    with front_of(tmp_path) as made:
        listener, watcher = compose.listener_of(made.base)
        with listener, watcher:
            yield made


@pytest.fixture
def rerunning_front(tmp_path: Path) -> Iterator[Front]:
    """The same, but a changed instance starts another run."""
    with front_of(tmp_path, "rerun") as made:
        listener, watcher = compose.listener_of(made.base)
        with listener, watcher:
            yield made


@pytest.fixture
def slow_front(tmp_path: Path) -> Iterator[Front]:
    """A node that receives, and whose watcher has not looked yet."""
    with front_of(tmp_path) as made:
        listener, _ = compose.listener_of(made.base)
        with listener:
            yield made


def contents(*files: Path) -> set[bytes]:
    return {data_set_bytes(path) for path in files}


def test_a_late_instance_makes_a_second_run_of_all_files_and_a_duplicate_none(front: Front, tmp_path: Path) -> None:
    *first, late = write_series(tmp_path, "leg", 4)
    front.send(*first)
    wait_until(lambda: front.jobs("leg") == [contents(*first)])
    front.send(late)
    wait_until(lambda: front.jobs("leg") == [contents(*first), contents(*first, late)])
    front.send(*first, late)
    assert front.waiting() == ()  # so that no job can follow
    assert len(front.jobs("leg")) == 2


def test_by_rule_the_version_that_came_last_is_taken_even_where_it_came_before(
    rerunning_front: Front, tmp_path: Path
) -> None:
    front = rerunning_front
    path = write_ct(tmp_path, "leg", 1)
    original, first = path.read_bytes(), contents(path)
    front.send(path)
    wait_until(lambda: front.jobs("leg") == [first])
    write_ct(tmp_path, "leg", 1, ImageComments="corrected")
    corrected = contents(path)
    front.send(path)
    wait_until(lambda: front.jobs("leg") == [first, corrected])
    path.write_bytes(original)
    front.send(path)
    wait_until(lambda: front.jobs("leg") == [first, corrected, first])
    front.send(path)
    assert front.waiting() == ()


def test_a_changed_instance_is_kept_and_told_and_starts_no_run(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = listen_to_log(monkeypatch)
    path = write_ct(tmp_path, "leg", 1)
    first = contents(path)
    front.send(path)
    wait_until(lambda: front.jobs("leg") == [first])
    write_ct(tmp_path, "leg", 1, ImageComments="corrected")
    front.send(path)
    assert front.waiting() == ()  # so that no job can follow
    assert front.jobs("leg") == [first]
    kept = {data_set_bytes(file) for file in front.base.spool.series.rglob("*.dcm")}
    assert kept == first | contents(path)
    assert [told["counts"] for told in events.named("instance.conflict")] == [False]
    with transaction(front.base.database) as session:
        assert [job.changed for job in queries.jobs_of_series(session, uid("leg"))] == [1]


@pytest.mark.parametrize("same", [True, False])
def test_two_associations_bring_one_instance_at_the_same_time(slow_front: Front, tmp_path: Path, same: bool) -> None:
    one = write_ct(tmp_path, "leg", 1)
    (tmp_path / "other").mkdir()
    two = one if same else write_ct(tmp_path / "other", "leg", 1, ImageComments="corrected")
    both = Barrier(2)

    def send(path: Path) -> int:
        with association(slow_front.peer) as made:
            both.wait(20)
            return int(store(made, path).Status)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(send, (one, two))) == [0, 0]
    (seen,) = slow_front.waiting()
    assert slow_front.base.queue.series_complete(seen.id, seen=seen.quiet_since) is not None
    (taken,) = slow_front.jobs("leg")
    assert len(taken) == 1 and taken <= contents(one, two)
    with transaction(slow_front.base.database) as session:
        rows = session.scalars(select(Instance)).all()
        assert [len(rows), sum(row.newest for row in rows)] == [1 if same else 2, 1]
    assert len(list(slow_front.base.spool.series.rglob("*.dcm"))) == len(rows)
    assert not list(slow_front.base.spool.incoming.iterdir())


@pytest.fixture
def archive() -> Iterator[Pacs]:
    """Where results go."""
    with pacs_on(free_port()) as pacs:
        yield pacs


@pytest.fixture
def whole_front(tmp_path: Path, archive: Pacs) -> Iterator[Front]:
    """A node that receives, segments by a rule and delivers to the archive."""
    with front_of(tmp_path, destination_port=archive.port) as made:
        listener, watcher = compose.listener_of(made.base)
        with listener, watcher, running(made.base):
            yield made


def test_a_late_slice_makes_results_of_their_own_and_the_first_ones_stay(
    whole_front: Front, archive: Pacs, tmp_path: Path
) -> None:
    front, port = whole_front, whole_front.base.settings.listener.port
    *first, late = phantom_series(tmp_path / "sent").files
    assert storescu(first, port, "VASTUS").returncode == 0
    before = results_when_done(front, 0)
    assert storescu([late], port, "VASTUS").returncode == 0
    after = results_when_done(front, 1)
    assert storescu([*first, late], port, "VASTUS").returncode == 0  # all of it again, the same bytes
    assert front.waiting() == ()
    wait_until(lambda: len(archive.uids()) >= 6)
    assert len(set(archive.uids())) == 6
    with transaction(front.base.database) as session:
        jobs = queries.list_jobs(session, 10)
    assert [(job.run, job.instances, job.changed) for job in reversed(jobs)] == [(0, 35, 0), (1, 36, 0)]
    assert set(before) == set(after) == {"seg", "sr", "sc"}
    for kind, (path, content) in before.items():
        assert path.read_bytes() == content, "the results of the first run stay as they were"
        old, new = dcmread(path, stop_before_pixels=True), dcmread(after[kind][0], stop_before_pixels=True)
        assert old.StudyInstanceUID == new.StudyInstanceUID
        assert old.SOPInstanceUID != new.SOPInstanceUID and old.SeriesInstanceUID != new.SeriesInstanceUID


def results_when_done(front: Front, run: int) -> dict[str, tuple[Path, bytes]]:
    """Wait until that run is done, the newest of all; its results by kind, as file and content."""

    def newest() -> queries.JobSummary | None:
        with transaction(front.base.database) as session:
            jobs = queries.list_jobs(session, 1)
        if not jobs or jobs[0].run != run:
            return None
        assert jobs[0].status not in (JobStatus.PARKED, JobStatus.FAILED), jobs[0].reason
        return jobs[0] if jobs[0].status is JobStatus.DONE else None

    wait_until(lambda: newest() is not None, 120.0)
    job = newest()
    assert job is not None
    with transaction(front.base.database) as session:
        rows = queries.results_of(session, job.job_id)
    folder = front.base.spool.results_folder(job.job_id).parent
    return {row.kind: (folder / row.path, (folder / row.path).read_bytes()) for row in rows}


def test_of_several_series_only_the_one_still_being_sent_waits(front: Front, tmp_path: Path) -> None:
    held, left, right = (write_series(tmp_path, name, 2) for name in ("held", "left", "right"))
    with association(front.peer) as made:
        assert store(made, held[0]).Status == 0
        front.send(*left, *right)
        wait_until(lambda: front.jobs("left") == [contents(*left)])
        wait_until(lambda: front.jobs("right") == [contents(*right)])
        assert front.jobs("held") == []
        assert [series.series_uid for series in front.waiting()] == [uid("held")]
        assert store(made, held[1]).Status == 0
    wait_until(lambda: front.jobs("held") == [contents(*held)])
    assert front.waiting() == ()


def test_no_job_is_made_of_a_series_that_is_no_longer_as_it_was_seen(slow_front: Front, tmp_path: Path) -> None:
    first, second = write_series(tmp_path, "leg", 2)
    slow_front.send(first)
    (seen,) = slow_front.waiting()
    slow_front.send(second)  # while whoever looked makes up their mind
    queue = slow_front.base.queue
    assert queue.series_complete(seen.id, seen=seen.quiet_since) is None
    assert slow_front.jobs("leg") == []
    (seen,) = slow_front.waiting()
    assert queue.series_complete(seen.id, seen=seen.quiet_since) is not None
    assert slow_front.jobs("leg") == [contents(first, second)]
