from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from peers.instances import data_set_bytes, uid, write_ct, write_series
from peers.ports import LOOPBACK, free_port
from peers.receiver import QUICK, Events, Receiver, listen_to_log, receiver
from peers.scu import association, request, store, wrap
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context
from sqlalchemy.exc import OperationalError

from db.queries import InstanceOutcome, ReceivedInstance
from node.errors import NetworkError, SpoolError
from node.intake import InstanceRecorder, sql_recorder
from node.receive import Listener
from node.spool import Spool
from node.standin_pacs import send_series
from node.storage_classes import accepted_contexts, transfer_syntaxes


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Wait until something is so. Returns whether it is."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def echoes(node: Receiver) -> bool:
    """Whether another client is answered."""
    made = request(node.peer)
    if not made.is_established:
        return False
    answer = made.send_c_echo()
    made.release()
    return "Status" in answer and answer.Status == 0


def test_every_transfer_syntax_is_kept_byte_for_byte(tmp_path: Path, events: Events) -> None:
    files = [write_ct(tmp_path, "any", number, syntax) for number, syntax in enumerate(transfer_syntaxes())]
    with receiver(tmp_path) as node:
        statuses = send_series(files, node.peer, "PACS")
        assert {status.code for status in statuses} == {0}
        assert [row.transfer_syntax_uid for row in node.instances()] == transfer_syntaxes()
        for sent, row in zip(files, node.instances(), strict=True):
            assert data_set_bytes(node.spool.path_of(row.path)) == data_set_bytes(sent)
        node.verify()
    assert len(events.named("instance.stored")) == len(files)


def test_every_storage_class_is_accepted(tmp_path: Path, events: Events) -> None:
    classes = [str(context.abstract_syntax) for context in accepted_contexts()]
    with receiver(tmp_path) as node:
        for some in (classes[:128], classes[128:]):
            offered = [
                build_context(sop_class, ExplicitVRLittleEndian) for sop_class in some if sop_class[-4:] != ".1.1"
            ]
            with association(node.peer, contexts=offered) as made:
                assert len(made.accepted_contexts) == len(offered)


def test_objects_that_are_no_ct_are_stored(tmp_path: Path, events: Events) -> None:
    picture = write_ct(tmp_path, "picture", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    retired = write_ct(tmp_path, "nuclear", 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.5", Modality="NM")
    with receiver(tmp_path) as node:
        assert [status.code for status in send_series([picture, retired], node.peer, "PACS")] == [0, 0]
        assert [row.modality for row in node.series()] == ["OT", "NM"]
        node.verify()


def test_the_same_bytes_again_change_nothing_and_other_bytes_are_kept_too(tmp_path: Path, events: Events) -> None:
    path = write_ct(tmp_path, "leg", 1)
    with receiver(tmp_path) as node:
        send_series([path, path], node.peer, "PACS")
        assert len(node.files()) == 1
        assert len(events.named("instance.duplicate")) == 1
        write_ct(tmp_path, "leg", 1, ImageComments="corrected")
        assert send_series([path], node.peer, "PACS")[0].code == 0
        assert len(node.files()) == 2
        assert len(events.named("instance.conflict")) == 1
        assert {told["correlation_id"] for name, told in events.told if name.startswith("instance.")} == {
            node.series()[0].correlation_id
        }
        node.verify()


def test_titles_that_do_not_fit_are_rejected_with_words(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, calling_ae_titles=("PACS", "CT1")) as node:
        assert request(node.peer, called_ae="SOMEONE").is_rejected
        assert request(node.peer, calling_ae="STRANGER").is_rejected
        assert echoes(node)
    called, calling = events.named("association.rejected")
    assert (called["code"], called["called_ae"], called["expected_ae"]) == ("1/1/7", "SOMEONE", "VASTUS")
    assert (calling["code"], calling["calling_ae"], calling["address"]) == ("1/1/3", "STRANGER", LOOPBACK)
    assert "listener.calling_ae_titles" in calling["change"]
    assert [told["calling_ae"] for told in events.named("echo.received")] == ["PACS"]


def test_garbage_is_refused_and_the_association_goes_on(tmp_path: Path, events: Events) -> None:
    garbage = wrap(tmp_path / "garbage", uid("leg", 9), b"\x08\x00\x05\x00CS\xff\xff" * 30)
    empty = wrap(tmp_path / "empty", uid("leg", 8), b"\x08\x00\x05\x00CS\x00\x00")
    whole = write_ct(tmp_path, "leg", 1)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-50])
    with receiver(tmp_path) as node:
        with association(node.peer) as made:
            assert [store(made, path).Status for path in (garbage, empty, cut, whole)] == [0xC000, 0xC000, 0xC000, 0]
        assert len(node.quarantined()) == 3
        node.verify()
    assert events.named("association.released")[0]["refused"] == 3


