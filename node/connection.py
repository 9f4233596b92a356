"""A peer's TCP connection, made safe before a byte of it is read.

pynetdicom reads a PDU of whatever length its header announces (up to 4 GiB, before any AE title is checked), waits for
ever for the rest of it, and leaves Nagle's algorithm on. Here are the remedies, without a change to pynetdicom.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass

from pynetdicom.association import Association
from pynetdicom.events import Event

from node.errors import NetworkError
from node.status import Rejection, rejection

_HEADER = struct.Struct(">BxI")  # PDU type, reserved, length of what follows (PS3.8 9.3.1)
_ALLOWANCE_BYTES = 1 << 20  # an A-ASSOCIATE-RQ knows no limit; 128 contexts of 45 transfer syntaxes need 160 kB


class PduTooLong(OSError):  # noqa: N818 - says what the matter is
    """A peer announced a PDU longer than we read; an OSError, because pynetdicom then closes the connection."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may do.

    Attributes:
        timeout_s: longest wait for one read or write.
        max_pdu_bytes: longest PDU that we offer to peers.
    """

    timeout_s: float
    max_pdu_bytes: int

    @property
    def longest_pdu_bytes(self) -> int:
        """Longest PDU that is read at all: what was offered, and an allowance for association requests."""
        return self.max_pdu_bytes + _ALLOWANCE_BYTES


class GuardedSocket(socket.socket):
    """Takes over a connected socket, sets its time limits, and refuses a PDU that is too long by its header.

    Args:
        connection: the socket; it is detached and must not be used again.
        limits: what the connection may do.
    """

    def __init__(self, connection: socket.socket, limits: ConnectionLimits) -> None:
        family, kind, protocol = connection.family, connection.type, connection.proto
        super().__init__(family, kind, protocol, fileno=connection.detach())
        self._longest = limits.longest_pdu_bytes
        self._header = b""
        self._left = 0
        self.settimeout(limits.timeout_s)
        limit_waiting(self, limits.timeout_s)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read, as `socket.recv`.

        Raises:
            PduTooLong: the next PDU is longer than we read.
        """
        data = super().recv(bufsize, flags)
        self._follow(data)
        return data

    def shutdown(self, how: int, /) -> None:
        """Shut down, as `socket.shutdown`, but without complaint where the peer is gone."""
        # pynetdicom leaves a socket open for good when it could not be shut down.
        with contextlib.suppress(OSError):
            super().shutdown(how)

    def _follow(self, data: bytes) -> None:
        """Keep track of where in a PDU the stream is."""
        while data:
            if self._left:
                step = min(self._left, len(data))
                self._left -= step
                data = data[step:]
                continue
            step = _HEADER.size - len(self._header)
            self._header, data = self._header + data[:step], data[step:]
            if len(self._header) == _HEADER.size:
                _, self._left = _HEADER.unpack(self._header)
                self._header = b""
                if self._left > self._longest:
                    raise PduTooLong(errno.EMSGSIZE, f"a PDU of {self._left} bytes; at most {self._longest} are read")


def limit_waiting(connection: socket.socket, timeout_s: float) -> None:
    """Send without delay, and notice within about a minute that a peer is gone although it said nothing.

    Args:
        connection: a TCP socket.
        timeout_s: how long sent bytes may stay without acknowledgement.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def guard(event: Event, limits: ConnectionLimits) -> None:
    """Handler of EVT_CONN_OPEN for a server: put the guard between pynetdicom and the connection."""
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        wrapper.socket = GuardedSocket(wrapper.socket, limits)


def hasten(event: Event, timeout_s: float) -> None:
    """Handler of EVT_CONN_OPEN for a client: send without delay, and notice that the peer is gone."""
    wrapper = event.assoc.dul.socket
    if wrapper is not None and wrapper.socket is not None:
        limit_waiting(wrapper.socket, timeout_s)


def rejection_of(association: Association) -> Rejection:
    """Why an association was rejected, by either side.

    Raises:
        NetworkError: it was not.
    """
    answer = association.acceptor.primitive
    if answer is None or not answer.result:
        raise NetworkError("association", "it was not rejected", "This is a fault of the program: report it")
    return rejection(answer.result, answer.result_source or 0, answer.diagnostic or 0)
