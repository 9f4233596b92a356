"""A listener in a process of its own, which kills itself at a chosen moment of its third instance.

For test_receive_kill.py: ``python kill_listener.py FOLDER MOMENT``; prints its port. MOMENT is one of `MOMENTS`, or
`never`. Listener, spool and SQLite are the real ones.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from peers.receiver import QUICK, database  # noqa: E402 - the path is set above

from db.queries import InstanceOutcome, ReceivedInstance  # noqa: E402
from node.intake import InstanceRecorder, sql_recorder  # noqa: E402
from node.receive import Listener  # noqa: E402
from node.spool import Kept, Spool  # noqa: E402

MOMENTS = ("writing", "received", "kept", "committed")
"""Before the part file is on the disk, before it has its name, before SQL, and before the answer."""

LAST = 3


class Death:
    """Kills this process when a moment comes for the third time."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self._left = LAST

    def perhaps(self, moment: str) -> None:
        """The moment has come."""
        if moment == self._moment:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class DyingSpool(Spool):
    """A spool in which death waits."""

    def __init__(self, root: Path, death: Death) -> None:
        super().__init__(root)
        self._death = death

    def receive(self, content: bytes) -> Path:
        """As ever, then perhaps death."""
        part = super().receive(content)
        self._death.perhaps("received")
        return part

    def keep(self, part: Path, series_uid: str, sha256: str) -> Kept:
        """As ever, then perhaps death."""
        kept = super().keep(part, series_uid, sha256)
        self._death.perhaps("kept")
        return kept


def dying_recorder(record: InstanceRecorder, death: Death) -> InstanceRecorder:
    """A recorder that commits, then perhaps dies."""

    def recorded(instance: ReceivedInstance, /) -> InstanceOutcome:
        outcome = record(instance)
        death.perhaps("committed")
        return outcome

    return recorded


def die_while_writing(death: Death) -> None:
    """Perhaps die between the bytes of a part file and their way to the disk."""
    fsync = os.fsync

    def dying(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".part":
            death.perhaps("writing")
        fsync(descriptor)

    os.fsync = dying  # type: ignore[assignment]


def main(folder: Path, moment: str) -> None:
    """Listen until killed, or until the standard input ends."""
    death = Death(moment)
    die_while_writing(death)
    with database(folder) as engine:
        record = dying_recorder(sql_recorder(engine), death)
        with Listener(replace(QUICK), DyingSpool(folder / "spool", death), record) as listener:
            print(listener.port, file=sys.__stdout__, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
