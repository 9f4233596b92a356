"""A complaint must not become a flood: the same line comes a few times a minute, then only its count."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

WINDOW_S = 60.0

# What differs between two tellings of the same complaint: numbers, identifiers, quotations.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8,}\b|\d+")

Key = tuple[str, str]


@dataclass
class _Window:
    started_s: float
    seen: int = 0


class RateLimit(logging.Filter):
    """Lets at most a number of lines a minute pass for each logger and message template.

    Args:
        lines: how many lines of one kind pass in a minute.
        exempt: the logger whose lines always pass.
        report: told the logger and the count of lines left out, when a minute is over.
        clock: monotonic seconds.
    """

    def __init__(
        self, lines: int, exempt: str, report: Callable[[str, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._lines = lines
        self._exempt = exempt
        self._report = report
        self._clock = clock
        self._windows: dict[Key, _Window] = {}
        self._lock = Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes; reports what was left out in minutes that are over."""
        if record.name == self._exempt:
            return True
        key = record.name, _template(str(record.msg))
        with self._lock:
            over = self._take_over()
            window = self._windows.setdefault(key, _Window(self._clock()))
            window.seen += 1
            passes = window.seen <= self._lines
        self._tell(over)
        return passes

    def flush(self) -> None:
        """Report what was left out until now, as at the end of a process."""
        with self._lock:
            over = list(self._windows.items())
            self._windows.clear()
        self._tell(over)

    def _take_over(self) -> list[tuple[Key, _Window]]:
        """Remove the windows whose minute is over, so that the table stays small."""
        now = self._clock()
        over = [(key, window) for key, window in self._windows.items() if now - window.started_s >= WINDOW_S]
        for key, _ in over:
            del self._windows[key]
        return over

    def _tell(self, over: list[tuple[Key, _Window]]) -> None:
        for (name, _), window in over:
            if window.seen > self._lines:
                self._report(name, window.seen - self._lines)


class Seldom:
    """Lets one telling of a kind pass in a minute, and counts the others.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[Key, _Window] = {}
        self._lock = Lock()

    def left_out(self, key: Key) -> int | None:
        """How many tellings were left out since the last one that passed; None where this one is left out as well."""
        with self._lock:
            window = self._windows.get(key)
            if window is not None and self._clock() - window.started_s < WINDOW_S:
                window.seen += 1
                return None
            self._windows[key] = _Window(self._clock())
            return 0 if window is None else window.seen

    def forget(self) -> None:
        """Let the next telling of every kind pass."""
        with self._lock:
            self._windows.clear()


def _template(message: str) -> str:
    """The message without what varies; only its first line, for the rest is a traceback."""
    first = next((line for line in message.splitlines() if line.strip()), "")
    return _VARIABLE.sub("#", first)[:200]
