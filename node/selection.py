"""Deciding which series of a study is segmented, at the time when its job would be made.

A decision is made anew from SQL each time, and written in one transaction with the job: what a crash cuts off is
decided again, and nothing is remembered in between. `docs/decisions/0015-selection.md` tells the design.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from db import queries
from db.session import now, transaction
from db.status import JobStatus
from dicom_io.errors import DicomIoError
from dicom_io.facts import facts_of, restored, stored
from dicom_io.select import Decision, SelectionRules, SeriesFacts, lost, ranks_of, refusal_of, scans_of
from dicom_io.series import SeriesRef
from node import log
from node.jobs import JobQueue, Unwanted
from node.pipeline import RETRIABLE
from node.spool import Spool

FORSAKEN_S = 2.0
"""Between two looks for series that lost to one which came to nothing."""


@dataclass(frozen=True)
class SelectionPlan:
    """The rules, and when they are asked.

    Attributes:
        rules: which series of a study is segmented.
        wait_s: a study is decided on when nothing of it has arrived for this long.
        longest_wait_s: no complete series waits longer than this.
        skip_late_better: whether a better series that arrives after another one of its scan was taken is left.
    """

    rules: SelectionRules
    wait_s: float
    longest_wait_s: float
    skip_late_better: bool = False


class Selector:
    """Decides on complete series, one after the other.

    Args:
        database: the node's database.
        spool: where the files lie.
        queue: where jobs are made.
        plan: the rules, and when they are asked.
    """

    def __init__(self, database: Engine, spool: Spool, queue: JobQueue, plan: SelectionPlan) -> None:
        self._database = database
        self._spool = spool
        self._queue = queue
        self._plan = plan
        self._looked_at = float("-inf")

    def waiting(self) -> tuple[queries.OpenSeries, ...]:
        """The series that no job has taken yet, with those that are to be decided on again."""
        look = time.monotonic() - self._looked_at >= FORSAKEN_S
        with transaction(self._database) as session:
            again = queries.reopen_forsaken(session, RETRIABLE) if look else ()
            found = queries.open_series(session)
        if look:
            self._looked_at = time.monotonic()
        for series_uid in again:
            log.event("series.reconsidered", series_uid=series_uid)
        return found

    def decide(self, series: queries.OpenSeries) -> bool:
        """Decide on a complete series: queue its job, or park it with the reason.

        Returns:
            False where it is not decided on yet: others of its study may come, or more of it has arrived.

        Raises:
            DicomIoError: a file of it could not be read.
        """
        with transaction(self._database) as session:
            study = queries.study_of(session, series.id)
            known = queries.series_of_study(session, study) if study is not None else ()
        own = next((each for each in known if each.id == series.id), None)
        if own is None or own.quiet_since > series.quiet_since:
            return False
        facts = self._facts(own)
        if refused := refusal_of(facts, self._plan.rules):
            return self._park(series, Unwanted(refused.code, refused.reason))
        if self._may_still_come(own, known):
            return False
        others = {each.series_uid: each for each in known if each.id != own.id and self._competes(each)}
        rivals = {uid: read for uid, each in others.items() if (read := self._facts_of_rival(each)) is not None}
        lost_to = self._lost(facts, others, rivals)
        if lost_to is None:
            return self._queue.series_complete(series.id, seen=series.quiet_since) is not None
        winner = others[str(lost_to.winner_uid)]
        again = None if winner.open or _alive(winner) else winner.id
        return self._park(series, Unwanted(lost_to.code, lost_to.reason, lost_to.winner_uid, again))

    def _lost(
        self,
        facts: SeriesFacts,
        others: Mapping[str, queries.KnownSeries],
        rivals: Mapping[str, SeriesFacts],
    ) -> Decision | None:
        """The decision where another series is preferred; None where this one is to be segmented."""
        rules = self._plan.rules
        allowed = [each for each in rivals.values() if refusal_of(each, rules) is None]
        scan = next(scan for scan in scans_of((facts, *allowed), rules) if facts in scan)
        ranked = sorted(scan, key=lambda each: ranks_of(each, scan, rules))
        taken = [each for each in ranked if each.series_uid in others and _alive(others[each.series_uid])]
        best = taken[0] if taken and self._plan.skip_late_better else ranked[0]
        if best.series_uid == facts.series_uid:
            return None
        return lost(facts, best, scan, rules)

    def _may_still_come(self, own: queries.KnownSeries, known: Iterable[queries.KnownSeries]) -> bool:
        """Whether something of the study arrived so lately that more of it is expected."""
        at, newest = now(), max(each.quiet_since for each in known)
        return _less(newest, at, self._plan.wait_s) and _less(own.quiet_since, at, self._plan.longest_wait_s)

    def _competes(self, series: queries.KnownSeries) -> bool:
        """Whether a series of the study is one that can be preferred: whole, and not tried in vain."""
        if series.open:
            return not _less(series.quiet_since, now(), self._plan.wait_s)
        return series.decided_here or _alive(series)

    def _facts(self, series: queries.KnownSeries) -> SeriesFacts:
        """What the rules know of a series: from SQL, else from its files, and then remembered."""
        if series.facts is not None:
            return restored(series.facts)
        with transaction(self._database) as session:
            files = queries.series_files(session, series.id)
        ref = SeriesRef(series.study_uid, series.series_uid, tuple(self._spool.path_of(path) for path in files))
        facts = facts_of(ref)
        with transaction(self._database) as session:
            queries.record_facts(session, series.id, series.quiet_since, stored(facts))
        return facts

    def _facts_of_rival(self, series: queries.KnownSeries) -> SeriesFacts | None:
        """The same for another series, whose files need not be there any more: then it decides on nothing."""
        try:
            return self._facts(series)
        except DicomIoError as error:
            log.event("program.fault", error=error, where="selection", correlation_id=series.correlation_id)
            return None

    def _park(self, series: queries.OpenSeries, why: Unwanted) -> bool:
        return self._queue.series_parked(series.id, why, seen=series.quiet_since) is not None


def _less(since: datetime, at: datetime, seconds: float) -> bool:
    return at - since < timedelta(seconds=seconds)


def _alive(series: queries.KnownSeries) -> bool:
    """Whether something is, will be or may yet be made of the series' newest job."""
    if series.status is JobStatus.PARKED:
        return series.code in RETRIABLE
    return series.status not in (None, JobStatus.FAILED)
