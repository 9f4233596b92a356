"""Delivery: what is sent, what every answer means, and what happens to a destination that is away."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers.ports import free_port
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid
from pynetdicom import AE, evt
from service_bench import Pacs, pacs_on

from node.deliver import Answer, Destination, ResultObject, SenderRules, retry_delay_s, send
from node.status import StoreOutcome

# pynetdicom leaves it to the garbage collector to close a socket that never came to be connected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

RULES = SenderRules("VASTUS", acse_timeout_s=3.0, dimse_timeout_s=3.0, network_timeout_s=5.0)


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    with pacs_on(free_port()) as listening:
        yield listening


def an_object(folder: Path, kind: str, sop_class: str = SegmentationStorage, pixels: int = 64) -> ResultObject:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid(entropy_srcs=[kind])
    dataset.PatientID = "TEST"
    dataset.add_new("PixelData", "OB", b"\x01\x02" * (pixels // 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{kind}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return ResultObject(kind, path, hashlib.sha256(path.read_bytes()).hexdigest())


def sent_to(port: int, objects: list[ResultObject], rules: SenderRules = RULES) -> list[Answer]:
    answers: list[Answer] = []
    send(objects, Destination("pacs", "PACS", "127.0.0.1", port), rules, answers.append)
    return answers


def test_objects_arrive_byte_for_byte_in_their_order(tmp_path: Path, pacs: Pacs) -> None:
    objects = [an_object(tmp_path, kind) for kind in ("seg", "sr", "sc")]
    answers = sent_to(pacs.port, objects)
    assert [(answer.kind, answer.outcome, answer.code) for answer in answers] == [
        (kind, StoreOutcome.ACCEPTED, 0) for kind in ("seg", "sr", "sc")
    ]
    for each, (sop_class, uid, content) in zip(objects, pacs.arrived, strict=True):
        assert (sop_class, uid) == (SegmentationStorage, dcmread(each.path).SOPInstanceUID)
        assert each.path.read_bytes().endswith(content)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, StoreOutcome.ACCEPTED),
        (0xB000, StoreOutcome.WARNING),
        (0xB007, StoreOutcome.WARNING),
        (0xA700, StoreOutcome.LATER),
        (0xA900, StoreOutcome.REFUSED),
        (0xC123, StoreOutcome.REFUSED),
        (0x0124, StoreOutcome.REFUSED),
        (0x0111, StoreOutcome.WARNING),
    ],
)
def test_the_status_of_every_object_is_read(tmp_path: Path, pacs: Pacs, status: int, outcome: StoreOutcome) -> None:
    pacs.status = status
    answers = sent_to(pacs.port, [an_object(tmp_path, "seg"), an_object(tmp_path, "sr")])
    assert [(answer.outcome, answer.code) for answer in answers] == [(outcome, status)] * 2
    assert all(answer.words for answer in answers)


def test_a_destination_that_is_down_is_tried_later(tmp_path: Path) -> None:
    answers = sent_to(free_port(), [an_object(tmp_path, "seg"), an_object(tmp_path, "sr")])
    assert [(answer.kind, answer.outcome, answer.code) for answer in answers] == [
        ("seg", StoreOutcome.LATER, None),
        ("sr", StoreOutcome.LATER, None),
    ]
    assert "nobody answers" in answers[0].words


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 64}.invalid"])
def test_a_destination_whose_name_means_nothing_is_tried_later(tmp_path: Path, host: str) -> None:
    answers: list[Answer] = []
    send([an_object(tmp_path, "seg")], Destination("archive", "PACS", host, 104), RULES, answers.append)
    assert [(answer.outcome, answer.code) for answer in answers] == [(StoreOutcome.LATER, None)]
    assert f"no address is known for {host}" in answers[0].words
    assert "destinations.archive.host" in answers[0].words


@pytest.mark.parametrize("damage", ["emptied", "changed", "gone", "no file"])
def test_an_object_that_is_not_as_it_was_written_is_refused_and_the_others_arrive(
    tmp_path: Path, pacs: Pacs, damage: str
) -> None:
    objects = [an_object(tmp_path, kind) for kind in ("seg", "sr")]
    path = objects[0].path
    content = path.read_bytes()
    path.unlink()
    if damage in ("emptied", "changed"):
        path.write_bytes(b"" if damage == "emptied" else content[:-1] + b"\xff")
    elif damage == "no file":
        path.mkdir()
    answers = sent_to(pacs.port, objects)
    assert {answer.kind: answer.outcome for answer in answers} == {
        "seg": StoreOutcome.REFUSED,
        "sr": StoreOutcome.ACCEPTED,
    }
    assert "vastus jobs --resend" in next(answer.words for answer in answers if answer.kind == "seg")
    assert len(pacs.uids()) == 1


def test_nobody_is_called_where_nothing_can_be_sent(tmp_path: Path, pacs: Pacs) -> None:
    broken = replace(an_object(tmp_path, "seg"), sha256="0" * 64)
    assert [answer.outcome for answer in sent_to(pacs.port, [broken])] == [StoreOutcome.REFUSED]
    assert pacs.arrived == []


def test_a_rejected_association_says_what_to_change(tmp_path: Path, pacs: Pacs) -> None:
    entity = AE(ae_title="OTHER")
    entity.add_supported_context(SegmentationStorage)
    entity.require_called_aet = True
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False)
    try:
        answers = sent_to(port, [an_object(tmp_path, "seg")])
    finally:
        entity.shutdown()
    assert answers[0].outcome is StoreOutcome.LATER
    assert "called AE title" in answers[0].words


def test_a_kind_of_object_that_is_not_accepted_is_refused_and_the_others_arrive(tmp_path: Path) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(CTImageStorage)
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
    try:
        answers = sent_to(port, [an_object(tmp_path, "seg"), an_object(tmp_path, "sc", CTImageStorage)])
    finally:
        entity.shutdown()
    assert [answer.outcome for answer in answers] == [StoreOutcome.REFUSED, StoreOutcome.ACCEPTED]
    assert "Segmentation Storage" in answers[0].words


def test_a_destination_that_takes_none_of_the_kinds_refuses_them_all(tmp_path: Path) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(CTImageStorage)
    port = free_port()
    entity.start_server(("127.0.0.1", port), block=False)
    try:
        answers = sent_to(port, [an_object(tmp_path, "seg"), an_object(tmp_path, "sr")])
    finally:
        entity.shutdown()
    assert [answer.outcome for answer in answers] == [StoreOutcome.REFUSED] * 2


def test_a_destination_that_never_answers_does_not_hold_the_sender(tmp_path: Path) -> None:
    """A listening socket that accepts the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rules = SenderRules("VASTUS", acse_timeout_s=1.0, dimse_timeout_s=1.0, network_timeout_s=1.0)
        answers = sent_to(silent.getsockname()[1], [an_object(tmp_path, "seg")], rules)
    assert [answer.outcome for answer in answers] == [StoreOutcome.LATER]
    assert "took the connection" in answers[0].words


