"""The real service with a stub of the network, which kills itself once at a chosen moment of a chosen step.

For test_kill.py and test_service.py::

    python kill_service.py PLAN serve --settings FILE
    python kill_service.py PLAN listener|worker|sender --settings FILE --lifeline DESCRIPTOR

PLAN is a JSON file with the step, the moment ("before", "after", "committed"), whom to kill ("all", "one"), and the
marker that says that it was done. An empty step kills nothing. Everything but the network and the model package is
what `vastus serve` runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(Path(__file__).parent)]

from config.settings import Settings, load_settings  # noqa: E402 - the path is set above
from node import compose, executor, log, service  # noqa: E402
from node.pipeline import StepReport, StepRunner  # noqa: E402
from node.processes import Patience  # noqa: E402


class Killer:
    """A step runner that kills before a step's work, after it, or after its checkpoint; once, by its marker file."""

    def __init__(self, plan: Path, inner: StepRunner) -> None:
        self._plan = plan
        self._inner = inner

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        def dying() -> StepReport:
            self._perhaps(name, "before")
            report = step()
            self._perhaps(name, "after")
            return report

        report = self._inner(name, dying)
        self._perhaps(name, "committed")
        return report

    def _perhaps(self, name: str, moment: str) -> None:
        chosen = json.loads(self._plan.read_text())
        marker = Path(chosen["marker"])
        if (chosen["step"], chosen["moment"]) != (name, moment) or marker.exists():
            return
        marker.write_text(str(os.getpid()))
        if chosen["whom"] == "all":
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def command(plan: Path, settings_path: Path, role: str, descriptor: int) -> Sequence[str]:
    """The command line of one process: this script again."""
    own = [sys.executable, str(Path(__file__)), str(plan), role]
    return [*own, "--settings", str(settings_path), "--lifeline", str(descriptor)]


def no_package(_settings: Settings) -> None:
    """The stub needs no model package, so the supervisor must not refuse to start without one."""


def run_worker(wrap: compose.Wrap, settings: Settings, descriptor: int) -> int:
    """The worker with the stub; its libraries are not for the other processes."""
    from stub_workshop import stub_workshop

    return service.run_worker(settings, descriptor, stub_workshop(settings.engine.model), wrap)


def main() -> None:
    """Run the supervisor, or one process."""
    plan, role = Path(sys.argv[1]), sys.argv[2]
    executor.POLL_S = 0.1  # the queues are looked at more often: the tests wait for them again and again
    if role == "serve":
        compose.package_of = no_package  # type: ignore[assignment]
        settings_path = Path(sys.argv[4])
        log.configure(process="serve")
        settings = load_settings(settings_path, {})
        patience = Patience(first_wait_s=0.001, longest_wait_s=0.5)
        service.serve(settings, settings_path, partial(command, plan, settings_path), patience)
        return
    wrap = partial(Killer, plan)
    run: dict[str, Callable[[Settings, int], int]] = {
        "listener": service.run_listener,
        "worker": partial(run_worker, wrap),
        "sender": lambda settings, line: service.run_sender(settings, line, wrap),
    }
    service.main(sys.argv[2:], run)


if __name__ == "__main__":
    main()
