"""Our own listener for tests: on a free port, with a spool and a SQLite database in a folder of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from db.models import Instance, Series
from db.session import migrate, open_database, transaction
from node import log
from node.events import EVENTS
from node.intake import InstanceRecorder, sql_recorder
from node.receive import Listener, ListenerSettings
from node.spool import Spool
from node.standin_pacs import Peer
from peers.ports import LOOPBACK

AE_TITLE = "VASTUS"
QUICK = ListenerSettings(
    ae_title=AE_TITLE,
    host=LOOPBACK,
    port=0,
    acse_timeout_s=2.0,
    network_timeout_s=5.0,
    socket_timeout_s=2.0,
    soft_free_bytes=1 << 20,
    hard_free_bytes=1 << 16,
)
"""Settings for tests: a free port, short timeouts, little space asked for."""


@dataclass
class Events:
    """What the log was told."""

    told: list[tuple[str, dict[str, Any]]]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The fields of every event of a name."""
        return [fields for told, fields in list(self.told) if told == name]


def listen_to_log(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Keep what the log is told, and see that every name is in the table of events."""
    events = Events([])

    def event(name: str, **fields: Any) -> None:
        assert name in EVENTS
        events.told.append((name, fields))

    monkeypatch.setattr(log, "event", event)
    return events


@dataclass(frozen=True)
class Receiver:
    """A running listener and what is behind it."""

    listener: Listener
    spool: Spool
    engine: Engine

    @property
    def peer(self) -> Peer:
        """Where to send to."""
        return Peer(LOOPBACK, self.listener.port, AE_TITLE)

    def instances(self) -> list[Instance]:
        """The rows of what was received."""
        with transaction(self.engine) as session:
            return list(session.scalars(select(Instance).order_by(Instance.id)))

    def series(self) -> list[Series]:
        """The rows of the series."""
        with transaction(self.engine) as session:
            return list(session.scalars(select(Series).order_by(Series.id)))

    def leftovers(self) -> list[Path]:
        """Part files that remain."""
        return list(self.spool.root.rglob("*.part"))

    def quarantined(self) -> list[Path]:
        """What lies in quarantine."""
        return list(self.spool.quarantined.iterdir())

    def files(self) -> list[Path]:
        """Every file that was kept."""
        return sorted(self.spool.series.rglob("*.dcm"))

    def verify(self) -> None:
        """See that every row has its file, with the bytes that the row says, and every file its row."""
        rows = self.instances()
        for row in rows:
            content = self.spool.path_of(row.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row.sha256
            assert len(content) == row.size_bytes
        assert {self.spool.path_of(row.path) for row in rows} == set(self.files())
        assert not self.leftovers()


@contextmanager
def database(folder: Path) -> Iterator[Engine]:
    """A SQLite database with our tables."""
    engine = open_database(f"sqlite:///{folder / 'vastus.db'}")
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def receiver(
    folder: Path, spool_root: Path | None = None, record: InstanceRecorder | None = None, **changes: Any
) -> Iterator[Receiver]:
    """Run a listener for the length of the block.

    Args:
        folder: where database and spool go.
        spool_root: another place for the spool.
        record: another recorder than the database.
        changes: settings other than those of `QUICK`.
    """
    with database(folder) as engine:
        spool = Spool(spool_root or folder / "spool")
        listener = Listener(replace(QUICK, **changes), spool, record or sql_recorder(engine))
        with listener:
            yield Receiver(listener, spool, engine)
