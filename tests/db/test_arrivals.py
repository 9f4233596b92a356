"""What arrives: instances, series, and two callers at once. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier

import pytest
from peers.sample_rows import T0, arrival, make_job, new_job, record
from sqlalchemy import Engine, select

from db.models import Instance, Series
from db.queries import (
    Changed,
    InstanceOutcome,
    ReceivedInstance,
    create_job,
    job_files,
    jobs_of_series,
    list_jobs,
    lock_series,
    open_series,
    open_series_ids,
    record_instance,
    series_quiet_since,
    session_of,
)
from db.session import transaction


def test_a_first_instance_opens_its_series(engine: Engine) -> None:
    outcome = record(engine, arrival(1))
    assert (outcome.stored, outcome.duplicate, outcome.conflict, outcome.reopened) == (True, False, False, False)
    with transaction(engine) as session:
        series = session.scalars(select(Series)).one()
        assert (series.id, series.open, series.run, series.modality) == (outcome.series_id, True, 0, "CT")
        assert series.correlation_id == outcome.correlation_id
        assert open_series_ids(session) == (outcome.series_id,)
        assert series_quiet_since(session, "1.2.3") == T0
        assert series_quiet_since(session, "9.9") is None


def test_the_same_bytes_again_are_a_duplicate(engine: Engine) -> None:
    first = record(engine, arrival(1))
    again = record(engine, arrival(1, seconds=5))
    assert (again.series_id, again.correlation_id) == (first.series_id, first.correlation_id)
    assert (again.stored, again.duplicate, again.conflict) == (False, True, False)
    with transaction(engine) as session:
        assert len(session.scalars(select(Instance)).all()) == 1
        assert series_quiet_since(session, "1.2.3") == T0 + timedelta(seconds=5), "the peer is still sending"


def test_a_duplicate_does_not_reopen_a_series(engine: Engine) -> None:
    make_job(engine)
    outcome = record(engine, arrival(1, seconds=100))
    assert (outcome.duplicate, outcome.reopened) == (True, False)
    with transaction(engine) as session:
        assert open_series_ids(session) == ()
        assert series_quiet_since(session, "1.2.3") == T0


def test_other_bytes_are_kept_beside_the_first(engine: Engine) -> None:
    record(engine, arrival(1, "a"), arrival(2, "a"))
    outcome = record(engine, arrival(1, "b", seconds=1))
    assert (outcome.stored, outcome.duplicate, outcome.conflict, outcome.reopened) == (True, False, True, False)
    with transaction(engine) as session:
        assert create_job(session, outcome.series_id, new_job()) is not None
        assert set(job_files(session, "job-1")) == {"series/2-a.dcm", "series/1-b.dcm"}


@pytest.mark.parametrize("late", [arrival(3, seconds=60), arrival(1, "b", seconds=60)])
def test_a_late_instance_reopens_its_series_with_the_next_run(engine: Engine, late: ReceivedInstance) -> None:
    make_job(engine)
    outcome = record(engine, late, changed=Changed.RERUN)
    assert outcome.reopened and not outcome.set_aside
    assert not record(engine, replace(late, sop_instance_uid="1.2.3.9", sha256="other")).reopened
    with transaction(engine) as session:
        assert lock_series(session, outcome.series_id).run == 1
        assert create_job(session, outcome.series_id, new_job("job-2")) is not None
        first, second = jobs_of_series(session, "1.2.3")
        assert (first.run, first.instances, second.run) == (0, 2, 1)
        assert late.path in job_files(session, "job-2")
        assert late.path not in job_files(session, "job-1"), "a late arrival never changes a job"


def test_an_older_version_that_comes_again_counts_again(engine: Engine) -> None:
    record(engine, arrival(1, "a"), arrival(1, "b", seconds=1), arrival(2, "a", seconds=2))
    outcome = record(engine, arrival(1, "a", seconds=3))
    assert (outcome.stored, outcome.duplicate, outcome.conflict, outcome.reopened) == (False, False, True, False)
    with transaction(engine) as session:
        assert len(session.scalars(select(Instance)).all()) == 3
        assert create_job(session, outcome.series_id, new_job()) is not None
        assert set(job_files(session, "job-1")) == {"series/1-a.dcm", "series/2-a.dcm"}


def test_an_older_version_that_comes_again_reopens_its_series_once(engine: Engine) -> None:
    outcome = record(engine, arrival(1, "a"), arrival(1, "b", seconds=1))
    with transaction(engine) as session:
        assert create_job(session, outcome.series_id, new_job()) is not None
    assert record(engine, arrival(1, "b", seconds=2)).duplicate
    assert record(engine, arrival(1, "a", seconds=3), changed=Changed.RERUN).reopened
    assert record(engine, arrival(1, "a", seconds=4), changed=Changed.RERUN).duplicate
    with transaction(engine) as session:
        assert lock_series(session, outcome.series_id).run == 1
        assert create_job(session, outcome.series_id, new_job("job-2")) is not None
        assert job_files(session, "job-1") == ("series/1-b.dcm",), "a late arrival never changes a job"
        assert job_files(session, "job-2") == ("series/1-a.dcm",)
    assert record(engine, arrival(1, "a", seconds=5), changed=Changed.RERUN).duplicate
    with transaction(engine) as session:
        assert open_series_ids(session) == ()


def test_a_version_that_a_job_was_made_of_goes_on_counting(engine: Engine) -> None:
    make_job(engine)
    outcome = record(engine, arrival(1, "b", seconds=60))
    told = (outcome.stored, outcome.duplicate, outcome.conflict, outcome.reopened, outcome.set_aside)
    assert told == (True, False, True, False, True)
    again = record(engine, arrival(1, "b", seconds=61))
    told = (again.stored, again.duplicate, again.conflict, again.reopened, again.set_aside)
    assert told == (False, True, False, False, False)
    with transaction(engine) as session:
        assert open_series_ids(session) == ()
        assert [job.changed for job in jobs_of_series(session, "1.2.3")] == [1]
        rows = session.execute(select(Instance.path, Instance.newest).order_by(Instance.id)).all()
        assert [tuple(row) for row in rows] == [
            ("series/1-a.dcm", True),
            ("series/2-a.dcm", True),
            ("series/1-b.dcm", False),
        ]


def test_a_late_instance_brings_no_version_that_was_set_aside_into_the_next_job(engine: Engine) -> None:
    make_job(engine)
    late = record(engine, arrival(1, "b", seconds=60), arrival(3, seconds=61), arrival(3, "b", seconds=62))
    assert (late.conflict, late.set_aside) == (True, False), "no job was made of image 3 yet: the last to come counts"
    record(engine, arrival(1, "c", seconds=63))
    with transaction(engine) as session:
        assert create_job(session, late.series_id, new_job("job-2")) is not None
        assert set(job_files(session, "job-2")) == {"series/1-a.dcm", "series/2-a.dcm", "series/3-b.dcm"}
        assert [job.changed for job in jobs_of_series(session, "1.2.3")] == [2, 3]


def test_a_version_that_was_set_aside_counts_when_it_comes_again_under_another_rule(engine: Engine) -> None:
    make_job(engine)
    record(engine, arrival(1, "b", seconds=60))
    outcome = record(engine, arrival(1, "b", seconds=61), changed=Changed.RERUN)
    assert (outcome.stored, outcome.conflict, outcome.reopened, outcome.set_aside) == (False, True, True, False)
    with transaction(engine) as session:
        assert create_job(session, outcome.series_id, new_job("job-2")) is not None
        assert set(job_files(session, "job-2")) == {"series/2-a.dcm", "series/1-b.dcm"}
        assert "series/1-a.dcm" in job_files(session, "job-1")


def test_a_uid_used_by_two_series_counts_in_each(engine: Engine) -> None:
    other = replace(arrival(1, "x", seconds=1, series="9.9"), sop_instance_uid="1.2.3.1")
    first, second = record(engine, arrival(1, "a")), record(engine, other)
    assert second.conflict
    with transaction(engine) as session:
        for number, outcome in enumerate((first, second)):
            assert create_job(session, outcome.series_id, new_job(f"job-{number}")) is not None
        assert job_files(session, "job-0") == ("series/1-a.dcm",)
        assert job_files(session, "job-1") == ("series/1-x.dcm",)


def test_an_older_time_never_shortens_the_wait(engine: Engine) -> None:
    record(engine, arrival(1, seconds=10), arrival(2, seconds=3))
    with transaction(engine) as session:
        assert series_quiet_since(session, "1.2.3") == T0 + timedelta(seconds=10)


def test_open_series_are_told_the_quietest_first(engine: Engine) -> None:
    record(engine, arrival(1, seconds=9, series="1.1"), arrival(1, seconds=4, series="1.2"))
    with transaction(engine) as session:
        assert [series.series_uid for series in open_series(session)] == ["1.2", "1.1"]


def test_over_long_remote_text_is_cut(engine: Engine) -> None:
    record(engine, replace(arrival(1), modality="C\0T" * 10))
    with transaction(engine) as session:
        assert session.scalars(select(Series.modality)).one() == ("CT" * 10)[:16]


def test_what_is_rolled_back_is_gone(engine: Engine) -> None:
    with engine.connect() as connection:
        outer = connection.begin()
        with session_of(connection) as session:
            outcome = record_instance(session, arrival(1))
            create_job(session, outcome.series_id, new_job())
        outer.rollback()
    with transaction(engine) as session:
        assert session.scalars(select(Series)).all() == []
        assert list_jobs(session, 10) == ()


def at_once(engine: Engine, *works: Callable[[Barrier], object]) -> list[object]:
    """Run works in threads, each on its own connection, starting together."""
    barrier = Barrier(len(works))
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(60) for future in [pool.submit(work, barrier) for work in works]]


def test_many_callers_bring_the_same_instance(engine: Engine) -> None:
    def bring(barrier: Barrier) -> InstanceOutcome:
        barrier.wait()
        return record(engine, arrival(1))

    outcomes = [outcome for outcome in at_once(engine, *[bring] * 6) if isinstance(outcome, InstanceOutcome)]
    assert sorted(outcome.stored for outcome in outcomes) == [False] * 5 + [True]
    assert len({outcome.correlation_id for outcome in outcomes}) == 1


def test_many_callers_bring_one_series(engine: Engine) -> None:
    def bringer(number: int) -> Callable[[Barrier], object]:
        def bring(barrier: Barrier) -> object:
            barrier.wait()
            return record(engine, arrival(number))

        return bring

    at_once(engine, *[bringer(number) for number in range(6)])
    with transaction(engine) as session:
        assert len(session.scalars(select(Series)).all()) == 1
        assert len(session.scalars(select(Instance)).all()) == 6


def test_two_callers_make_one_job(engine: Engine) -> None:
    series_id = record(engine, arrival(1)).series_id

    def maker(job_id: str) -> Callable[[Barrier], object]:
        def make(barrier: Barrier) -> object:
            barrier.wait()
            with transaction(engine) as session:
                return create_job(session, series_id, new_job(job_id)) is not None

        return make

    assert sorted(map(bool, at_once(engine, *[maker(f"job-{n}") for n in range(4)]))) == [False, False, False, True]
    with transaction(engine) as session:
        assert len(list_jobs(session, 10)) == 1


def test_an_arrival_beside_the_making_of_a_job_is_never_lost(engine: Engine) -> None:
    series_id = record(engine, arrival(1)).series_id

    def make(barrier: Barrier) -> object:
        barrier.wait()
        with transaction(engine) as session:
            return create_job(session, series_id, new_job())

    def bring(barrier: Barrier) -> object:
        barrier.wait()
        return record(engine, arrival(2))

    at_once(engine, make, bring)
    with transaction(engine) as session:
        taken = "series/2-a.dcm" in job_files(session, "job-1")
        assert taken != (open_series_ids(session) == (series_id,)), "it is in the job, or waits for the next one"
