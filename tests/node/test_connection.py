from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import AE
from pynetdicom.association import Association

from node.connection import ConnectionLimits, GuardedSocket, PduTooLong, rejection_of
from node.errors import NetworkError

LIMITS = ConnectionLimits(timeout_s=0.3, max_pdu_bytes=1000)


def pdu(kind: int, length: int, content: bytes | None = None) -> bytes:
    return struct.pack(">BxI", kind, length) + (bytes(length) if content is None else content)


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return peer, accepted


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, GuardedSocket]]:
    peer, accepted = connected()
    guarded = GuardedSocket(accepted, LIMITS)
    with peer, guarded:
        yield peer, guarded


def test_pdus_up_to_the_limit_pass(pair: tuple[socket.socket, GuardedSocket]) -> None:
    peer, guarded = pair
    sent = pdu(1, 10) + pdu(4, 0) + pdu(4, 1000)
    peer.sendall(sent)
    received = b""
    while len(received) < len(sent):
        received += guarded.recv(7)
    assert received == sent


def test_a_pdu_too_long_is_refused_by_its_header(pair: tuple[socket.socket, GuardedSocket]) -> None:
    peer, guarded = pair
    peer.sendall(pdu(4, 20) + pdu(1, 0xFFFFFFFF, b""))
    assert len(guarded.recv(26)) == 26
    with pytest.raises(PduTooLong, match="4294967295"):
        guarded.recv(6)


def test_silence_ends_in_a_timeout(pair: tuple[socket.socket, GuardedSocket]) -> None:
    _, guarded = pair
    with pytest.raises(TimeoutError):
        guarded.recv(6)


def test_a_silent_loss_of_the_peer_is_noticed(pair: tuple[socket.socket, GuardedSocket]) -> None:
    _, guarded = pair
    assert guarded.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert guarded.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert guarded.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 300


@given(
    lengths=st.lists(st.integers(0, 3000), max_size=6),
    pieces=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
)
def test_the_header_is_found_however_the_stream_is_cut(lengths: list[int], pieces: list[int]) -> None:
    limits = ConnectionLimits(timeout_s=1.0, max_pdu_bytes=2000 - (1 << 20))
    stream = b"".join(pdu(4, length) for length in lengths)
    left, right = socket.socketpair()
    with left, _Follower(right, limits) as follower:
        refused = _feed(follower, stream, pieces)
    assert refused == any(length > 2000 for length in lengths)


class _Follower(GuardedSocket):
    """The guard on a pair of sockets that is no TCP connection."""

    def setsockopt(self, *_arguments: object) -> None:
        return


def _feed(follower: GuardedSocket, stream: bytes, pieces: list[int]) -> bool:
    place = turn = 0
    try:
        while place < len(stream):
            step = pieces[turn % len(pieces)]
            follower._follow(stream[place : place + step])
            place, turn = place + step, turn + 1
    except PduTooLong:
        return True
    return False


def test_an_association_that_was_not_rejected_has_no_reason() -> None:
    with pytest.raises(NetworkError, match="not rejected"):
        rejection_of(Association(AE(), "requestor"))
