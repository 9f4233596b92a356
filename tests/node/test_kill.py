"""SIGKILL at every step of a real service: nothing is lost, and nothing gets a second identity.

The service is `vastus serve` with its three processes, real SQLite, the real job engine and real associations; only
the network is a stub (see kill_service.py). It kills itself inside a step, before the work or between the work and the
checkpoint, and is started again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from job_bench import wait_until
from peers.ports import free_port
from service_bench import Node, Pacs, pacs_on
from sqlalchemy import select, text
from stub_workshop import phantom_series

from db.models import Job
from db.session import open_database, transaction
from db.status import JobStatus
from dicom_io.series import SeriesRef
from node.pipeline import STEPS

pytestmark = pytest.mark.slow
MOMENTS = (*STEPS, "send")
DEATHS = (
    (("read", "after"), ("segment", "after")),
    (("write", "after"), ("deliver", "after")),
    (("finish", "committed"),),
    (("send", "after"),),
    (("park", "committed"),),
)
"""When the whole node dies, series by series: where a step has left files, rows or objects and not its checkpoint, and
when the commit of a job's last step is all that there is. The last series lacks a slice. That a worker dies alone
before the work of each step is another test's."""


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with pacs_on(free_port()) as listening:
        yield listening


@pytest.fixture
def node(tmp_path: Path, pacs: Pacs) -> Iterator[Node]:
    made = Node(tmp_path, pacs.port)
    yield made
    made.kill_all()


def jobs_in(node: Node) -> list[Job]:
    database = open_database(node.state_url)
    try:
        with transaction(database) as session:
            return list(session.scalars(select(Job).order_by(Job.created_at)))
    finally:
        database.dispose()


def fixed_instances(jobs: list[Job]) -> set[str]:
    """The SOP Instance UIDs that the rows of the jobs fix."""
    return {uid for job in jobs for name, uid in job.uids.items() if name.endswith("_instance")}


def without_a_slice(ref: SeriesRef) -> SeriesRef:
    """What the rules of selection take, and the worker parks."""
    return replace(ref, files=ref.files[:10] + ref.files[11:])


def await_death(node: Node, whom: str = "all") -> None:
    """Wait until the node has killed itself as planned."""
    assert node.process is not None
    wait_until(lambda: node.killed, 150)
    if whom == "all":
        assert node.process.wait(20) == -signal.SIGKILL


def nothing_is_left(node: Node, jobs: int) -> bool:
    """Whether there are so many jobs, all at their end, and the job engine has nothing more to do."""
    ended = [job for job in jobs_in(node) if job.status in (JobStatus.DONE.value, JobStatus.PARKED.value)]
    database = open_database(node.state_url)
    try:
        with database.connect() as connection:
            open_work = text("SELECT count(*) FROM workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')")
            return len(ended) == jobs and connection.execute(open_work).scalar_one() == 0
    finally:
        database.dispose()


def stopped_after(node: Node, jobs: int) -> list[Job]:
    """The jobs, when all are at their end and the node has stopped in good order."""
    wait_until(partial(nothing_is_left, node, jobs), 150)
    wait_until(node.listens, 150)
    assert node.stop() == 0
    return jobs_in(node)


def assert_each_result_arrived_with_its_own_uid(node: Node, pacs: Pacs, found: list[Job]) -> None:
    assert {job.status for job in found} == {JobStatus.DONE.value}
    # the same object may come twice, which a PACS tells by its UID; an object with another UID must never come
    assert set(pacs.uids()) == fixed_instances(found)
    contents = {uid: content for _, uid, content in pacs.arrived}
    assert all(content == contents[uid] for _, uid, content in pacs.arrived), "a repeat had other bytes"
    assert not list(node.folder.glob("state/spool/jobs/*/work"))


def test_the_whole_node_killed_before_a_checkpoint_loses_nothing_and_sends_nothing_twice(
    node: Node, pacs: Pacs
) -> None:
    """Twice for each of the first series, so that no job is taken for one that ends its worker."""
    node.start()
    for number, deaths in enumerate(DEATHS, start=1):
        ref = phantom_series(node.folder / f"sent-{number}", seed=number)
        for turn, (step, moment) in enumerate(deaths):
            node.plan(step, moment)
            if turn == 0:
                wait_until(node.listens, 150)
                node.send(without_a_slice(ref) if step == "park" else ref)
            else:
                node.start()
            await_death(node)
        node.plan("", "")
        node.start()
        wait_until(partial(nothing_is_left, node, number), 150)
    assert node.stop() == 0
    *done, parked = jobs_in(node)
    assert (parked.status, parked.reason_code) == (JobStatus.PARKED.value, "missing_slices")
    assert_each_result_arrived_with_its_own_uid(node, pacs, done)
    assert len(pacs.uids()) == 3 * len(done), "every answer was in SQL before the node died"


def test_a_killed_worker_is_started_again_and_goes_on(node: Node, pacs: Pacs) -> None:
    node.plan("measure", "after", "one")
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 150)
    node.send(phantom_series(node.folder / "sent"))
    await_death(node, "one")
    assert_each_result_arrived_with_its_own_uid(node, pacs, stopped_after(node, jobs=1))
    assert [event["role"] for event in node.events("process.exited")] == ["worker"]


@pytest.mark.soak
def test_a_process_killed_before_the_work_of_each_step_is_started_again_alone(node: Node, pacs: Pacs) -> None:
    """One series for each step; the worker or the sender dies, and the rest of the node goes on."""
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 150)
    for number, step in enumerate(MOMENTS, start=1):
        node.plan(step, "before", "one")
        node.send(phantom_series(node.folder / f"sent-{number}", seed=number))
        await_death(node, "one")
        wait_until(partial(has_received, pacs, 3 * number), 150)
    assert_each_result_arrived_with_its_own_uid(node, pacs, stopped_after(node, jobs=len(MOMENTS)))
    assert len(pacs.uids()) == 3 * len(MOMENTS), "every answer was in SQL before the process died"
    assert {event["role"] for event in node.events("process.exited")} == {"worker", "sender"}
    assert len(node.events("process.exited")) == len(MOMENTS)


def has_received(pacs: Pacs, objects: int) -> bool:
    return len(pacs.uids()) >= objects