def test_uids_other_than_the_requests_are_refused(tmp_path: Path, events: Events) -> None:
    body = data_set_bytes(write_ct(tmp_path, "leg", 1))
    other = wrap(tmp_path / "instance", "1.2.3.4", body)
    wrong = wrap(tmp_path / "class", uid("leg", 1), body, "1.2.840.10008.5.1.4.1.1.4")
    contexts = [
        build_context(uid_, ExplicitVRLittleEndian)
        for uid_ in ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4")
    ]
    with receiver(tmp_path) as node:
        with association(node.peer, contexts=contexts) as made:
            answers = [store(made, path) for path in (other, wrong)]
        assert [answer.Status for answer in answers] == [0xA900, 0xA900]
        assert "SOP Instance UID" in answers[0].ErrorComment
        assert not node.instances()
        node.verify()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, on the sender's side as on ours
def test_a_uid_that_is_a_path_writes_nothing(tmp_path: Path, events: Events) -> None:
    hostile = "../../../../vastus-evil"
    body = data_set_bytes(write_ct(tmp_path, "leg", 1))
    with receiver(tmp_path) as node:
        with association(node.peer) as made:
            assert store(made, wrap(tmp_path / "hostile", hostile, body)).Status == 0xC000
        assert not node.instances()
        assert not node.files()
        assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    assert hostile not in str(events.told)


def test_success_is_said_after_the_file_is_there(tmp_path: Path, events: Events) -> None:
    waits, goes_on = threading.Event(), threading.Event()
    seen: list[bool] = []

    def record(instance: ReceivedInstance, /) -> InstanceOutcome:
        seen.append((tmp_path / "spool" / instance.path).is_file())
        waits.set()
        goes_on.wait(10)
        return InstanceOutcome(1, "id", True, False, False, False)

    path = write_ct(tmp_path, "leg", 1)
    answers: list[int] = []
    with receiver(tmp_path, record=record) as node:
        sender = threading.Thread(target=lambda: answers.append(send_series([path], node.peer, "PACS")[0].code))
        sender.start()
        assert waits.wait(10)
        assert seen == [True]
        assert not answers
        assert node.listener.open_series() == {uid("leg")}
        goes_on.set()
        sender.join(10)
    assert answers == [0]


def failing(error: Exception) -> InstanceRecorder:
    def record(instance: ReceivedInstance, /) -> InstanceOutcome:
        raise error

    return record


def test_a_lost_database_is_a_reason_to_try_again(tmp_path: Path, events: Events) -> None:
    away = OperationalError("statement", {}, Exception("the server is gone"))
    with receiver(tmp_path, record=failing(away)) as node, association(node.peer) as made:
        answer = store(made, write_ct(tmp_path, "leg", 1))
        assert (answer.Status, answer.ErrorComment) == (0xA700, "Database not available")
        assert made.send_c_echo().Status == 0
        assert not node.leftovers()


def test_a_fault_of_ours_is_answered_and_told(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, record=failing(ZeroDivisionError("a bug"))) as node, association(node.peer) as made:
        assert store(made, write_ct(tmp_path, "leg", 1)).Status == 0x0110
        assert made.send_c_echo().Status == 0
        assert not node.leftovers()
    assert events.named("program.fault")[0]["where"] == "C-STORE"


def test_below_the_soft_limit_associations_are_rejected(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, soft_free_bytes=1 << 60) as node:
        made = request(node.peer)
        assert made.is_rejected
        answer = made.acceptor.primitive
        assert answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1)
        assert until(lambda: node.listener.open_associations == 0)
    assert events.named("association.rejected")[0]["reason"] == "temporary congestion"
    assert events.named("disk.low")


def test_below_the_hard_limit_instances_are_refused(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, hard_free_bytes=1 << 60) as node, association(node.peer) as made:
        answer = store(made, write_ct(tmp_path, "leg", 1))
        assert (answer.Status, answer.ErrorComment) == (0xA700, "Not enough free disk space")
        assert not node.files()


def test_more_associations_than_allowed_are_rejected(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, max_associations=2) as node:
        with association(node.peer), association(node.peer):
            assert request(node.peer).is_rejected
        assert until(lambda: node.listener.open_associations == 0)
        assert echoes(node)
    assert events.named("association.rejected")[0]["code"] == "2/3/2"


