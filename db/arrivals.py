"""What arrived: instances are gathered into series, and a series is open while instances of it wait for a job."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.errors import UnknownRow
from db.models import Instance, JobInstance, Series
from db.rows import fitted, insert_if_absent

_BARE = {"synchronize_session": False}  # what the session knows is read anew afterwards


class Changed(StrEnum):
    """What becomes of an instance that comes again with other bytes, after a job was made of the version before."""

    KEEP = "keep"
    """It is kept beside and told; the version that the job was made of goes on counting."""
    RERUN = "rerun"
    """It counts from now on, and another job is made."""


@dataclass(frozen=True)
class ReceivedInstance:
    """One instance that lies in the spool.

    Attributes:
        calling_ae: AE title of the peer that sent it.
        path: its file, relative to the spool.
        sha256: digest of the file, hexadecimal.
        received_at: aware time.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str | None
    transfer_syntax_uid: str
    calling_ae: str
    path: str
    sha256: str
    size_bytes: int
    received_at: datetime


@dataclass(frozen=True)
class InstanceOutcome:
    """What became of an instance.

    Attributes:
        stored: it is new to the database, and a job will take it.
        duplicate: the same bytes were there already as the newest version; nothing changes.
        conflict: the version that counted under the same SOP Instance UID had other bytes; all versions are kept, and
            this one counts from now on unless it is `set_aside`. It is not `stored` where it came before, as an older
            version.
        reopened: a job had been made of the series already, so there will be another one.
        set_aside: it is kept, but the version that a job was made of goes on counting.
    """

    series_id: int
    correlation_id: str
    stored: bool
    duplicate: bool
    conflict: bool
    reopened: bool
    set_aside: bool = False


@dataclass(frozen=True)
class OpenSeries:
    """A series with instances that wait for a job; `quiet_since` is when the last one arrived."""

    id: int
    series_uid: str
    correlation_id: str
    quiet_since: datetime


def record_instance(session: Session, received: ReceivedInstance, changed: Changed = Changed.KEEP) -> InstanceOutcome:
    """Remember one instance; twice the same bytes are remembered once.

    Of several versions of an instance one counts: the one that arrived last, until a job was made of it. After that
    `changed` decides. An open series stays open longer with every arrival, duplicates too: a peer that sends all again
    is still sending.
    """
    series = _locked(session, received.series_uid)
    if series is None:
        insert_if_absent(session, Series, _first_of(received))
        series = _locked(session, received.series_uid)
    if series is None:
        raise UnknownRow(f"series {received.series_uid}", "it vanished while it was written", "Send it again.")
    same_uid = Instance.sop_instance_uid == received.sop_instance_uid
    versions = dict(session.execute(select(Instance.sha256, Instance.newest).where(same_uid)).all())
    aside = changed is Changed.KEEP and _other_version_in_job(session, series.id, received)
    row = {**_row(series.id, received), "newest": not aside}
    stored = received.sha256 not in versions and insert_if_absent(session, Instance, row)
    counts_now = not aside and (stored or versions.get(received.sha256) is False)
    if counts_now and versions:
        this_one = update(Instance).where(same_uid, Instance.series_id == series.id)
        session.execute(this_one.values(newest=Instance.sha256 == received.sha256), execution_options=_BARE)
    reopened = counts_now and not series.open
    if reopened:
        series.open, series.run = True, series.run + 1
    if series.open:
        series.last_received_at = max(series.last_received_at, received.received_at)
    session.flush()
    told = stored or counts_now
    return InstanceOutcome(
        series.id, series.correlation_id, stored, not told, told and bool(versions), reopened, stored and aside
    )


def open_series(session: Session) -> tuple[OpenSeries, ...]:
    """The series that wait for a job, the one that is quiet the longest first."""
    rows = session.scalars(select(Series).where(Series.open).order_by(Series.last_received_at, Series.id))
    return tuple(OpenSeries(row.id, row.series_uid, row.correlation_id, row.last_received_at) for row in rows)


def open_series_ids(session: Session) -> tuple[int, ...]:
    """The ids of the series that wait for a job, the one that is quiet the longest first."""
    return tuple(series.id for series in open_series(session))


def series_quiet_since(session: Session, series_uid: str) -> datetime | None:
    """When the last instance of a series arrived; None for a series that is unknown."""
    return session.scalar(select(Series.last_received_at).where(Series.series_uid == series_uid))


def lock_series(session: Session, series_id: int) -> Series:
    """A series that nobody else changes until this transaction ends.

    Raises:
        UnknownRow: there is none.
    """
    session.execute(update(Series).where(Series.id == series_id).values(open=Series.open), execution_options=_BARE)
    series = session.get(Series, series_id, populate_existing=True)
    if series is None:
        raise UnknownRow(f"series {series_id}", "the database does not hold it", "List what it holds: vastus jobs.")
    return series


def reopen_series(session: Session, series_id: int) -> int:
    """Let another job be made of a series, on an operator's word.

    Returns:
        The run that the next job will have.
    """
    series = lock_series(session, series_id)
    if not series.open:
        series.open, series.run = True, series.run + 1
        session.flush()
    return series.run


def _locked(session: Session, series_uid: str) -> Series | None:
    """The series, locked. A write that changes nothing locks in both databases; SQLite knows no FOR UPDATE."""
    mine = Series.series_uid == series_uid
    session.execute(update(Series).where(mine).values(open=Series.open), execution_options=_BARE)
    return session.scalar(select(Series).where(mine).execution_options(populate_existing=True))


def _other_version_in_job(session: Session, series_id: int, received: ReceivedInstance) -> bool:
    """Whether a job was made of the version that counts, and that is not this one."""
    counting = select(JobInstance.job_id).join(Instance, Instance.id == JobInstance.instance_id)
    same = counting.where(Instance.series_id == series_id, Instance.sop_instance_uid == received.sop_instance_uid)
    other = same.where(Instance.newest, Instance.sha256 != received.sha256)
    return session.scalars(other.limit(1)).first() is not None


def _first_of(received: ReceivedInstance) -> dict[str, object]:
    return {
        "correlation_id": uuid.uuid4().hex,
        "study_uid": received.study_uid,
        "series_uid": received.series_uid,
        "modality": fitted(received.modality, 16),
        "calling_ae": fitted(received.calling_ae, 16),
        "open": True,
        "run": 0,
        "first_received_at": received.received_at,
        "last_received_at": received.received_at,
    }


def _row(series_id: int, received: ReceivedInstance) -> dict[str, object]:
    return {
        "series_id": series_id,
        "sop_class_uid": received.sop_class_uid,
        "sop_instance_uid": received.sop_instance_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "sha256": received.sha256,
        "path": received.path,
        "size_bytes": received.size_bytes,
        "received_at": received.received_at,
    }
