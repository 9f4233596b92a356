"""What each open association has sent so far: who is still sending into which series."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Line(Protocol):
    """An association, as far as we need it here: a thread that lives while its peer is connected."""

    def is_alive(self) -> bool:
        """Whether the association is still served."""
        ...


@dataclass
class Tally:
    """What one association did.

    Attributes:
        peer: fields of the log that name the peer.
        series: UIDs of the series that it has sent into.
        counts: instances by what became of them, as `{"stored": 398, "refused": 2}`.
        size_bytes: bytes of the instances.
    """

    peer: Mapping[str, str | int]
    series: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    size_bytes: int = 0


class Associations:
    """The open associations of the listener; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[Line, Tally] = {}

    def opened(self, line: Line, peer: Mapping[str, str | int]) -> None:
        """A peer opened an association."""
        with self._lock:
            self._tallies[line] = Tally(peer)

    def sends(self, line: Line, series_uid: str) -> None:
        """An association has begun to send into a series."""
        with self._lock:
            self._tally(line).series.add(series_uid)

    def counted(self, line: Line, what: str, size_bytes: int) -> None:
        """One more instance of an association was dealt with."""
        with self._lock:
            tally = self._tally(line)
            tally.counts[what] += 1
            tally.size_bytes += size_bytes

    def closed(self, line: Line) -> Tally | None:
        """An association ended. Returns what it did, or None where that was returned before."""
        with self._lock:
            return self._tallies.pop(line, None)

    def lost(self) -> list[Tally]:
        """Forget the associations that ended without a word, and return what they did."""
        with self._lock:
            gone = [line for line in self._tallies if not line.is_alive()]
            return [self._tallies.pop(line) for line in gone]

    def open_series(self) -> frozenset[str]:
        """UIDs of the series that an open association has sent into."""
        with self._lock:
            alive = [tally.series for line, tally in self._tallies.items() if line.is_alive()]
        return frozenset().union(*alive)

    def _tally(self, line: Line) -> Tally:
        return self._tallies.setdefault(line, Tally({}))
