"""Which series of a study are segmented: what the rules know of each, what was decided, what is to be decided anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session, aliased

from db.arrivals import reopen_series
from db.models import Instance, Job, Series, SeriesFacts
from db.rows import upsert
from db.status import JobStatus

NOT_SELECTED = "not_selected"
"""Code of the reason of a job that was parked because another series of its scan was preferred."""


@dataclass(frozen=True)
class KnownSeries:
    """A series as the rules see it.

    Attributes:
        open: whether instances of it wait for a job.
        run: the run of its next job while it is open, else that of its newest one.
        quiet_since: when its last instance arrived.
        facts: what the rules know of it; None where that was not read since its last instance arrived.
        status: of its newest job; None where it has none.
        code: of the reason of its newest job.
        decided_here: whether its newest job was parked by the rules.
    """

    id: int
    study_uid: str
    series_uid: str
    correlation_id: str
    open: bool
    run: int
    quiet_since: datetime
    facts: Mapping[str, Any] | None
    status: JobStatus | None
    code: str | None
    decided_here: bool


def series_of_study(session: Session, study_uid: str) -> tuple[KnownSeries, ...]:
    """Every series of a study, by UID."""
    return _known(session, select(Series.id).where(Series.study_uid == study_uid))


def series_since(session: Session, since: datetime) -> tuple[KnownSeries, ...]:
    """Every series of the studies of which something arrived since then, by UID."""
    studies = select(Series.study_uid).where(Series.last_received_at >= since)
    return _known(session, select(Series.id).where(Series.study_uid.in_(studies)))


def study_of(session: Session, series_id: int) -> str | None:
    """The UID of the study of a series; None for a series that is unknown."""
    return session.scalar(select(Series.study_uid).where(Series.id == series_id))


def series_files(session: Session, series_id: int) -> tuple[str, ...]:
    """The files of a series that a job would be made of now, relative to the spool, as they first arrived."""
    files = select(Instance.path).where(Instance.series_id == series_id, Instance.newest).order_by(Instance.id)
    return tuple(session.scalars(files))


def record_facts(session: Session, series_id: int, as_of: datetime, facts: Mapping[str, Any]) -> None:
    """Remember what the rules know of a series since its last instance arrived; a second time overwrites the first."""
    upsert(session, SeriesFacts, ("series_id",), [{"series_id": series_id, "as_of": as_of, "facts": dict(facts)}])


def reopen_forsaken(session: Session, may_pass: Collection[str]) -> tuple[str, ...]:
    """Open the series again that lost to one which was parked or failed since: another of them is to be taken.

    Args:
        session: the transaction.
        may_pass: codes of parked jobs that may run again, so that nothing is decided yet.

    Returns:
        The UIDs of those series.
    """
    loser, winner, theirs, newer = aliased(Job), aliased(Job), aliased(Series), aliased(Job)
    newest = ~select(newer.id).where(newer.series_id == winner.series_id, newer.run > winner.run).exists()
    parked = and_(winner.status == JobStatus.PARKED.value, winner.reason_code.not_in(list(may_pass)))
    dead = or_(winner.status == JobStatus.FAILED.value, parked)
    forsaken = (
        select(Series.id, Series.series_uid)
        .join(loser, (loser.series_id == Series.id) & (loser.run == Series.run))
        .join(theirs, theirs.series_uid == loser.winner_uid)
        .join(winner, winner.series_id == theirs.id)
        .where(~Series.open, loser.status == JobStatus.PARKED.value, loser.reason_code == NOT_SELECTED)
        .where(dead, winner.winner_uid.is_(None), newest, ~theirs.open)
        .distinct()
    )
    found = session.execute(forsaken.order_by(Series.series_uid)).all()
    for series_id, _ in found:
        reopen_series(session, series_id)
    return tuple(uid for _, uid in found)


def _known(session: Session, ids: Any) -> tuple[KnownSeries, ...]:
    series = session.scalars(select(Series).where(Series.id.in_(ids)).order_by(Series.series_uid)).all()
    numbers = [each.id for each in series]
    facts = {
        row.series_id: row for row in session.scalars(select(SeriesFacts).where(SeriesFacts.series_id.in_(numbers)))
    }
    newest: dict[int, Job] = {}
    for job in session.scalars(select(Job).where(Job.series_id.in_(numbers)).order_by(Job.run, Job.created_at)):
        newest[job.series_id] = job
    return tuple(_row(each, facts.get(each.id), newest.get(each.id)) for each in series)


def _row(series: Series, facts: SeriesFacts | None, job: Job | None) -> KnownSeries:
    told = facts.facts if facts is not None and facts.as_of == series.last_received_at else None
    return KnownSeries(
        id=series.id,
        study_uid=series.study_uid,
        series_uid=series.series_uid,
        correlation_id=series.correlation_id,
        open=series.open,
        run=series.run,
        quiet_since=series.last_received_at,
        facts=told,
        status=None if job is None else JobStatus(job.status),
        code=None if job is None else job.reason_code,
        decided_here=job is not None and job.by_rules,
    )