def test_a_destination_that_goes_away_in_the_middle_is_tried_later(tmp_path: Path) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(SegmentationStorage)
    port = free_port()

    def abort(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, abort)])
    try:
        answers = sent_to(port, [an_object(tmp_path, "seg"), an_object(tmp_path, "sr")])
    finally:
        entity.shutdown()
    assert [(answer.outcome, answer.code) for answer in answers] == [(StoreOutcome.LATER, None)] * 2


def test_a_large_object_is_never_wholly_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pacs: Pacs) -> None:
    from node import deliver

    longest = [0]
    room = deliver._Bounded.put

    def watched(self: deliver._Bounded, item: object, block: bool = True, timeout: float | None = None) -> None:
        room(self, item, block, timeout)
        longest[0] = max(longest[0], self.qsize())

    monkeypatch.setattr(deliver._Bounded, "put", watched)
    large = an_object(tmp_path, "seg", pixels=8 << 20)
    assert sent_to(pacs.port, [large])[0].outcome is StoreOutcome.ACCEPTED
    assert 1 <= longest[0] <= 40  # a PDU holds 16 kB here, so the whole file would be 512
    assert len(pacs.arrived[0][2]) > 8 << 20


@given(st.integers(0, 100_000), st.floats(0.1, 10.0), st.floats(10.0, 900.0))
def test_the_delay_doubles_and_has_a_cap(attempt: int, first_s: float, longest_s: float) -> None:
    delay = retry_delay_s(attempt, first_s, longest_s)
    following = retry_delay_s(attempt + 1, first_s, longest_s)
    assert first_s <= delay <= longest_s
    assert following == pytest.approx(min(2 * delay, longest_s))


def test_the_first_delays_are_those_of_the_manual() -> None:
    delays = [retry_delay_s(attempt, 1.0, 900.0) for attempt in range(12)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    assert all(later >= earlier for earlier, later in pairwise(delays))