def test_the_end_of_an_association_says_what_it_brought(tmp_path: Path, events: Events) -> None:
    files = write_series(tmp_path, "left", 2) + write_series(tmp_path, "right", 1)
    with receiver(tmp_path) as node:
        send_series(files, node.peer, "PACS")
        assert until(lambda: events.named("association.released"))
        assert node.listener.open_series() == frozenset()
    (told,) = events.named("association.released")
    assert (told["stored"], told["series"], told["calling_ae"]) == (3, 2, "PACS")
    assert told["size_bytes"] == sum(row.size_bytes for row in node.instances())
    assert not events.named("association.aborted")


def test_a_sender_that_aborts_keeps_what_was_acknowledged(tmp_path: Path, events: Events) -> None:
    first, second = write_series(tmp_path, "leg", 2)
    with receiver(tmp_path) as node:
        made = request(node.peer)
        assert store(made, first).Status == 0
        assert node.listener.open_series() == {uid("leg")}
        made.abort()
        assert until(lambda: events.named("association.aborted"))
        assert node.listener.open_series() == frozenset()
        assert send_series([second], node.peer, "PACS")[0].code == 0
        assert len(node.instances()) == 2
        node.verify()
    assert len(events.named("association.aborted")) == 1


def test_part_files_of_an_earlier_process_are_swept(tmp_path: Path, events: Events) -> None:
    incoming = tmp_path / "spool" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "0123.part").write_bytes(b"half an image")
    with receiver(tmp_path) as node:
        assert not node.leftovers()
    assert events.named("spool.swept") == [{"files": 1}]


def test_a_second_listener_on_the_same_spool_is_refused_and_touches_nothing(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path) as node:
        part = node.spool.receive(b"an image on its way in")
        second = Listener(replace(QUICK, port=free_port()), Spool(node.spool.root), sql_recorder(node.engine))
        for _ in range(2):
            with pytest.raises(SpoolError, match="another process"):
                second.start()
        assert part.read_bytes() == b"an image on its way in"
        assert not events.named("spool.swept")
        assert echoes(node)
        part.unlink()
    with receiver(tmp_path) as node:
        assert echoes(node)


def test_a_port_that_is_taken_lets_go_of_the_spool(tmp_path: Path, events: Events) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        with pytest.raises(NetworkError), receiver(tmp_path, port=taken.getsockname()[1]):
            pass
        with receiver(tmp_path) as node:
            assert echoes(node)


def test_a_pdu_too_long_is_not_read_and_silence_frees_its_place(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path, max_associations=3, socket_timeout_s=1.0) as node:
        huge = socket.create_connection((LOOPBACK, node.listener.port))
        huge.settimeout(5)
        huge.sendall(struct.pack(">BxI", 1, 0xFFFFFFF0))
        assert huge.recv(16) == b""  # closed at once
        stalled = [socket.create_connection((LOOPBACK, node.listener.port)) for _ in range(3)]
        for line in stalled:
            line.sendall(struct.pack(">BxI", 1, 1000) + bytes(10))
        assert until(lambda: node.listener.open_associations >= 3)
        assert until(lambda: node.listener.open_associations == 0)
        assert echoes(node)
        for line in (huge, *stalled):
            line.close()


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bytes(64)]
)
def test_what_is_no_dicom_does_no_harm(tmp_path: Path, events: Events, noise: bytes) -> None:
    with receiver(tmp_path) as node:
        with socket.create_connection((LOOPBACK, node.listener.port)) as line:
            line.settimeout(5)
            line.sendall(noise)
            line.recv(64)
        assert echoes(node)


def test_draining_finishes_what_is_open_and_takes_nothing_new(tmp_path: Path, events: Events) -> None:
    first, second = write_series(tmp_path, "leg", 2)
    with receiver(tmp_path) as node:
        peer = node.peer
        with association(peer) as made:
            assert store(made, first).Status == 0
            node.listener.stop_accepting()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((peer.host, peer.port))
            assert store(made, second).Status == 0
            assert not node.listener.drain(0.1)
        assert node.listener.drain(5)
        assert len(node.instances()) == 2


def test_a_port_that_is_taken_is_told_with_a_remedy(tmp_path: Path, events: Events) -> None:
    with receiver(tmp_path) as node, pytest.raises(NetworkError, match=r"listener\.port"):
        (tmp_path / "second").mkdir()
        with receiver(tmp_path / "second", port=node.listener.port):
            pass


def test_no_event_tells_of_the_patient(tmp_path: Path, events: Events) -> None:
    files = write_series(tmp_path, "leg", 2)
    with receiver(tmp_path) as node:
        send_series([*files, files[0]], node.peer, "PACS")
    told = str(events.told)
    assert "instance.stored" in told
    assert "Listener" not in told
    assert "LISTENER-1" not in told
