"""Delivery: result objects to a destination over C-STORE, every answer told the moment it comes.

One attempt is one association. Whatever keeps an object from being accepted becomes an `Answer`, never an exception:
a PACS that is down is an expected thing. When the next attempt is made is not decided here but in `node.dispatch`.
"""

from __future__ import annotations

import hashlib
import queue
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association

from node.connection import hasten, rejection_of
from node.status import StoreOutcome, store_status

DUPLICATE_SOP_INSTANCE = 0x0111
SLOWEST_BYTES_PER_S = 250_000
"""A destination may take this long for an object, beyond the limit for its answer, before it counts as silent."""

_WAITING_PDUS = 32

Context = tuple[str, str]
"""SOP class and transfer syntax."""


@dataclass(frozen=True)
class Destination:
    """Where results go: name in the settings, AE title, host and TCP port."""

    name: str
    ae_title: str
    host: str
    port: int


@dataclass(frozen=True)
class SenderRules:
    """How we call.

    Attributes:
        ae_title: our own AE title.
        acse_timeout_s: longest wait for the connection and for an association message.
        dimse_timeout_s: longest wait for the answer to a C-STORE, once the object is sent.
        network_timeout_s: longest time that sent bytes may stay without acknowledgement.
    """

    ae_title: str
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float


@dataclass(frozen=True)
class ResultObject:
    """One object to send: its kind (its writer's name), its file, and the digest that it was written with."""

    kind: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Answer:
    """What came of one object.

    Attributes:
        kind: of the object.
        outcome: what it means.
        code: the C-STORE status; None where the destination gave none.
        words: the status or the reason in words, with what to do where there is something to do.
    """

    kind: str
    outcome: StoreOutcome
    code: int | None
    words: str


