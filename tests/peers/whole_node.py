"""A whole node with its bundled model, in processes of its own, for tests against real peers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db.session import open_database, transaction
from node.demonstration import DemoFolder as NodeFolder
from node.demonstration import Process, node_process
from node.standin_pacs import Peer
from peers.orthanc import wait_until


@dataclass(frozen=True)
class WholeNode:
    """A running node: its folder, its port."""

    folder: NodeFolder
    port: int

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of one name."""
        lines = self.folder.log.read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["event"] == name]

    @contextmanager
    def sql(self) -> Iterator[Session]:
        """The node's database."""
        engine = open_database(f"sqlite:///{self.folder.state / 'vastus.db'}")
        try:
            with transaction(engine) as session:
                yield session
        finally:
            engine.dispose()


@contextmanager
def whole_node(folder: Path, port: int, peer_ae: str, peer_port: int) -> Iterator[WholeNode]:
    """Run `vastus serve` on a port, with one peer that sends and receives."""
    place = NodeFolder(folder)
    place.make_empty()
    settings = place.write_settings(port, Peer("127.0.0.1", peer_port, peer_ae))
    process: Process = node_process(place, settings)
    with process:
        node = WholeNode(place, port)

        def started() -> bool:
            process.check()
            return place.log.exists() and bool(node.events("service.started"))

        assert wait_until(started, 120), place.log.read_text()
        yield node
