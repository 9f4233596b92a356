from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers.instances import uid, write_series
from peers.receiver import Events, Receiver, listen_to_log, receiver
from peers.scu import association, store
from sqlalchemy.exc import OperationalError

from db.models import Series
from db.queries import OpenSeries, open_series
from db.session import transaction
from node.complete import RETRY_S, CompletionWatcher, is_complete
from node.errors import JobsError
from node.standin_pacs import send_series

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUIET_S = 0.6

times = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
periods = st.floats(0.001, 86400)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


@given(times, times, periods)
def test_a_series_that_is_still_sent_is_never_complete(last: datetime, now: datetime, quiet_s: float) -> None:
    assert not is_complete(last, now, quiet_s, still_sending=True)


@given(times, periods, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_complete_from_the_end_of_the_quiet_period_on(last: datetime, quiet_s: float, later: timedelta) -> None:
    end = last + timedelta(seconds=quiet_s)
    assert is_complete(last, end + later, quiet_s, still_sending=False)
    assert not is_complete(last, end - timedelta(microseconds=1) - later, quiet_s, still_sending=False)


@given(times, times, periods, st.timedeltas(timedelta(0), timedelta(days=1)))
def test_a_later_arrival_never_completes_a_series(
    last: datetime, now: datetime, quiet_s: float, later: timedelta
) -> None:
    if is_complete(last + later, now, quiet_s, still_sending=False):
        assert is_complete(last, now, quiet_s, still_sending=False)


class Desk:
    """Stands in for SQL, listener and jobs."""

    def __init__(self, *series: OpenSeries) -> None:
        self.series = {one.id: one for one in series}
        self.sending: frozenset[str] = frozenset()
        self.announced: list[int] = []
        self.trouble: list[Exception] = []

    def open(self) -> list[OpenSeries]:
        if self.trouble:
            raise self.trouble.pop()
        return list(self.series.values())

    def announce(self, series: OpenSeries) -> bool:
        self.announced.append(series.id)
        del self.series[series.id]
        return True

    def watcher(self, quiet_s: float = 10.0) -> CompletionWatcher:
        return CompletionWatcher(self.open, lambda: self.sending, self.announce, quiet_s, interval_s=0.02)


def waiting(number: int, seconds_ago: float = 3600) -> OpenSeries:
    return OpenSeries(number, f"1.2.{number}", f"id-{number}", NOW - timedelta(seconds=seconds_ago))


@pytest.fixture
def at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher began an hour before NOW."""
    monkeypatch.setattr("node.complete.utc_now", lambda: NOW - timedelta(hours=1))


@pytest.mark.usefixtures("at_start")
def test_only_quiet_series_that_nobody_sends_are_announced(events: Events) -> None:
    desk = Desk(waiting(1), waiting(2, seconds_ago=9.9), waiting(3), waiting(4, seconds_ago=10))
    desk.sending = frozenset({"1.2.3"})
    assert desk.watcher().look(NOW) == (1, 4)
    assert desk.announced == [1, 4]
    assert [told["correlation_id"] for told in events.named("series.complete")] == ["id-1", "id-4"]


@pytest.mark.usefixtures("at_start")
def test_a_sender_that_begins_while_sql_is_asked_is_seen(events: Events) -> None:
    desk = Desk(waiting(1))

    def asked() -> list[OpenSeries]:
        desk.sending = frozenset({"1.2.1"})
        return desk.open()

    watcher = CompletionWatcher(asked, lambda: desk.sending, desk.announce, 10.0)
    assert watcher.look(NOW) == ()


@pytest.mark.usefixtures("at_start")
def test_a_sender_that_returns_while_another_series_is_announced_is_seen(events: Events) -> None:
    desk = Desk(waiting(1), waiting(2))

    def announce(series: OpenSeries) -> bool:
        desk.sending = frozenset({"1.2.2"})  # while the job of the first series is being made
        return desk.announce(series)

    watcher = CompletionWatcher(desk.open, lambda: desk.sending, announce, 10.0)
    assert watcher.look(NOW) == (1,)
    assert desk.announced == [1]


@pytest.mark.usefixtures("at_start")
def test_a_series_that_is_not_taken_is_not_told_complete(events: Events) -> None:
    desk = Desk(waiting(1))
    watcher = CompletionWatcher(desk.open, frozenset, lambda _: False, 10.0)
    assert watcher.look(NOW) == ()
    assert not events.named("series.complete")


def test_what_was_left_open_gets_a_quiet_period_from_the_start(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.complete.utc_now", lambda: NOW)
    desk = Desk(waiting(1))
    watcher = desk.watcher()
    assert watcher.look(NOW + timedelta(seconds=9)) == ()
    assert watcher.look(NOW + timedelta(seconds=10)) == (1,)


@pytest.mark.parametrize(
    "trouble", [OperationalError("statement", {}, Exception("away")), JobsError("jobs", "they are away", "Wait")]
)
def test_trouble_that_passes_delays_and_loses_nothing(events: Events, trouble: Exception) -> None:
    desk = Desk(waiting(1))
    desk.trouble.append(trouble)
    with desk.watcher(quiet_s=0.01) as watcher:
        assert until(lambda: desk.announced == [1])
        assert watcher.alive
    assert not watcher.alive
    assert events.named("database.lost") or events.named("program.fault")


@pytest.mark.usefixtures("at_start")
def test_an_announcement_that_fails_holds_up_no_other_one(events: Events) -> None:
    desk = Desk(waiting(1), waiting(2))
    refused = [1]

    def announce(series: OpenSeries) -> bool:
        if series.id in refused:
            raise JobsError("job", "it cannot be made", "Wait")
        return desk.announce(series)

    watcher = CompletionWatcher(desk.open, frozenset, announce, 10.0)
    assert watcher.look(NOW) == (2,)
    assert watcher.look(NOW) == ()
    assert len(events.named("program.fault")) == 1
    refused.clear()
    assert watcher.look(NOW + timedelta(seconds=RETRY_S + 10)) == (1,)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Wait until something is so. Returns whether it is."""
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


@contextmanager
def watched(folder: Path) -> Iterator[tuple[Receiver, list[int]]]:
    """A listener on a database, with a watcher whose announcements close the series."""
    announced: list[int] = []
    with receiver(folder) as node:

        def open_in_sql() -> tuple[OpenSeries, ...]:
            with transaction(node.engine) as session:
                return open_series(session)

        def announce(series: OpenSeries) -> bool:
            with transaction(node.engine) as session:
                session.get_one(Series, series.id).open = False
            announced.append(series.id)
            return True

        with CompletionWatcher(open_in_sql, node.listener.open_series, announce, QUIET_S, interval_s=0.05):
            yield node, announced


def test_a_series_is_complete_only_after_its_association_has_ended(tmp_path: Path, events: Events) -> None:
    first, second = write_series(tmp_path, "leg", 2)
    with watched(tmp_path) as (node, announced):
        with association(node.peer) as made:
            assert store(made, first).Status == 0
            time.sleep(2 * QUIET_S)  # longer than the quiet period, with the association open
            assert node.listener.open_series() == {uid("leg")}
            assert not announced
            assert store(made, second).Status == 0
        assert until(lambda: announced)
        time.sleep(2 * QUIET_S)
        assert announced == [node.series()[0].id]
        assert len(node.instances()) == 2


def test_another_association_does_not_hold_up_a_series(tmp_path: Path, events: Events) -> None:
    left, right = write_series(tmp_path, "left", 1), write_series(tmp_path, "right", 1)
    with watched(tmp_path) as (node, announced), association(node.peer) as made:
        assert store(made, left[0]).Status == 0
        send_series(right, node.peer, "CT1")
        assert until(lambda: announced)
        by_uid = {series.series_uid: series.id for series in node.series()}
        assert announced == [by_uid[uid("right")]]


def test_an_aborted_association_does_not_hold_a_series_open(tmp_path: Path, events: Events) -> None:
    (first,) = write_series(tmp_path, "leg", 1)
    with watched(tmp_path) as (node, announced):
        with association(node.peer) as made:
            assert store(made, first).Status == 0
            made.abort()
        assert until(lambda: announced)


def test_a_series_that_came_in_two_associations_is_announced_once(tmp_path: Path, events: Events) -> None:
    files = write_series(tmp_path, "leg", 6)
    with watched(tmp_path) as (node, announced):
        halves = [
            threading.Thread(target=send_series, args=(part, node.peer, "PACS")) for part in (files[:3], files[3:])
        ]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
        assert until(lambda: announced)
        assert len(node.instances()) == 6
        time.sleep(2 * QUIET_S)
        assert len(announced) == 1
