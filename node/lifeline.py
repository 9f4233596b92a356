"""The life-line: one socket between the supervisor and each of its processes.

The process says on it that it is ready, that it is alive, and that it is leaving of its own accord. When the supervisor
dies, however it dies, the socket closes and the process knows; so a supervisor killed with SIGKILL leaves no orphan
behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

READY = b"R"
ALIVE = b"A"
LEAVING = b"L"


def tie() -> tuple[socket.socket, socket.socket]:
    """A life-line: the supervisor's end, which never blocks, and the process's end."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    mine.setblocking(False)
    return mine, theirs


class Lifeline:
    """The process's end of a life-line.

    Args:
        descriptor: the inherited file descriptor.
        when_alone: called once, from another thread, when the supervisor is gone.
    """

    def __init__(self, descriptor: int, when_alone: Callable[[], None]) -> None:
        os.set_inheritable(descriptor, False)  # a grandchild must not hold the line open
        self._socket = socket.socket(fileno=descriptor)
        self._when_alone = when_alone
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def ready(self) -> None:
        """Say that this process does its work."""
        self._say(READY)

    def alive(self) -> None:
        """Say that this process is alive."""
        self._say(ALIVE)

    def leaving(self) -> None:
        """Say that this process finishes what it has begun and ends, silently from now on."""
        self._say(LEAVING)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # a supervisor that is gone is noticed by _listen
            self._socket.send(word, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _listen(self) -> None:
        with self._socket, contextlib.suppress(OSError):
            while self._socket.recv(64):
                pass
        self._when_alone()
