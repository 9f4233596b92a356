"""From the association to the job in SQL: listener, watcher and job queue as `vastus serve` puts them together.

Nothing runs the jobs here; what counts is which jobs are made, and of which files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from job_bench import node_base, settings_for, wait_until
from peers.instances import data_set_bytes, uid, write_ct, write_series
from peers.ports import LOOPBACK, free_port
from peers.scu import association, store

from db import queries
from db.session import transaction
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
def front_of(folder: Path) -> Iterator[Front]:
    """A node without its watcher: nothing is announced."""
    listener = {"port": free_port(), "host": LOOPBACK, "calling_ae_titles": ["SCANNER", "PACS"]}
    limits = {"quiet_period_s": 0.5, "soft_free_mib": 2, "hard_free_mib": 1}
    with node_base(settings_for(folder, sections={"listener": {**listener, **limits}})) as base:
        yield Front(base)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A node that receives and makes jobs."""
    with front_of(tmp_path) as made:
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


def test_the_version_that_came_last_is_taken_even_where_it_came_before(front: Front, tmp_path: Path) -> None:
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
