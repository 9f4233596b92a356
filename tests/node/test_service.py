"""The service: ready, alive, restarted, drained, and never started with settings that cannot work."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from job_bench import settings_for, wait_until
from peers.ports import free_port
from peers.receiver import listen_to_log
from service_bench import Node, pacs_on
from sqlalchemy.exc import OperationalError
from stub_workshop import phantom_series

from node import compose, lifeline, service
from node.errors import ServiceError, SettingsRefused
from node.notify import Notifier
from node.parts import refuse_strangers
from node.processes import TRY_AGAIN_STATUS, Command, Patience, Supervisor, child_environment

REPO = Path(__file__).resolve().parents[2]
UNIT = REPO / "systemd" / "vastus.service"

CHILD = """
import sys, threading, time
sys.path.insert(0, {repo!r})
from node.lifeline import Lifeline
gone = threading.Event()
line = Lifeline(int(sys.argv[1]), gone.set)
{body}
"""
FAITHFUL = """
line.ready()
while not gone.wait(0.05):
    line.alive()
"""


def child(tmp_path: Path, name: str, body: str) -> Command:
    """The command of a process that does what the body says; `line` is its life-line, `gone` set when it is alone."""
    script = tmp_path / f"{name}.py"
    script.write_text(CHILD.format(repo=str(REPO), body=body))
    return partial(_command, script)


def _command(script: Path, descriptor: int) -> Sequence[str]:
    return [sys.executable, str(script), str(descriptor)]


@contextmanager
def systemd(tmp_path: Path) -> Iterator[tuple[Notifier, list[str]]]:
    """A notification socket, and what was said on it."""
    said: list[str] = []
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(0.1)
        done = threading.Event()

        def hear() -> None:
            while not done.is_set():
                with suppress(TimeoutError):
                    said.append(listening.recv(4096).decode())

        thread = threading.Thread(target=hear)
        thread.start()
        try:
            yield Notifier(str(address), 10.0), said
        finally:
            done.set()
            thread.join()


def run_until(supervisor: Supervisor, happened: object, timeout_s: float = 20.0) -> None:
    """Run a supervisor in this thread until something happened."""
    assert callable(happened)

    def watch() -> None:
        deadline = time.monotonic() + timeout_s
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.02)
        supervisor.stop()

    thread = threading.Thread(target=watch)
    thread.start()
    supervisor.run()
    thread.join()
    assert happened()


def test_ready_is_said_when_the_listener_is_and_then_the_watchdog_is_fed(tmp_path: Path) -> None:
    commands = {"listener": child(tmp_path, "listener", FAITHFUL), "worker": child(tmp_path, "worker", "gone.wait()")}
    with systemd(tmp_path) as (notifier, said):
        run_until(Supervisor(commands, notifier, Patience(drain_s=5.0)), lambda: "WATCHDOG=1" in said[4:])
    ready = said.index("READY=1")
    assert "WATCHDOG=1" in said[ready:]
    assert "STATUS=waiting for: worker" in said
    assert any(line.startswith("STOPPING=1") for line in said[ready:])


def test_the_status_says_when_all_are_ready(tmp_path: Path) -> None:
    commands = {name: child(tmp_path, name, FAITHFUL) for name in ("listener", "worker")}
    with systemd(tmp_path) as (notifier, said):
        supervisor = Supervisor(commands, notifier, Patience(drain_s=5.0))
        run_until(supervisor, lambda: "STATUS=receiving, segmenting, delivering" in said)


def test_a_listener_that_hangs_starves_the_watchdog(tmp_path: Path) -> None:
    hanging = child(tmp_path, "hanging", "line.ready()\ngone.wait()")
    with systemd(tmp_path) as (notifier, said):
        supervisor = Supervisor({"listener": hanging}, notifier, Patience(silent_s=0.5, drain_s=5.0))
        quiet_since: list[float] = []

        def starved() -> bool:
            count = len(said)
            time.sleep(1.0)
            quiet_since.append(count)
            return any(line.startswith("READY=1") for line in said) and len(said) == count

        run_until(supervisor, starved)
    assert said[-1].startswith("STOPPING=1")


def test_a_process_that_crashes_is_started_again(tmp_path: Path) -> None:
    marker = tmp_path / "crashed"
    body = f"import pathlib, os\nif not (m := pathlib.Path({str(marker)!r})).exists():\n    m.touch(); os._exit(9)\n"
    with systemd(tmp_path) as (notifier, said):
        supervisor = Supervisor(
            {"one": child(tmp_path, "one", body + FAITHFUL)}, notifier, Patience(first_wait_s=0.01, drain_s=5.0)
        )
        run_until(supervisor, lambda: any(line.startswith("READY=1") for line in said))
    assert marker.exists()


HANGING = {"at work": "line.ready()\ntime.sleep(60)", "at its start": "time.sleep(60)"}
"""How a process can hang; it hears nothing, not even SIGTERM."""


@pytest.mark.parametrize("how", HANGING)
def test_a_worker_that_hangs_is_killed_and_started_again_alone(tmp_path: Path, how: str) -> None:
    starts, pids = tmp_path / "starts", tmp_path / "pids"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    first = f"if len(open({str(starts)!r}).read()) == 1:\n    " + HANGING[how].replace("\n", "\n    ")
    worker = f"{deaf}open({str(starts)!r}, 'a').write('x')\n{first}\n{FAITHFUL}"
    listener = f"import os\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\n{FAITHFUL}"
    commands = {"listener": child(tmp_path, "listener", listener), "worker": child(tmp_path, "worker", worker)}
    patience = Patience(first_wait_s=0.01, hung_s=2.0, start_s=5.0, drain_s=1.0)
    with systemd(tmp_path) as (notifier, said):

        def is_back() -> bool:
            again = starts.exists() and starts.read_text() == "xx"
            return again and "STATUS=receiving, segmenting, delivering" in said[4:]

        run_until(Supervisor(commands, notifier, patience), is_back)
        assert "READY=1" in said
    assert starts.read_text() == "xx"
    assert len(pids.read_text().split()) == 1


def test_a_process_that_is_leaving_is_given_time(tmp_path: Path) -> None:
    """It finishes a step before it ends and is started again, as with a full database."""
    starts, ends = tmp_path / "starts", tmp_path / "ends"
    body = (
        f"open({str(starts)!r}, 'a').write('x')\nline.ready()\nline.leaving()\ntime.sleep(2.5)\n"
        f"open({str(ends)!r}, 'a').write('x')\nsys.exit({TRY_AGAIN_STATUS})"
    )
    commands = {"listener": child(tmp_path, "listener", FAITHFUL), "worker": child(tmp_path, "worker", body)}
    supervisor = Supervisor(commands, Notifier("", None), Patience(later_s=0.01, hung_s=1.0, drain_s=5.0))
    run_until(supervisor, lambda: starts.exists() and len(starts.read_text()) >= 2)
    assert ends.read_text().startswith("x")


def test_a_worker_that_keeps_crashing_is_tried_ever_more_slowly_and_the_listener_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = listen_to_log(monkeypatch)
    commands = {"listener": child(tmp_path, "listener", FAITHFUL), "worker": child(tmp_path, "worker", "sys.exit(7)")}
    patience = Patience(first_wait_s=0.01, longest_wait_s=0.05, most_quick=3, drain_s=5.0)
    supervisor = Supervisor(commands, Notifier("", None), patience)
    run_until(supervisor, lambda: len(events.named("process.failing")) >= 2)
    waits = [each["again_in_s"] for each in events.named("process.exited") if each["role"] == "worker"]
    assert waits[:4] == [0.02, 0.04, 0.05, 0.05]
    assert [each["role"] for each in events.named("process.started")].count("listener") == 1


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = listen_to_log(monkeypatch)
    commands: dict[str, Command] = {
        "listener": child(tmp_path, "listener", FAITHFUL),
        "worker": lambda _: [str(tmp_path / "absent")],
    }
    supervisor = Supervisor(commands, Notifier("", None), Patience(first_wait_s=0.01, drain_s=5.0))
    run_until(supervisor, lambda: len(events.named("process.exited")) >= 2)
    assert {each["role"] for each in events.named("process.exited")} == {"worker"}


def test_a_listener_that_keeps_crashing_ends_the_service_and_takes_the_others_along(tmp_path: Path) -> None:
    starts, pid = tmp_path / "starts", tmp_path / "pid"
    crashing = child(tmp_path, "crashing", f"open({str(starts)!r}, 'a').write('x')\nsys.exit(7)")
    other = child(tmp_path, "other", f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n{FAITHFUL}")
    patience = Patience(first_wait_s=0.01, most_quick=3, drain_s=5.0)
    supervisor = Supervisor({"worker": other, "listener": crashing}, Notifier("", None), patience)
    with pytest.raises(ServiceError, match="3 times"):
        supervisor.run()
    assert starts.read_text() == "xxx"
    wait_until(lambda: not is_running(int(pid.read_text())))


def test_a_process_that_asks_to_be_started_later_is_no_crash(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    body = f"open({str(starts)!r}, 'a').write('x')\nsys.exit({TRY_AGAIN_STATUS})"
    patience = Patience(later_s=0.01, most_quick=2, drain_s=5.0)
    supervisor = Supervisor({"one": child(tmp_path, "one", body)}, Notifier("", None), patience)
    run_until(supervisor, lambda: starts.exists() and len(starts.read_text()) >= 4)


def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = (
        "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\nline.ready()\ntime.sleep(60)"
    )
    supervisor = Supervisor({"one": child(tmp_path, "one", body)}, Notifier("", None), Patience(drain_s=0.5))
    run_until(supervisor, lambda: pid.exists() and pid.read_text() != "")
    assert not is_running(int(pid.read_text()))


def test_the_processes_do_not_inherit_what_would_change_the_job_engine_or_speak_to_systemd() -> None:
    given = {"PATH": "/bin", "DBOS__VMID": "x", "DBOS_DOMAIN": "y", "NOTIFY_SOCKET": "z", "WATCHDOG_USEC": "1"}
    assert child_environment({**given, "VASTUS__NODE__AE_TITLE": "A"}) == {
        "PATH": "/bin",
        "VASTUS__NODE__AE_TITLE": "A",
    }


def test_the_notifier_reads_the_environment_of_systemd(tmp_path: Path) -> None:
    assert Notifier.of({"NOTIFY_SOCKET": "@vastus", "WATCHDOG_USEC": "30000000"}) == Notifier("@vastus", 30.0)
    assert Notifier.of({}) == Notifier("", None)
    Notifier.of({}).ready()  # says nothing, and fails at nothing


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"listener": {}}, SettingsRefused, "calling_ae_titles"),
        ({"destinations": {}}, SettingsRefused, "destinations"),
        ({"node": {"state_dir": Path("/proc/vastus")}}, ServiceError, "/proc/vastus"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    tmp_path: Path, sections: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        compose.prepare(settings_for(tmp_path, sections=sections))
    assert not (tmp_path / "state").exists()


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    from engine.errors import ModelError

    with pytest.raises(ModelError, match="absent"):
        compose.prepare(settings_for(tmp_path, sections={"engine": {"model": "absent"}}))
    assert not (tmp_path / "state" / "vastus.db").exists()


def test_a_distribution_that_claims_one_of_our_names_is_refused() -> None:
    with pytest.raises(ServiceError, match="stranger"):
        refuse_strangers({"engine": ["vastus", "stranger"], "numpy": ["numpy"]})
    refuse_strangers({"engine": ["vastus"]})


def test_the_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "vastus.service"
    unit.write_text(UNIT.read_text().replace("/opt/vastus/bin/vastus", shutil.which("true") or "/bin/true"))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, free_port())
    yield made
    made.kill_all()


@pytest.mark.slow
def test_the_real_service_is_ready_then_drains_and_leaves_its_port_free(node: Node, tmp_path: Path) -> None:
    with systemd(tmp_path) as (notifier, said), pacs_on(node.pacs_port) as pacs:
        node.start({"NOTIFY_SOCKET": notifier.address})
        wait_until(lambda: any(line.startswith("READY=1") for line in said), 60)
        node.send(phantom_series(node.folder / "sent"))
        wait_until(lambda: bool(node.events("job.started")), 60)
        assert node.stop() == 0  # in the middle of the job
        assert any(line.startswith("STOPPING=1") for line in said)
        assert not node.listens()
        node.start()
        wait_until(lambda: len(pacs.uids()) == 3, 60)
        assert node.stop() == 0
    assert len(node.events("job.done")) == 1
    assert not node.events("process.exited")


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_orphans(node: Node) -> None:
    node.start()
    wait_until(lambda: bool(node.events("service.started")), 60)
    pids = [event["pid"] for event in node.events("process.started")]
    assert len(pids) == 3
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    wait_until(lambda: not any(is_running(int(str(pid))) for pid in pids), 30)
    assert not node.listens()


class Counting:
    """True so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


def test_a_chore_that_finds_no_database_or_lasts_long_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BEAT_S", 0.01)
    monkeypatch.setattr(service, "CHORES_EVERY_S", 0.0)
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    mine, theirs = lifeline.tie()
    tries: list[int] = []

    def chore() -> None:
        tries.append(1)
        raise OperationalError("SELECT 1", {}, Exception("gone")) if len(tries) < 2 else ZeroDivisionError

    try:
        duty = service.Duty("worker", theirs.detach())
        assert duty.stand(lambda: len(tries) < 3, chore) is False
        assert mine.recv(4096).startswith(lifeline.READY)
        tries.clear()
        busy = threading.Event()
        assert duty.stand(Counting(3), busy.wait) is False  # a chore that never ends holds up nothing
        assert mine.recv(64) == lifeline.READY + 3 * lifeline.ALIVE + lifeline.LEAVING
        busy.set()
        assert duty.drain_s == service.DRAIN_S["worker"]
        mine.close()
        assert duty.stand(lambda: True, lambda: None) is True  # left alone
        assert duty.drain_s == service.ALONE_DRAIN_S
    finally:
        mine.close()
        for number, handler in former.items():
            signal.signal(number, handler)
