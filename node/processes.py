"""The supervisor: starts the processes of the service, restarts those that crash or hang, and drains them.

The vital ones must run: where one keeps crashing the service ends, and where one hangs the watchdog is no longer fed,
so that systemd starts all afresh. Trouble of another process is that process's alone: it is killed where it hangs, and
started again, ever more slowly, for as long as it takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from node import lifeline, log
from node.errors import ServiceError
from node.notify import Notifier

TRY_AGAIN_STATUS = 75
"""Exit status of a process that only wants to be started again later, as when its disk is full (EX_TEMPFAIL)."""

Command = Callable[[int], Sequence[str]]
"""The command line of a process, made from the descriptor of its life-line."""


@dataclass(frozen=True)
class Patience:
    """When the supervisor restarts, gives up and kills.

    Attributes:
        first_wait_s: wait before the first restart of a process; it doubles while the process keeps crashing.
        longest_wait_s: longest wait before a restart.
        later_s: wait before a process is started that wants to be started later.
        quick_s: a process that lived shorter than this crashed quickly.
        most_quick: this many quick crashes of a vital process in a row end the service, so that systemd starts it
            afresh; of another process they are told as an error.
        silent_s: a vital process that is ready and has said nothing for this long hangs.
        hung_s: the same for another process, which is killed then.
        start_s: a process that is not ready this long after its start hangs.
        drain_s: a process that has not ended this long after it was asked to, or after it said that it leaves, is
            killed.
    """

    first_wait_s: float = 0.5
    longest_wait_s: float = 300.0
    later_s: float = 10.0
    quick_s: float = 30.0
    most_quick: int = 5
    silent_s: float = 20.0
    hung_s: float = 60.0
    start_s: float = 600.0
    drain_s: float = 100.0


@dataclass
class Child:
    """One process of the service, across its restarts."""

    role: str
    command: Command
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    ready: bool = False
    leaving: bool = False
    started_at_s: float = 0.0
    heard_at_s: float = 0.0
    quick_crashes: int = 0
    next_start_s: float = field(default=0.0)

    def start(self) -> None:
        """Start the process on a new life-line.

        Raises:
            OSError: it cannot be started, as for want of memory.
        """
        mine, theirs = lifeline.tie()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    self.command(theirs.fileno()), pass_fds=(theirs.fileno(),), env=child_environment(os.environ)
                )
            except OSError:
                mine.close()
                raise
        self.line, self.ready, self.leaving = mine, False, False
        self.started_at_s = self.heard_at_s = time.monotonic()
        log.event("process.started", role=self.role, pid=self.process.pid)

    def listen(self) -> None:
        """Take in what the process said."""
        if self.line is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            words = self.line.recv(4096)
            if words:
                self.heard_at_s = time.monotonic()
                self.ready = self.ready or lifeline.READY in words
                self.leaving = self.leaving or lifeline.LEAVING in words

    def ended(self) -> int | None:
        """The exit status of the process if it has ended since the last question, else None."""
        status = None if self.process is None else self.process.poll()
        if status is None:
            return None
        self.process, self.ready = None, False
        self._drop_line()
        return status

    def ask_to_stop(self) -> None:
        """Ask the process to finish what it has begun and to end."""
        if self.process is not None:
            self.process.terminate()

    def strike(self) -> None:
        """Kill the process without waiting for its end, and give that end some time before the next strike."""
        if self.process is not None:
            self.process.kill()
            self.heard_at_s = time.monotonic()

    def kill(self) -> None:
        """End the process now, and wait for that."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self._drop_line()

    def _drop_line(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: without what would change the job engine or speak to systemd in our name."""
    dropped = ("DBOS_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_FDS", "LISTEN_PID")
    return {name: value for name, value in environ.items() if not name.startswith(dropped)}


class Supervisor:
    """Runs the processes of the service until it is asked to stop.

    Args:
        commands: the command line of each process, by role; they are started and stopped in this order.
        notifier: where systemd listens.
        patience: when to restart, to give up and to kill.
        vital: the roles without which there is no service.
    """

    def __init__(
        self,
        commands: Mapping[str, Command],
        notifier: Notifier,
        patience: Patience,
        vital: Collection[str] = ("listener",),
    ) -> None:
        self._children = [Child(role, command) for role, command in commands.items()]
        self._vital = [child for child in self._children if child.role in vital]
        self._notifier = notifier
        self._patience = patience
        self._stop = threading.Event()
        self._said_ready = False
        self._said_started = False
        self._status = ""

    def stop(self) -> None:
        """Ask the supervisor to drain; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Start, watch, and drain when asked.

        Raises:
            ServiceError: a vital process crashed so often that a new start of the whole service is the better remedy.
            OSError: a vital process cannot be started.
        """
        with self._signals():
            try:
                self._start()
                while not self._stop.is_set():
                    self._listen()
                    self._mend()
                    self._report()
            finally:
                self._drain()

    def _start(self) -> None:
        for child in self._children:
            self._begin(child)

    def _begin(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            if child in self._vital:
                raise
            child.quick_crashes += 1
            self._try_later(child, time.monotonic(), error=error)

    def _listen(self) -> None:
        lines = [child.line for child in self._children if child.line is not None]
        select.select(lines, [], [], 0.2)
        for child in self._children:
            child.listen()

    def _mend(self) -> None:
        for child in self._children:
            if child not in self._vital and self._hangs(child):
                log.event("process.hung", role=child.role, ready=child.ready)
                child.strike()
            status = child.ended()
            now = time.monotonic()
            if status is not None:
                self._judge(child, status, now)
            if child.process is None and now >= child.next_start_s:
                self._begin(child)

    def _judge(self, child: Child, status: int, now: float) -> None:
        if status == TRY_AGAIN_STATUS:
            log.event("process.exited", role=child.role, exit_status=status, again_in_s=self._patience.later_s)
            child.next_start_s = now + self._patience.later_s
            return
        quick = now - child.started_at_s < self._patience.quick_s
        child.quick_crashes = child.quick_crashes + 1 if quick else 0
        self._try_later(child, now, exit_status=status)
        if child in self._vital and child.quick_crashes >= self._patience.most_quick:
            raise ServiceError(
                f"process {child.role}",
                f"it ended {child.quick_crashes} times in a row within {self._patience.quick_s:g} s, "
                f"last with status {status}",
                "Read the log lines above this one; the service ends so that systemd can start it afresh",
            )

    def _try_later(self, child: Child, now: float, **why: object) -> None:
        wait_s = min(self._patience.first_wait_s * 2 ** min(child.quick_crashes, 30), self._patience.longest_wait_s)
        child.next_start_s = now + wait_s
        facts = {"role": child.role, "quick_crashes": child.quick_crashes, "again_in_s": wait_s, **why}
        log.event("process.exited", **facts)
        if child.quick_crashes >= self._patience.most_quick:
            log.event("process.failing", **facts)

    def _report(self) -> None:
        waiting = [child.role for child in self._children if not child.ready]
        if not self._said_ready and all(child.ready for child in self._vital):
            self._said_ready = True
            self._notifier.ready()
        if not self._said_started and not waiting:
            self._said_started = True
            log.event("service.started")
        status = f"waiting for: {', '.join(waiting)}" if waiting else "receiving, segmenting, delivering"
        if status != self._status:
            self._status = status
            self._notifier.status(status)
        if not any(self._hangs(child) for child in self._vital):
            self._notifier.alive()

    def _hangs(self, child: Child) -> bool:
        """Whether a process that runs has said nothing for too long; one that is to be started again does not hang."""
        limit_s = self._patience.silent_s if child in self._vital else self._patience.hung_s
        if child.leaving:
            limit_s = self._patience.drain_s
        elif not child.ready:
            limit_s = self._patience.start_s
        return child.process is not None and time.monotonic() - child.heard_at_s > limit_s

    def _drain(self) -> None:
        self._notifier.stopping()
        log.event("service.stopping")
        for child in self._children:
            child.ask_to_stop()
        deadline = time.monotonic() + self._patience.drain_s
        while any(child.process is not None for child in self._children) and time.monotonic() < deadline:
            for child in self._children:
                child.ended()
            time.sleep(0.05)
        for child in self._children:
            if child.process is not None:
                log.event("process.exited", role=child.role, killed_after_s=self._patience.drain_s)
            child.kill()
        log.event("service.stopped")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in former:
            signal.signal(number, lambda *_: self.stop())
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
