"""The listener: a DICOM Storage and Verification SCP on pynetdicom.

It receives and nothing else, and answers the PACS whatever happens to the rest of the node. What is done with an
instance is in `node.intake`; here are associations, and the one guard that leaves no peer without an answer.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import ThreadedAssociationServer

from node import log
from node.associations import Associations, Tally
from node.connection import ConnectionLimits, guard, rejection_of
from node.errors import NetworkError
from node.intake import Answer, Arrival, InstanceRecorder, Intake
from node.spool import SpaceWatch, Spool
from node.status import PROCESSING_FAILURE, SUCCESS, TEMPORARY_CONGESTION
from node.storage_classes import accepted_contexts


@dataclass(frozen=True)
class ListenerSettings:
    """What the listener must be told.

    Attributes:
        ae_title: our AE title; an association that calls another one is rejected.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        calling_ae_titles: AE titles that may call; empty lets every one in.
        max_associations: associations at the same time.
        max_pdu_bytes: longest PDU that we offer to peers.
        acse_timeout_s: longest wait for an association message.
        dimse_timeout_s: longest wait for a DIMSE message.
        network_timeout_s: an association silent for this long is aborted.
        socket_timeout_s: longest wait for one read or write.
        soft_free_bytes: below this free space associations are rejected.
        hard_free_bytes: below this free space instances are refused.
    """

    ae_title: str
    host: str
    port: int
    calling_ae_titles: tuple[str, ...] = ()
    max_associations: int = 16
    max_pdu_bytes: int = 131072
    acse_timeout_s: float = 10.0
    dimse_timeout_s: float = 30.0
    network_timeout_s: float = 60.0
    socket_timeout_s: float = 30.0
    soft_free_bytes: int = 2048 << 20
    hard_free_bytes: int = 512 << 20


class Listener:
    """Receives instances from `start` to `stop`; also a context manager that does both.

    Args:
        settings: who we are and what peers may do.
        spool: where the bytes go.
        record: how instances are remembered.
    """

    def __init__(self, settings: ListenerSettings, spool: Spool, record: InstanceRecorder) -> None:
        self._settings = settings
        self._spool = spool
        self._intake = Intake(spool, record, settings.hard_free_bytes)
        self._limits = ConnectionLimits(settings.socket_timeout_s, settings.max_pdu_bytes)
        self._space = SpaceWatch(spool, settings.soft_free_bytes)
        self._associations = Associations()
        self._entity = _entity(settings)
        self._server: ThreadedAssociationServer | None = None
        self._hold = contextlib.ExitStack()
        self._port = settings.port

    def start(self) -> None:
        """Prepare the spool and hold it, open the port, and return while other threads serve it.

        Raises:
            SpoolError: the spool cannot be used, or another process receives into it.
            NetworkError: the port cannot be listened on. Nothing is held then.
        """
        self._spool.prepare()
        with contextlib.ExitStack() as hold:
            hold.enter_context(self._spool.held())
            swept = self._spool.sweep()
            if swept:
                log.event("spool.swept", files=swept)
            self._open_port()
            self._hold = hold.pop_all()
        log.event("listener.ready", ae_title=self._settings.ae_title, host=self._settings.host, port=self.port)

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the one of the settings before `start`."""
        return self._port

    @property
    def open_associations(self) -> int:
        """How many peers are connected."""
        return len(self._entity.active_associations)

    def open_series(self) -> frozenset[str]:
        """UIDs of the series that an association, open now, has sent into."""
        for tally in self._associations.lost():
            _log_end("association.aborted", tally, reason="the connection was lost")
        return self._associations.open_series()

    def stop_accepting(self) -> None:
        """Close the port; the associations that are open go on."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()

    def drain(self, timeout_s: float) -> bool:
        """Wait until no peer is connected, but at most for a time. Returns whether none is."""
        deadline = time.monotonic() + timeout_s
        while self.open_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.open_associations

    def stop(self) -> None:
        """Close the port, abort the associations that are still open, and let go of the spool."""
        self.stop_accepting()
        self._entity.shutdown()
        self.drain(1.0)
        self._hold.close()

    def __enter__(self) -> Listener:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _open_port(self) -> None:
        _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own account of every PDU; ours is in the log
        address = (self._settings.host, self._settings.port)
        try:
            self._server = self._entity.start_server(address, block=False, evt_handlers=self._handlers())
        except OSError as error:
            raise NetworkError(
                f"port {self._settings.port} on {self._settings.host}",
                f"it cannot be listened on: {error.strerror or error}",
                "End the program that uses it, or set another listener.host or listener.port",
            ) from error
        if self._server is not None:
            self._port = int(self._server.server_address[1])

    def _handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_CONN_OPEN, guard, [self._limits]),
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_RELEASED, self._on_end, ["association.released"]),
            (evt.EVT_ABORTED, self._on_end, ["association.aborted"]),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
        ]

    def _on_request(self, event: evt.Event) -> None:
        """Reject what comes while little space is left; titles and numbers are pynetdicom's to check."""
        if not self._space.room_for(0):
            event.assoc.acse.send_reject(*TEMPORARY_CONGESTION)
            self._on_rejected(event)
            event.assoc.kill()  # waits until the rejection is sent; pynetdicom then closes the connection

    def _on_rejected(self, event: evt.Event) -> None:
        why = rejection_of(event.assoc)
        log.event(
            "association.rejected",
            **_peer(event),
            expected_ae=self._settings.ae_title,
            code=why.codes,
            reason=why.words,
            change=why.change,
        )

    def _on_established(self, event: evt.Event) -> None:
        self._associations.opened(event.assoc, _peer(event))
        log.event("association.opened", **_peer(event))

    def _on_end(self, event: evt.Event, name: str) -> None:
        tally = self._associations.closed(event.assoc)
        if tally is not None:  # pynetdicom may tell of one abort twice
            _log_end(name, tally)

    def _on_echo(self, event: evt.Event) -> int:
        log.event("echo.received", **_peer(event))
        return SUCCESS

    def _on_store(self, event: evt.Event) -> Dataset:
        try:
            request = cast(C_STORE, event.request)
            arrival = Arrival(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                calling_ae=event.assoc.requestor.ae_title,
                content=event.encoded_dataset,
            )
            answer = self._intake.take(arrival, lambda uid: self._associations.sends(event.assoc, uid))
        except Exception as error:  # noqa: BLE001 - the DICOM boundary: a peer must get an answer, and never 0xC211
            log.event("program.fault", error=error, where="C-STORE")
            answer = Answer(PROCESSING_FAILURE, "Internal error; see the log of this node", "refused")
        self._associations.counted(event.assoc, answer.what, answer.size_bytes)
        return _response(answer)


def _entity(settings: ListenerSettings) -> AE:
    entity = AE(ae_title=settings.ae_title)
    entity.supported_contexts = accepted_contexts()
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.calling_ae_titles)
    entity.maximum_associations = settings.max_associations
    entity.maximum_pdu_size = settings.max_pdu_bytes
    entity.acse_timeout = settings.acse_timeout_s
    entity.dimse_timeout = settings.dimse_timeout_s
    entity.network_timeout = settings.network_timeout_s
    return entity


def _response(answer: Answer) -> Dataset:
    response = Dataset()
    response.Status = answer.code
    if answer.comment:
        response.ErrorComment = answer.comment
    return response


def _peer(event: evt.Event) -> dict[str, str | int]:
    """The fields of the log that name the peer."""
    requestor = event.assoc.requestor
    request = requestor.primitive
    return {
        "calling_ae": "" if request is None else request.calling_ae_title or "",
        "called_ae": "" if request is None else request.called_ae_title or "",
        "address": requestor.address,
        "port": requestor.port,
    }


def _log_end(name: str, tally: Tally, **fields: str) -> None:
    log.event(name, **tally.peer, **dict(tally.counts), series=len(tally.series), size_bytes=tally.size_bytes, **fields)
