"""The log: one JSON object a line, on one stream, for our own events and for the libraries' complaints alike.

Every line has `time` (UTC, ISO 8601, ms), `level`, `event` and `process`; lines about a series have `correlation_id`.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from node.errors import UnknownEvent
from node.events import EVENTS
from node.privacy import QUOTING_LOGGERS, WITHHELD, clean, first_line, is_forbidden, without_quotations, words_of
from node.ratelimit import RateLimit, Seldom

OURS = "vastus"
LIBRARIES = ("dbos", "pynetdicom", "pydicom", "highdicom", "sqlalchemy", "alembic", "py.warnings")
LIBRARY_LINES_PER_MINUTE = 5
DEEPEST_FRAMES = 12

EventDict = MutableMapping[str, Any]

_SELDOM = Seldom()


def configure(
    level: str = "info", pretty: bool = False, stream: TextIO | None = None, process: str = "command"
) -> None:
    """Send our events and the libraries' warnings to one stream. May be called again, as after a fork.

    Args:
        level: lowest level of our own events: `debug`, `info`, `warning` or `error`.
        pretty: lines for people instead of JSON.
        stream: where to; standard output if None.
        process: which process of the service this is: `listener`, `worker`, `sender`, `serve`.
    """
    _SELDOM.forget()
    target = sys.stdout if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _stamp(process),
        _withhold,
    ]
    render: Processor = structlog.dev.ConsoleRenderer(colors=target.isatty()) if pretty else _render
    handler = logging.StreamHandler(target)
    handler.addFilter(RateLimit(LIBRARY_LINES_PER_MINUTE, OURS, _tell_suppressed))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_library, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    _attach(handler, level)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def event(name: str, **fields: Any) -> None:
    """Write one event at the level that the table of events gives it.

    Nothing is written before `configure`: a command that does not log stays silent.

    Args:
        name: a name of `node.events.EVENTS`.
        fields: what there is to say; never a patient's name or plain id. An exception is told in one line, and at
            level error with its frames as well.

    Raises:
        UnknownEvent: the table holds no such name.
    """
    kind = EVENTS.get(name)
    if kind is None:
        raise UnknownEvent(f"log event {name!r}", "the table of events has no such name", "Add it to node/events.py.")
    error = fields.get("error")
    if kind.level == "error" and isinstance(error, BaseException):
        fields["frames"] = _frames(error)
    if not structlog.is_configured():
        return
    left_out = _SELDOM.left_out((name, str(fields.get("where")))) if kind.seldom else 0
    if left_out:
        fields["left_out"] = left_out
    if left_out is not None:
        getattr(structlog.get_logger(OURS), kind.level)(name, **fields)


@contextmanager
def correlated(correlation_id: str) -> Iterator[None]:
    """Within this block every event carries the correlation id of one series (in this thread or task)."""
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        yield


def close() -> None:
    """Tell what was left out until now: the last thing before a process ends."""
    for handler in logging.getLogger().handlers:
        for limit in handler.filters:
            if isinstance(limit, RateLimit):
                limit.flush()
        handler.flush()


def _attach(handler: logging.Handler, level: str) -> None:
    """Make the one handler the voice of our own logger and, from WARNING on, of every library."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level.upper())
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        # The job engine brings its own console handler unless it finds one already: the NullHandler keeps its place.
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _tell_suppressed(logger: str, lines: int) -> None:
    event("log.suppressed", logger=logger, lines=lines)


def _stamp(process: str) -> Processor:
    def stamp(_logger: Any, _method: str, line: EventDict) -> EventDict:
        line["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line.setdefault("process", process)
        return line

    return stamp


def _library(_logger: Any, _method: str, line: EventDict) -> EventDict:
    """Turn a library's record into an event of ours: one line, no traceback, no quotation of DICOM values."""
    record: logging.LogRecord = line["_record"]
    message = str(line["event"])
    if record.name.startswith(QUOTING_LOGGERS):
        message = without_quotations(message)
    fault = line.pop("exc_info", None)
    line.pop("stack_info", None)
    line.update(event="log.library", logger=record.name, message=first_line(message))
    if isinstance(fault, tuple) and isinstance(fault[1], BaseException):
        line["error"] = words_of(fault[1])
    return line


def _withhold(_logger: Any, _method: str, line: EventDict) -> EventDict:
    """Replace values that must not be logged, and all that is no plain value."""
    for key, value in line.items():
        if key not in ("_record", "_from_structlog"):
            line[key] = WITHHELD if is_forbidden(key) else clean(value)
    return line


def _frames(error: BaseException) -> list[str]:
    """Where an error arose, the deepest frames last, without the values of variables."""
    frames = traceback.extract_tb(error.__traceback__)[-DEEPEST_FRAMES:]
    return [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _render(_logger: Any, _method: str, line: EventDict) -> str:
    """One JSON object, with the keys that every line has in front."""
    front = ("time", "level", "event", "process", "correlation_id")
    ordered = {key: line[key] for key in front if key in line}
    return json.dumps({**ordered, **line}, ensure_ascii=False)
