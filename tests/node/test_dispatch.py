"""The chain of attempts to deliver: a destination that is down, refuses, or takes only a part."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from dbos import DBOS
from job_bench import delivering, job_of, node_base, receive, settings_for, wait_until
from peers.ports import free_port
from peers.receiver import listen_to_log
from service_bench import pacs_on
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from test_deliver import an_object

from db import queries
from db.models import Delivery
from db.session import transaction
from db.status import DeliveryStatus
from node import compose, dispatch
from node.chores import mind_deliveries
from node.deliver import ResultObject
from node.errors import JobsError

# pynetdicom leaves it to the garbage collector to close a socket that never came to be connected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def base(tmp_path: Path, port: int) -> Iterator[compose.Base]:
    with node_base(settings_for(tmp_path, port)) as made:
        yield made
    DBOS.destroy(destroy_registry=True)


def finished_job(base: compose.Base, tmp_path: Path, destinations: Sequence[str] = ("pacs",)) -> str:
    """A job whose two results are written, recorded and queued for delivery."""
    job_id = base.queue.series_complete(receive(base, tmp_path))
    assert job_id is not None
    folder = base.spool.results_folder(job_id)
    rows = []
    for kind in ("seg", "sr"):
        made = an_object(folder, kind)
        uid, size_bytes = f"1.2.826.{kind == 'sr':d}", made.path.stat().st_size
        rows.append(queries.ResultRow(kind, f"{uid}.1", "1.2", uid, f"results/{kind}.dcm", made.sha256, size_bytes))
    with transaction(base.database) as session:
        queries.record_results(session, job_id, rows)
        queries.plan_deliveries(session, job_id, destinations)
        for destination in destinations:
            base.queue.deliver(session, job_id, destination, 0)
    return job_id


def rows_of(base: compose.Base, job_id: str) -> dict[str, Delivery]:
    with transaction(base.database) as session:
        found = session.scalars(select(Delivery).where(Delivery.job_id == job_id)).all()
    return {row.kind: row for row in found}


def all_are(base: compose.Base, job_id: str, status: DeliveryStatus) -> bool:
    return {row.status for row in rows_of(base, job_id).values()} == {status.value}


def chain_of(base: compose.Base, job_id: str) -> list[tuple[str, str]]:
    """The attempts that the job engine knows of, and where they stand."""
    with Session(base.database) as session:
        found = session.execute(
            text("SELECT workflow_uuid, status FROM workflow_status WHERE name = 'deliver' ORDER BY workflow_uuid")
        )
        return [(row[0].removeprefix(f"deliver-{job_id}-"), row[1]) for row in found]


def test_a_destination_that_comes_back_gets_everything_once(base: compose.Base, tmp_path: Path, port: int) -> None:
    job_id = finished_job(base, tmp_path)
    with delivering(base):
        wait_until(lambda: ("pacs-1", "DELAYED") in chain_of(base, job_id))
        waiting = rows_of(base, job_id)
        assert all(row.status == DeliveryStatus.WAITING.value for row in waiting.values())
        assert all(row.attempts == 1 and row.next_attempt_at is not None for row in waiting.values())
        assert "nobody answers" in str(waiting["seg"].comment)
        with pacs_on(port) as pacs:
            wait_until(lambda: all_are(base, job_id, DeliveryStatus.ACCEPTED))
            wait_until(lambda: all(status == "SUCCESS" for _, status in chain_of(base, job_id)))
    assert len(pacs.uids()) == 2
    names = [name for name, _ in chain_of(base, job_id)]
    assert names == [f"pacs-{number}" for number in range(len(names))]
    assert {row.attempts for row in rows_of(base, job_id).values()} == {len(names)}


def test_a_waiting_delivery_survives_a_restart_and_holds_no_thread(
    base: compose.Base, tmp_path: Path, port: int
) -> None:
    job_id = finished_job(base, tmp_path)
    with delivering(base):
        wait_until(lambda: ("pacs-1", "DELAYED") in chain_of(base, job_id))
        assert not [thread for thread in threading.enumerate() if job_id in thread.name]
    with pacs_on(port) as pacs, delivering(base):
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.ACCEPTED))
    assert len(pacs.uids()) == 2


def test_what_was_accepted_is_not_sent_again(base: compose.Base, tmp_path: Path, port: int) -> None:
    job_id = finished_job(base, tmp_path)
    with pacs_on(port) as pacs:
        pacs.answers = [0x0000, 0xA700]  # no room for the second object
        with delivering(base):
            wait_until(lambda: all_are(base, job_id, DeliveryStatus.ACCEPTED))
    assert len(pacs.uids()) == 3
    assert pacs.uids()[1] == pacs.uids()[2] != pacs.uids()[0]
    assert {kind: row.attempts for kind, row in rows_of(base, job_id).items()} == {"seg": 1, "sr": 2}


def test_a_refusal_ends_the_chain_until_an_operator_acts(base: compose.Base, tmp_path: Path, port: int) -> None:
    job_id = finished_job(base, tmp_path)
    with pacs_on(port, status=0xC001) as pacs, delivering(base):
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.REFUSED))
        wait_until(lambda: chain_of(base, job_id) == [("pacs-0", "SUCCESS")])
        assert {row.dicom_status for row in rows_of(base, job_id).values()} == {0xC001}
        pacs.status = 0x0000
        with pytest.raises(JobsError, match="not failed"):
            base.queue.retry(job_id)
        assert base.queue.resend(job_id) == f"2 results of job {job_id} are sent again to pacs."
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.ACCEPTED))
        for asked, words in ((job_id, "refused anything"), ("job-0", "no such job")):
            with pytest.raises(JobsError, match=words):
                base.queue.resend(asked)
    assert [name for name, _ in chain_of(base, job_id)] == ["pacs-0", "pacs-1"]


def test_a_warning_is_an_acceptance_and_keeps_its_code(base: compose.Base, tmp_path: Path, port: int) -> None:
    job_id = finished_job(base, tmp_path)
    with pacs_on(port, status=0xB000), delivering(base):
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.WARNING))
    assert {(row.dicom_status, row.comment) for row in rows_of(base, job_id).values()} == {
        (0xB000, "Coercion of Data Elements")
    }


def test_a_destination_that_left_the_settings_is_refused(base: compose.Base, tmp_path: Path) -> None:
    job_id = finished_job(base, tmp_path, ("elsewhere",))
    with delivering(base):
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.REFUSED))
    assert {"elsewhere" in str(row.comment) for row in rows_of(base, job_id).values()} == {True}


def test_a_result_that_is_gone_is_refused_and_the_other_one_arrives(
    base: compose.Base, tmp_path: Path, port: int
) -> None:
    job_id = finished_job(base, tmp_path)
    (base.spool.results_folder(job_id) / "seg.dcm").unlink()
    with pacs_on(port) as pacs, delivering(base):
        wait_until(lambda: len(pacs.uids()) == 1)
        wait_until(lambda: rows_of(base, job_id)["seg"].status == DeliveryStatus.REFUSED.value)
    assert rows_of(base, job_id)["sr"].status == DeliveryStatus.ACCEPTED.value


def test_a_name_that_means_nothing_keeps_the_chain_going(tmp_path: Path) -> None:
    nowhere = {"pacs": {"ae_title": "PACS", "host": f"{'a' * 64}.invalid", "port": 104}}
    with node_base(settings_for(tmp_path, sections={"destinations": nowhere})) as base:
        job_id = finished_job(base, tmp_path)
        with delivering(base):
            wait_until(lambda: ("pacs-1", "DELAYED") in chain_of(base, job_id))
        found = rows_of(base, job_id)
        assert {(row.status, row.attempts) for row in found.values()} == {(DeliveryStatus.WAITING.value, 1)}
        assert all("no address is known" in str(row.comment) and row.next_attempt_at for row in found.values())
    DBOS.destroy(destroy_registry=True)


def test_a_fault_nobody_foresaw_is_recorded_and_the_chain_goes_on(
    base: compose.Base, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(objects: Sequence[ResultObject], *_: object) -> None:
        raise ZeroDivisionError("a name of a patient")

    job_id = finished_job(base, tmp_path)
    with monkeypatch.context() as patched, delivering(base):
        patched.setattr(dispatch, "send", faulty)
        wait_until(lambda: ("pacs-1", "DELAYED") in chain_of(base, job_id))
        found = rows_of(base, job_id)
        assert {(row.status, row.comment) for row in found.values()} == {
            (DeliveryStatus.WAITING.value, "ZeroDivisionError: see the log")
        }
    with pacs_on(port) as pacs, delivering(base):
        wait_until(lambda: all_are(base, job_id, DeliveryStatus.ACCEPTED))
    assert len(pacs.uids()) == 2


def test_a_destination_is_not_taken_for_one_whose_name_begins_alike(base: compose.Base, tmp_path: Path) -> None:
    job_id = finished_job(base, tmp_path, ("pacs-2",))
    assert base.queue.on_its_way(job_id, "pacs-2")
    assert not base.queue.on_its_way(job_id, "pacs")
    assert (base.queue.next_attempt(job_id, "pacs-2"), base.queue.next_attempt(job_id, "pacs")) == (1, 0)


def test_a_chain_that_ended_early_is_taken_up_again_and_told_with_its_series(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = finished_job(base, tmp_path)
    with base.database.begin() as connection:
        connection.execute(text("UPDATE workflow_status SET status = 'ERROR' WHERE name = 'deliver'"))
    events = listen_to_log(monkeypatch)
    mind_deliveries(base.database, base.queue)
    (told,) = events.named("delivery.delayed")
    assert told["correlation_id"] == job_of(base, job_id).correlation_id
    assert ("pacs-1", "ENQUEUED") in chain_of(base, job_id)


def test_a_chain_that_is_under_way_is_not_doubled(base: compose.Base, tmp_path: Path) -> None:
    job_id = finished_job(base, tmp_path)
    for _ in range(3):
        mind_deliveries(base.database, base.queue)
    assert chain_of(base, job_id) == [("pacs-0", "ENQUEUED")]
