"""A stand-in for a PACS: keeps what it is sent as files, answers C-ECHO, and sends series over a real association.

For `make demo` and the tests; not a part of the service::

    python -m node.standin_pacs --port 11113 --ae-title PACS --folder /tmp/pacs
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

from pydicom import dcmread
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import ThreadedAssociationServer

from dicom_io.files import write_durably
from node.connection import hasten, rejection_of
from node.errors import NetworkError
from node.status import SUCCESS, StoreStatus, store_status
from node.storage_classes import accepted_contexts

_META = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
_TIMEOUT_S = 30.0
_MOST_CONTEXTS = 128  # odd ids from 1 to 255 (PS3.8 9.3.2.2)


@dataclass(frozen=True)
class Peer:
    """Where a DICOM peer is: address, TCP port, AE title."""

    host: str
    port: int
    ae_title: str


class StandinPacs:
    """A Storage and Verification SCP that keeps every instance as a file; a context manager.

    Args:
        port: TCP port on the loopback address; 0 takes a free one.
        ae_title: its AE title; other called titles are rejected, all calling ones let in.
        folder: where the files go, created if it is missing. The same SOP Instance UID replaces its file.
    """

    def __init__(self, port: int, ae_title: str, folder: Path) -> None:
        self._address = ("127.0.0.1", port)
        self._ae_title = ae_title
        self._folder = folder
        self._entity = AE(ae_title=ae_title)
        self._entity.supported_contexts = accepted_contexts()
        self._entity.require_called_aet = True
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Open the port.

        Raises:
            NetworkError: the port is taken.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        _config.LOG_HANDLER_LEVEL = "none"
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, hasten, [_TIMEOUT_S]),
            (evt.EVT_C_STORE, self._keep),
        ]
        try:
            self._server = self._entity.start_server(self._address, block=False, evt_handlers=handlers)
        except OSError as error:
            reason = f"it cannot be listened on: {error.strerror or error}"
            raise NetworkError(f"port {self._address[1]}", reason, "Choose another port") from error

    def stop(self) -> None:
        """Close the port and abort what is open."""
        self._entity.shutdown()
        self._server = None

    @property
    def peer(self) -> Peer:
        """Where to send to."""
        port = self._address[1] if self._server is None else int(self._server.server_address[1])
        return Peer(self._address[0], port, self._ae_title)

    def files(self) -> tuple[Path, ...]:
        """What it holds."""
        return tuple(sorted(self._folder.glob("*.dcm")))

    def __enter__(self) -> StandinPacs:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _keep(self, event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        name = hashlib.sha256(str(request.AffectedSOPInstanceUID).encode()).hexdigest()[:32]
        content = event.encoded_dataset()
        write_durably(self._folder / f"{name}.dcm", lambda file: _write_all(file.write, content))
        return SUCCESS


def send_series(
    files: Sequence[Path], peer: Peer, calling_ae: str, on_progress: Callable[[int, int], None] | None = None
) -> tuple[StoreStatus, ...]:
    """Send files over one association, each in the transfer syntax that it is stored in, byte for byte.

    Args:
        files: DICOM files.
        peer: where to.
        calling_ae: AE title to call with.
        on_progress: told after each file how many are done, and how many there are.

    Returns:
        The status of each file, in order. What the peer did not negotiate has 0x0122, SOP Class not supported.

    Raises:
        NetworkError: the peer cannot be reached, rejects or aborts the association, or does not answer.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes, neither decoded nor encoded again
    association = _associate(files, peer, calling_ae)
    try:
        statuses = []
        for done, path in enumerate(files, start=1):
            statuses.append(_send(association, path, peer))
            if on_progress is not None:
                on_progress(done, len(files))
    finally:
        association.release()
    return tuple(statuses)


def _associate(files: Sequence[Path], peer: Peer, calling_ae: str) -> Association:
    metas = (dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta for path in files)
    pairs = dict.fromkeys(tuple(str(meta[keyword].value) for keyword in _META) for meta in metas)
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    thing = f"association with {peer.ae_title} at {peer.host}:{peer.port}"
    if len(contexts) > _MOST_CONTEXTS:
        raise NetworkError(thing, f"the files need {len(contexts)} presentation contexts", "Send fewer files at once")
    rejected: list[str] = []
    association = AE(ae_title=calling_ae).associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.ae_title,
        evt_handlers=[
            (evt.EVT_CONN_OPEN, hasten, [_TIMEOUT_S]),
            (evt.EVT_REJECTED, lambda event: rejected.append(_why_rejected(event))),
        ],
    )
    if not association.is_established:
        reason = rejected[0] if rejected else "the peer cannot be reached, or takes none of the files' kinds"
        raise NetworkError(thing, reason, "Check address, port and AE titles at both sides")
    return association


def _send(association: Association, path: Path, peer: Peer) -> StoreStatus:
    try:
        answer = association.send_c_store(path)
    except ValueError:  # no accepted presentation context
        return store_status(0x0122)
    except RuntimeError as error:  # the association is gone
        raise NetworkError(f"file {path}", f"{peer.ae_title} ended the association", "Look into its log") from error
    if "Status" not in answer:
        raise NetworkError(f"file {path}", f"{peer.ae_title} did not answer", "Look into its log")
    return store_status(int(answer.Status))


def _why_rejected(event: evt.Event) -> str:
    why = rejection_of(event.assoc)
    return f"it was rejected, {why.codes}: {why.words}. {why.change}"


def _write_all(write: Callable[[bytes], int], content: bytes) -> None:
    write(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a stand-in until it is interrupted or terminated."""
    parser = argparse.ArgumentParser(prog="python -m node.standin_pacs", description="A stand-in for a PACS.")
    parser.add_argument("--port", type=int, required=True, help="TCP port on the loopback address")
    parser.add_argument("--ae-title", required=True, help="its AE title")
    parser.add_argument("--folder", type=Path, required=True, help="where received files go")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with StandinPacs(options.port, options.ae_title, options.folder) as pacs:
        print(f"{pacs.peer.ae_title} listens on {pacs.peer.host}:{pacs.peer.port}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
