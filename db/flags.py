"""What makes the scans of jobs less fit for measurement."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.models import Flag
from db.rows import fitted, upsert
from engine import flags
from engine.flags import Policy, RaisedFlag


def record_flags(session: Session, job_id: str, raised: Sequence[RaisedFlag]) -> None:
    """Remember the flags of a job; a second time leaves those of the second time alone."""
    codes = [each.flag.code for each in raised]
    session.connection().execute(delete(Flag).where(Flag.job_id == job_id, Flag.code.not_in(codes)))
    rows = [
        {
            "job_id": job_id,
            "code": each.flag.code,
            "policy": each.policy.value,
            "number": each.flag.number,
            "unit": each.flag.unit,
            "words": fitted(each.flag.words, 1024),
        }
        for each in raised
    ]
    upsert(session, Flag, ("job_id", "code"), rows)


def flags_of(session: Session, job_id: str) -> tuple[RaisedFlag, ...]:
    """The flags of a job, in the order in which they were recorded."""
    rows = session.scalars(select(Flag).where(Flag.job_id == job_id).order_by(Flag.id))
    return tuple(RaisedFlag(flags.Flag(row.code, row.words, row.number, row.unit), Policy(row.policy)) for row in rows)
