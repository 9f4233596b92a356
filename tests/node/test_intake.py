from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from peers.disks import fill, small_disk
from peers.instances import uid, write_ct
from peers.receiver import Events, database, listen_to_log
from sqlalchemy.exc import OperationalError

from db.queries import InstanceOutcome, ReceivedInstance
from dicom_io.header import read_header
from node.intake import Answer, Arrival, Intake, sql_recorder
from node.spool import Spool
from node.status import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES, SUCCESS


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


@dataclass
class Desk:
    """An intake whose recorder only remembers what it was told, after a look at the disk."""

    spool: Spool
    recorded: list[ReceivedInstance]
    trouble: Exception | None = None
    hard_free_bytes: int = 0

    def record(self, instance: ReceivedInstance, /) -> InstanceOutcome:
        assert self.spool.path_of(instance.path).is_file()
        if self.trouble is not None:
            raise self.trouble
        self.recorded.append(instance)
        return InstanceOutcome(1, "c0ffee", True, False, False, False)

    def take(self, arrival: Arrival, sends: Callable[[str], None] = lambda _: None) -> Answer:
        return Intake(self.spool, self.record, self.hard_free_bytes).take(arrival, sends)

    def parts(self) -> list[Path]:
        return list(self.spool.incoming.iterdir())

    def kept(self) -> list[Path]:
        return list(self.spool.series.rglob("*.dcm"))

    def quarantined(self) -> list[Path]:
        return list(self.spool.quarantined.iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return Desk(spool, [])


@pytest.fixture
def arrival(tmp_path: Path) -> Arrival:
    path = write_ct(tmp_path, "leg", 1)
    header = read_header(path)
    return Arrival(header.sop_class_uid, header.sop_instance_uid, "PACS", path.read_bytes)


def test_an_instance_is_remembered_after_its_file_is_there(desk: Desk, arrival: Arrival, events: Events) -> None:
    assert desk.take(arrival) == Answer(SUCCESS, "", "stored", len(arrival.content()), uid("leg"))
    (row,) = desk.recorded
    assert desk.spool.path_of(row.path).read_bytes() == arrival.content()
    assert (row.series_uid, row.sop_instance_uid, row.calling_ae) == (uid("leg"), uid("leg", 1), "PACS")
    assert not desk.parts()
    (told,) = events.named("instance.stored")
    assert told["correlation_id"] == "c0ffee"
    assert "LISTENER" not in str(events.told).upper()


def test_the_sender_counts_as_sending_before_sql_knows(desk: Desk, arrival: Arrival, events: Events) -> None:
    known: list[tuple[str, int]] = []
    desk.take(arrival, lambda series: known.append((series, len(desk.recorded))))
    assert known == [(uid("leg"), 0)]


@pytest.mark.parametrize("cut", [0, 10, 200, -1, -200])
def test_garbage_and_cut_off_objects_go_to_quarantine(desk: Desk, arrival: Arrival, events: Events, cut: int) -> None:
    content = arrival.content()[:cut]
    answer = desk.take(replace(arrival, content=lambda: content))
    assert answer.code == CANNOT_UNDERSTAND
    assert not desk.recorded
    assert not desk.kept()
    assert not desk.parts()
    (kept,) = desk.quarantined()
    assert kept.read_bytes() == content
    (told,) = events.named("instance.refused")
    assert told["status"] == "C000"
    assert kept.name in told["reason"]


@pytest.mark.parametrize("field", ["sop_class_uid", "sop_instance_uid"])
def test_what_differs_from_its_request_goes_to_quarantine(
    desk: Desk, arrival: Arrival, events: Events, field: str
) -> None:
    answer = desk.take(replace(arrival, **{field: "1.2.3.4"}))  # type: ignore[arg-type]
    assert answer.code == DOES_NOT_MATCH
    assert not desk.recorded
    assert not desk.kept()
    assert len(desk.quarantined()) == 1
    assert events.named("instance.refused")[0]["status"] == "A900"


@pytest.mark.parametrize("hostile", ["../../../tmp/evil", "", "1.2.3/4", "1" * 65, "1.2\n3", "1.2.3 "])
def test_a_request_with_a_uid_that_is_none_is_refused(
    desk: Desk, arrival: Arrival, events: Events, hostile: str
) -> None:
    answer = desk.take(replace(arrival, sop_instance_uid=hostile))
    assert answer.code == CANNOT_UNDERSTAND
    assert not desk.kept()
    assert not desk.quarantined()
    assert events.named("instance.refused")[0]["sop_instance_uid"] == "[not a UID]"


def test_below_the_hard_limit_nothing_is_taken(desk: Desk, arrival: Arrival, events: Events) -> None:
    desk.hard_free_bytes = desk.spool.free_bytes() + (1 << 40)
    answer = desk.take(arrival)
    assert (answer.code, answer.comment) == (OUT_OF_RESOURCES, "Not enough free disk space")
    assert not desk.kept()
    assert events.named("disk.low")


def test_without_a_database_the_sender_may_try_again(desk: Desk, arrival: Arrival, events: Events) -> None:
    desk.trouble = OperationalError("statement", {}, Exception("server closed the connection"))
    answer = desk.take(arrival)
    assert (answer.code, answer.comment) == (OUT_OF_RESOURCES, "Database not available")
    assert not desk.parts()
    assert events.named("database.lost")
    desk.trouble = None
    assert desk.take(arrival).code == SUCCESS
    assert len(desk.kept()) == 1


def test_a_fault_of_ours_leaves_no_part(desk: Desk, arrival: Arrival, events: Events) -> None:
    desk.trouble = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        desk.take(arrival)
    assert not desk.parts()


def test_comments_fit_into_their_element(desk: Desk, arrival: Arrival, events: Events) -> None:
    desk.trouble = OperationalError("statement", {}, Exception("away"))
    wrong = [
        replace(arrival, sop_class_uid="x"),
        replace(arrival, sop_instance_uid="x"),
        replace(arrival, sop_class_uid="1.2"),
        replace(arrival, sop_instance_uid="1.2"),
        replace(arrival, content=lambda: b"garbage"),
        arrival,
    ]
    comments = [desk.take(one).comment for one in wrong]
    assert all(0 < len(comment) <= 64 for comment in comments)  # LO, PS3.5 6.2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_disk(tmp_path / "small") as folder:
        yield folder


def test_a_full_disk_keeps_what_it_promised_and_refuses_the_rest(tmp_path: Path, disk: Path, events: Events) -> None:
    spool = Spool(disk / "spool")
    spool.prepare()
    files = [write_ct(tmp_path, "long", number, ImageComments="x" * 9000) for number in range(1, 41)]
    with database(tmp_path) as engine:
        intake = Intake(spool, sql_recorder(engine), hard_free_bytes=0)
        answers = []
        for path in files:
            header = read_header(path)
            arrival = Arrival(header.sop_class_uid, header.sop_instance_uid, "PACS", path.read_bytes)
            answers.append(intake.take(arrival, lambda _: None))
    codes = [answer.code for answer in answers]
    assert set(codes) == {SUCCESS, OUT_OF_RESOURCES}
    kept = {path.read_bytes() for path in spool.series.rglob("*.dcm")}
    assert kept == {path.read_bytes() for path, code in zip(files, codes, strict=True) if code == SUCCESS}
    assert not list(spool.incoming.iterdir())
    assert all(answer.comment for answer in answers if answer.code != SUCCESS)


def test_a_disk_that_fills_up_without_warning(disk: Path, arrival: Arrival, events: Events) -> None:
    spool = Spool(disk / "spool")
    spool.prepare()
    desk = Desk(spool, [], hard_free_bytes=-(1 << 40))  # the check before the write is out of the way
    filler = fill(disk)
    answer = desk.take(arrival)
    assert (answer.code, answer.comment) == (OUT_OF_RESOURCES, "No space left on the disk")
    assert not desk.parts()
    assert not desk.kept()
    filler.unlink()
    assert desk.take(arrival).code == SUCCESS