def send(
    objects: Sequence[ResultObject], destination: Destination, rules: SenderRules, heard: Callable[[Answer], None]
) -> None:
    """Send objects over one association; `heard` is told what came of each as soon as it is known.

    Files are sent as they lie on the disk, a piece at a time, in their own transfer syntax. One that is not as it was
    written is refused before anybody is called, and holds up no other one.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True
    needed: dict[str, Context] = {}
    for each in objects:
        damage = _damage_of(each)
        if damage:
            heard(Answer(each.kind, StoreOutcome.REFUSED, None, damage))
        else:
            needed[each.kind] = _context_of(each.path)
    whole = [each for each in objects if each.kind in needed]
    if whole:
        _send_whole(whole, needed, _associate(list(dict.fromkeys(needed.values())), destination, rules), rules, heard)


def retry_delay_s(attempt: int, first_s: float, longest_s: float) -> float:
    """Wait after an attempt, counted from 0: doubling, capped. The exponent has a cap too: 2.0 ** 1024 overflows."""
    return min(first_s * 2.0 ** min(attempt, 30), longest_s)


def _send_whole(
    objects: Sequence[ResultObject],
    needed: Mapping[str, Context],
    association: Association | str,
    rules: SenderRules,
    heard: Callable[[Answer], None],
) -> None:
    if isinstance(association, str):
        for each in objects:
            heard(Answer(each.kind, StoreOutcome.LATER, None, association))
        return
    try:
        _bound_memory(association)
        accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in _accepted(association)
        }
        for each in objects:
            if needed[each.kind] in accepted:
                heard(_store(association, each, rules))
            else:
                heard(_refused_context(each, needed[each.kind]))
    finally:
        if association.is_established:
            association.release()


def _damage_of(each: ResultObject) -> str:
    """Why a file cannot be sent, and what to do; empty where it is as it was written."""
    try:
        with each.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == each.sha256:
                return ""
        reason = "its file was changed since it was written"
    except OSError as error:
        reason = f"its file cannot be read: {error.strerror or error}"
    return f"{reason}. Restore {each.path.name} from a backup, then use vastus jobs --resend with the id of the job"


def _associate(contexts: Sequence[Context], destination: Destination, rules: SenderRules) -> Association | str:
    """An open association, or the reason why there is none."""
    entity = AE(ae_title=rules.ae_title)
    entity.acse_timeout = rules.acse_timeout_s
    entity.connection_timeout = rules.acse_timeout_s
    entity.dimse_timeout = rules.dimse_timeout_s
    entity.network_timeout = rules.network_timeout_s
    why: list[str] = []
    connected: list[bool] = []
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=[build_context(sop_class, syntax) for sop_class, syntax in contexts],
            ae_title=destination.ae_title,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, hasten, [rules.network_timeout_s]),
                (evt.EVT_REJECTED, lambda event: why.append(_rejected(event))),
                (evt.EVT_CONN_OPEN, lambda _: connected.append(True)),
            ],
        )
    except (socket.gaierror, UnicodeError):  # a name that no name service may hold raises the latter
        where = f"destinations.{destination.name}.host in the settings"
        return f"no address is known for {destination.host}. Correct {where}, or see that the name service answers"
    if association.is_established or association.rejected_contexts:
        return association  # one of which every context was rejected is over already, and nothing can be sent on it
    where = f"{destination.host}:{destination.port}"
    if why:
        return why[0]
    if connected:
        return f"{where} took the connection, but did not answer as DICOM asks. See that it is {destination.ae_title}"
    return f"nobody answers at {where}. See that the destination runs and that no firewall is in between"


def _rejected(event: evt.Event) -> str:
    why = rejection_of(event.assoc)
    return f"the association was rejected, {why.codes}: {why.words}. {why.change}"


def _context_of(path: Path) -> Context:
    """SOP class and transfer syntax of a file, from its File Meta Information (PS3.10 7.1)."""
    meta = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _accepted(association: Association) -> list[Any]:
    return list(association.accepted_contexts)


def _store(association: Association, each: ResultObject, rules: SenderRules) -> Answer:
    gone = Answer(each.kind, StoreOutcome.LATER, None, "the association ended before an answer came")
    association.dimse_timeout = rules.dimse_timeout_s + each.path.stat().st_size / SLOWEST_BYTES_PER_S
    try:
        answer = association.send_c_store(each.path)
    except RuntimeError:  # the association is gone already
        return gone
    if "Status" not in answer:
        return gone
    status = store_status(int(answer.Status))
    said = str(answer.get("ErrorComment", ""))
    words = ". ".join(part for part in (status.words, f"It said: {said}" if said else "", status.remedy) if part)
    # A repeat after a crash. No other node and no other job gives these UIDs, for a job's id is random, and a job's
    # results are not written anew once they are on their way: so it is this object that the destination has.
    outcome = StoreOutcome.WARNING if status.code == DUPLICATE_SOP_INSTANCE else status.outcome
    return Answer(each.kind, outcome, status.code, words)


def _refused_context(each: ResultObject, context: Context) -> Answer:
    words = (
        f"no presentation context was accepted for {UID(context[0]).name} in {UID(context[1]).name}. "
        "Allow this kind of object at the receiving system"
    )
    return Answer(each.kind, StoreOutcome.REFUSED, None, words)


class _Bounded(queue.Queue[Any]):
    """The queue between pynetdicom's reader of the file and its sender, with an end.

    pynetdicom itself reads a whole file into this queue, however large, and counts the time limit of the answer from
    then on. This one lets the reader wait while the sender has enough to do; it never waits for a sender that is gone.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, as soon as there is room."""
        while self.qsize() >= _WAITING_PDUS and self._moving():
            time.sleep(0.001)
        super().put(item, block, timeout)

    def _moving(self) -> bool:
        provider = self._association.dul
        return bool(provider.is_alive() and provider.state_machine.current_state == "Sta6")  # PS3.8 9.2.2


def _bound_memory(association: Association) -> None:
    association.dul.to_provider_queue = _Bounded(association)
