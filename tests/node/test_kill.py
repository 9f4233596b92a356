"""SIGKILL at every step of a real service: nothing is lost, and nothing gets a second identity.

The service is `vastus serve` with its three processes, real SQLite, the real job engine and real associations; only
the network is a stub (see kill_service.py). It kills itself inside a step, before the work or between the work and the
checkpoint, and is started again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from job_bench import wait_until
from peers.ports import free_port
from service_bench import Node, Pacs, pacs_on
from sqlalchemy import select
from stub_workshop import phantom_series

from db.models import Job
from db.session import open_database, transaction
from db.status import JobStatus
from node.pipeline import STEPS

pytestmark = pytest.mark.slow
MOMENTS = (*STEPS, "send")


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
    database = open_database(f"sqlite:///{node.folder / 'state' / 'vastus.db'}")
    try:
        with transaction(database) as session:
            return list(session.scalars(select(Job).order_by(Job.created_at)))
    finally:
        database.dispose()


def fixed_instances(jobs: list[Job]) -> set[str]:
    """The SOP Instance UIDs that the rows of the jobs fix."""
    return {uid for job in jobs for name, uid in job.uids.items() if name.endswith("_instance")}


def await_death(node: Node, whom: str = "all") -> None:
    """Wait until the node has killed itself as planned."""
    assert node.process is not None
    wait_until(lambda: node.killed, 60)
    if whom == "all":
        assert node.process.wait(20) == -signal.SIGKILL


def assert_each_result_arrived_with_its_own_uid(node: Node, pacs: Pacs, jobs: int) -> None:
    wait_until(lambda: len(set(pacs.uids())) >= 3 * jobs, 60)
    wait_until(lambda: all(job.status == JobStatus.DONE.value for job in jobs_in(node)), 60)
    assert node.stop() == 0
    found = jobs_in(node)
    assert len(found) == jobs
    # the same object may come twice, which a PACS tells by its UID; an object with another UID must never come
    assert set(pacs.uids()) == fixed_instances(found)
    contents = {uid: content for _, uid, content in pacs.arrived}
    assert all(content == contents[uid] for _, uid, content in pacs.arrived), "a repeat had other bytes"
    assert not list(node.folder.glob("state/spool/jobs/*/work"))


def test_killed_between_work_and_checkpoint_the_series_still_arrives_once(node: Node, pacs: Pacs) -> None:
    node.plan("write", "after")
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 60)
    node.send(phantom_series(node.folder / "sent"))
    await_death(node)
    assert pacs.uids() == []
    node.start()
    assert_each_result_arrived_with_its_own_uid(node, pacs, jobs=1)
    assert len(pacs.uids()) == 3
    assert [event["attempt"] for event in node.events("job.started")] == [1, 2]


def test_killed_after_sending_the_objects_are_not_sent_again(node: Node, pacs: Pacs) -> None:
    """Every answer is in SQL as soon as it comes, so a repeat of the whole step sends nothing."""
    node.plan("send", "after")
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 60)
    node.send(phantom_series(node.folder / "sent"))
    await_death(node)
    assert len(pacs.uids()) == 3
    node.start()
    wait_until(lambda: len(node.events("service.started")) == 2, 60)
    assert_each_result_arrived_with_its_own_uid(node, pacs, jobs=1)
    assert len(pacs.uids()) == 3


def test_a_killed_worker_is_started_again_and_goes_on(node: Node, pacs: Pacs) -> None:
    node.plan("measure", "after", "one")
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 60)
    node.send(phantom_series(node.folder / "sent"))
    await_death(node, "one")
    assert_each_result_arrived_with_its_own_uid(node, pacs, jobs=1)
    assert [event["role"] for event in node.events("process.exited")] == ["worker"]


def test_killed_at_both_moments_of_every_step(node: Node, pacs: Pacs) -> None:
    """One series for each step; the process dies before the step's work, then between the work and the checkpoint."""
    node.most_quick = 2 * len(MOMENTS) + 1
    node.plan("", "")
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 60)
    for number, step in enumerate(MOMENTS, start=1):
        node.plan(step, "before", "one")
        node.send(phantom_series(node.folder / f"sent-{number}", seed=number))
        await_death(node, "one")
        node.plan(step, "after", "one")
        await_death(node, "one")
        wait_until(partial(has_received, pacs, 3 * number), 60)
    assert_each_result_arrived_with_its_own_uid(node, pacs, jobs=len(MOMENTS))
    assert len(pacs.uids()) == 3 * len(MOMENTS), "every answer was in SQL before the process died"
    assert len(node.events("process.exited")) == 2 * len(MOMENTS)


def has_received(pacs: Pacs, objects: int) -> bool:
    return len(pacs.uids()) >= objects
