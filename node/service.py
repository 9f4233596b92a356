"""The service: `vastus serve` and its three processes.

The supervisor starts a listener, a worker and a sender. They meet only in the spool and in SQL, so each may crash or
hang and be started again alone; the listener answers the PACS whatever happens to the others::

    python -m node.service listener|worker|sender --settings FILE --lifeline DESCRIPTOR
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from config.settings import Settings, load_settings
from db.errors import DatabaseUnreachable
from node import compose, log
from node.chores import mind_deliveries, mind_jobs
from node.executor import JobEngine, executor_lock
from node.lifeline import Lifeline
from node.notify import Notifier
from node.processes import TRY_AGAIN_STATUS, Command, Patience, Supervisor

if TYPE_CHECKING:
    from node.stages import Workshop

ROLES = ("listener", "worker", "sender")
BEAT_S = 2.0
CHORES_EVERY_S = 60.0
DRAIN_S: Mapping[str, float] = {"listener": 60.0, "worker": 60.0, "sender": 60.0}
ALONE_DRAIN_S = 3.0
"""Time to finish what has begun when the supervisor is gone: the next one wants the port and the executor ids."""

DEFAULT_PATIENCE = Patience()

CommandOf = Callable[[str, int], Sequence[str]]


def serve(
    settings: Settings,
    settings_path: Path | None,
    command_of: CommandOf | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> None:
    """Run the service until it is asked to stop.

    Args:
        settings: all settings.
        settings_path: the file that the processes read them from again; the environment counts for them too.
        command_of: the command line of a process, from its role and the descriptor of its life-line.
        patience: when to restart, to give up and to kill.

    Raises:
        VastusError: something cannot work and nothing was started, or the listener crashed too often.
    """
    compose.prepare(settings)
    command = command_of or partial(_command, settings_path)
    commands: dict[str, Command] = {role: partial(command, role) for role in ROLES}
    Supervisor(commands, Notifier.of(os.environ), patience).run()


class Duty:
    """One process on duty: until it is asked to stop or left alone, it says that it is alive.

    Args:
        role: `listener`, `worker` or `sender`.
        descriptor: its end of the life-line.
    """

    def __init__(self, role: str, descriptor: int) -> None:
        self.role = role
        self._stop = threading.Event()
        self._alone = False
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on
        self._line = Lifeline(descriptor, self._left_alone)

    @property
    def drain_s(self) -> float:
        """How long what has begun may take to finish."""
        return ALONE_DRAIN_S if self._alone else DRAIN_S[self.role]

    def stand(self, alive: Callable[[], bool], chore: Callable[[], object]) -> bool:
        """Stay until asked to stop; do the chore every minute. Returns false where the process is no longer alive.

        The chore has a thread of its own: a database that answers slowly must not look like a process that hangs.
        """
        self._line.ready()
        over = threading.Event()
        threading.Thread(target=_repeat, args=(chore, over), name="chores", daemon=True).start()
        try:
            while alive():
                self._line.alive()
                if self._stop.wait(BEAT_S):
                    return True
            self._line.leaving()
            return False
        finally:
            over.set()

    def _left_alone(self) -> None:
        self._alone = True
        self._stop.set()


def run_listener(settings: Settings, descriptor: int) -> int:
    """Receive until asked to stop; then let open associations finish. Returns the exit status."""
    duty = Duty("listener", descriptor)
    base = compose.base_of(settings)
    listener, watcher = compose.listener_of(base)
    threads = _started_by(listener.start)
    watcher.start()
    stopped = duty.stand(lambda: watcher.alive and all(thread.is_alive() for thread in threads), _no_chore)
    listener.stop_accepting()
    listener.drain(duty.drain_s)
    listener.stop()
    watcher.stop()
    base.close()
    return 0 if stopped else 1


def run_worker(
    settings: Settings, descriptor: int, workshop: Workshop | None = None, wrap: compose.Wrap | None = None
) -> int:
    """Segment until asked to stop; then finish the running step. Returns the exit status.

    Args:
        settings: all settings.
        descriptor: the life-line.
        workshop: what segments; the model of the settings where none is given.
        wrap: stands between the pipeline and the job engine; for tests.
    """
    duty = Duty("worker", descriptor)
    base = compose.base_of(settings)
    with _engine_of(base, "worker") as engine:
        compose.add_worker(engine, base, workshop or compose.workshop_of(settings), wrap)
        engine.launch()
        log.event("worker.ready", executor=compose.executor_id(settings, "worker"))
        return _run_jobs(duty, engine, partial(mind_jobs, base.database, base.queue))


def run_sender(settings: Settings, descriptor: int, wrap: compose.Wrap | None = None) -> int:
    """Deliver until asked to stop; then finish the running attempt. Returns the exit status."""
    duty = Duty("sender", descriptor)
    base = compose.base_of(settings)
    with _engine_of(base, "sender") as engine:
        compose.add_sender(engine, base, wrap)
        engine.launch()
        return _run_jobs(duty, engine, partial(mind_deliveries, base.database, base.queue))


@contextlib.contextmanager
def _engine_of(base: compose.Base, role: str) -> Iterator[JobEngine]:
    with executor_lock(base.settings.node.state_dir / "locks", compose.executor_id(base.settings, role)):
        yield compose.job_engine_of(base, role)


def _run_jobs(duty: Duty, engine: JobEngine, chore: Callable[[], None]) -> int:
    stopped = duty.stand(lambda: engine.alive() and not engine.must_restart.is_set(), chore)
    engine.drain(duty.drain_s)
    if stopped:
        return 0
    return TRY_AGAIN_STATUS if engine.must_restart.is_set() else 1


def _repeat(chore: Callable[[], object], over: threading.Event) -> None:
    while not over.is_set():
        try:
            chore()
        except SQLAlchemyError as error:  # the chore can wait for the database
            log.event("database.lost", error=error, where="chores")
        except Exception as error:  # noqa: BLE001 - boundary of a chore: it is done again; the jobs must not suffer
            log.event("program.fault", error=error)
        over.wait(CHORES_EVERY_S)


def _no_chore() -> None:
    return


def _started_by(start: Callable[[], None]) -> list[threading.Thread]:
    before = set(threading.enumerate())
    start()
    return [thread for thread in threading.enumerate() if thread not in before]


def _command(settings_path: Path | None, role: str, descriptor: int) -> list[str]:
    named = [] if settings_path is None else ["--settings", str(settings_path)]
    return [sys.executable, "-m", "node.service", role, *named, "--lifeline", str(descriptor)]


RUN: Mapping[str, Callable[[Settings, int], int]] = {
    "listener": run_listener,
    "worker": run_worker,
    "sender": run_sender,
}


def main(arguments: Sequence[str], run: Mapping[str, Callable[[Settings, int], int]] = RUN) -> None:
    """One process of the service. It waits for no thread at its end: a step that outlasts the drain is recovered."""
    parser = argparse.ArgumentParser(prog="python -m node.service", description="One process of vastus serve.")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--settings", type=Path, default=None)
    parser.add_argument("--lifeline", type=int, required=True)
    chosen = parser.parse_args(arguments)
    settings = load_settings(chosen.settings, os.environ)
    log.configure(settings.log.level, settings.log.pretty, process=chosen.role)
    try:
        status = run[chosen.role](settings, chosen.lifeline)
    except (DatabaseUnreachable, OperationalError, InterfaceError) as error:
        log.event("database.lost", error=error, where="start")
        status = TRY_AGAIN_STATUS
    except Exception as error:  # noqa: BLE001 - boundary of a process: threads that are left must not keep it alive
        log.event("program.fault", error=error)
        status = 1
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
