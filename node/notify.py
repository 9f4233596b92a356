"""Telling systemd how the service fares: the notification protocol of sd_notify(3), without a library."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Notifier:
    """The notification socket of systemd; silent where the service was not started by systemd.

    Attributes:
        address: value of NOTIFY_SOCKET; empty where there is none.
        watchdog_s: systemd restarts the service when it hears nothing for this long; None where no watchdog is set.
    """

    address: str
    watchdog_s: float | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Notifier:
        """The socket and watchdog that systemd named in the environment."""
        microseconds = environ.get("WATCHDOG_USEC", "")
        return cls(environ.get("NOTIFY_SOCKET", ""), int(microseconds) / 1e6 if microseconds.isdigit() else None)

    def ready(self) -> None:
        """The service is up: it receives."""
        self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is draining."""
        self._send("STOPPING=1\nSTATUS=draining")

    def status(self, words: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={words}")

    def _send(self, message: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect(address)
            notify.sendall(message.encode())
