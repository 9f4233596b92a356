"""When a series is complete: nothing of it has arrived for a while, and nobody who sent into it is still connected.

DICOM has no word for the end of a series, so this is a judgement. An association that sent into a series may stay open
between two instances for longer than the quiet period; a series is therefore never complete while one is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from db.queries import OpenSeries
from db.session import now as utc_now
from engine.errors import VastusError
from node import log

RETRY_S = 30.0
"""Wait before an announcement that failed is repeated."""


def is_complete(last_received_at: datetime, now: datetime, quiet_period_s: float, still_sending: bool) -> bool:
    """Whether a series can be taken as complete.

    Args:
        last_received_at: when its newest instance arrived.
        now: the present.
        quiet_period_s: how long nothing must have arrived.
        still_sending: whether an association that has sent into the series is still open.
    """
    return not still_sending and now - last_received_at >= timedelta(seconds=quiet_period_s)


class CompletionWatcher:
    """Looks again and again for series that have become complete, and announces each.

    What an earlier process left open is announced as well, a quiet period after `start`: peers that were cut off get
    that long to come back.

    Args:
        open_in_sql: the series that no job has taken yet, as `db.queries.open_series` knows them.
        sending: UIDs of the series that an open association has sent into.
        announce: called with each complete series as it was seen, right after the question who is sending; returns
            false where it is not taken, because it is no longer as it was seen. May be called twice for one series.
        quiet_period_s: how long nothing must have arrived.
        interval_s: time between two looks.
    """

    def __init__(
        self,
        open_in_sql: Callable[[], Iterable[OpenSeries]],
        sending: Callable[[], frozenset[str]],
        announce: Callable[[OpenSeries], bool],
        quiet_period_s: float,
        interval_s: float = 0.5,
    ) -> None:
        self._open_in_sql = open_in_sql
        self._sending = sending
        self._announce = announce
        self._quiet_period_s = quiet_period_s
        self._interval_s = interval_s
        self._started_at = utc_now()
        self._not_before: dict[int, datetime] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self, now: datetime) -> tuple[int, ...]:
        """Look once, and announce what is complete. Returns the ids that were announced.

        A series whose announcement fails holds up no other one, and is tried again after `RETRY_S`.

        Raises:
            SQLAlchemyError: the database could not be asked, or lost what was announced.
        """
        # Asked before and after SQL: an association that ends or begins in between is seen at least once. Asked anew
        # for each series, because announcing the one before it may have taken long.
        before = self._sending()
        announced = []
        for series in list(self._open_in_sql()):
            last = max(series.quiet_since, self._started_at, self._not_before.get(series.id, series.quiet_since))
            sending = series.series_uid in before | self._sending()
            if is_complete(last, now, self._quiet_period_s, sending) and self._tell(series, now):
                announced.append(series.id)
        return tuple(announced)

    def _tell(self, series: OpenSeries, now: datetime) -> bool:
        """Announce one series. Returns whether it was taken."""
        try:
            taken = self._announce(series)
        except VastusError as error:
            self._not_before[series.id] = now + timedelta(seconds=RETRY_S)
            log.event("program.fault", error=error, where="completion", correlation_id=series.correlation_id)
            return False
        self._not_before.pop(series.id, None)
        if not taken:
            return False
        log.event(
            "series.complete",
            correlation_id=series.correlation_id,
            series_uid=series.series_uid,
            reason=f"nothing has arrived for {self._quiet_period_s:g} s and no sender is connected",
        )
        return True

    def start(self) -> None:
        """Look in a thread of its own until `stop`."""
        self._started_at = utc_now()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="completion", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a look that has begun is finished."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def alive(self) -> bool:
        """Whether the thread looks; false after an error that nobody foresaw, which must end the process."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> CompletionWatcher:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.look(utc_now())
            except SQLAlchemyError as error:
                log.event("database.lost", error=error, where="completion")
            except VastusError as error:
                log.event("program.fault", error=error, where="completion")
