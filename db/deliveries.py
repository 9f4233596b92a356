"""What goes where: each result object to each destination, attempt by attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import UnknownRow
from db.models import Delivery, Job, Result, Series
from db.rows import fitted, insert_if_absent
from db.status import DeliveryStatus

SETTLED = (DeliveryStatus.ACCEPTED.value, DeliveryStatus.WARNING.value)


@dataclass(frozen=True)
class PendingDelivery:
    """One object that a destination has not taken yet; `path` is its file below the job's folder."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    sha256: str
    attempts: int


@dataclass(frozen=True)
class DeliveryAttempt:
    """One attempt to send one object.

    Attributes:
        number: 1 for the first attempt; the same attempt told twice counts once.
        dicom_status: the C-STORE status (PS3.7 Annex C); None where no answer came.
        comment: what was said or went wrong, in words.
        next_attempt_at: when it is tried again; None where it is not.
    """

    job_id: str
    destination: str
    kind: str
    number: int
    status: DeliveryStatus
    dicom_status: int | None
    comment: str | None
    attempted_at: datetime
    next_attempt_at: datetime | None = None


@dataclass(frozen=True)
class WaitingChain:
    """A job and a destination between which something is still to be sent, and how often it was tried."""

    job_id: str
    destination: str
    attempts: int
    correlation_id: str


def plan_deliveries(session: Session, job_id: str, destinations: Sequence[str]) -> int:
    """Note every result of a job for every destination; what is noted already stays as it is.

    Returns:
        How many deliveries are new.
    """
    results = session.execute(select(Result.kind, Result.sop_instance_uid).where(Result.job_id == job_id)).all()
    new = 0
    for destination in destinations:
        for kind, sop_instance_uid in results:
            values = {
                "job_id": job_id,
                "destination": destination,
                "kind": kind,
                "sop_instance_uid": sop_instance_uid,
                "status": DeliveryStatus.WAITING.value,
                "attempts": 0,
            }
            new += insert_if_absent(session, Delivery, values)
    return new


def record_delivery_attempt(session: Session, attempt: DeliveryAttempt) -> None:
    """Remember how an attempt went. Telling an older attempt late, or any after acceptance, changes nothing.

    Raises:
        UnknownRow: that delivery was never planned.
    """
    mine = (Delivery.job_id == attempt.job_id, Delivery.destination == attempt.destination)
    statement = select(Delivery).where(*mine, Delivery.kind == attempt.kind).with_for_update()
    delivery = session.scalar(statement.execution_options(populate_existing=True))
    if delivery is None:
        thing = f"delivery of {attempt.kind} of job {attempt.job_id} to {attempt.destination}"
        raise UnknownRow(thing, "it was never planned", "Plan the deliveries of a job before sending.")
    if delivery.status in SETTLED or delivery.attempts > attempt.number:
        return
    delivery.status, delivery.attempts = attempt.status.value, attempt.number
    delivery.dicom_status, delivery.comment = attempt.dicom_status, fitted(attempt.comment, 1024)
    delivery.last_attempt_at, delivery.next_attempt_at = attempt.attempted_at, attempt.next_attempt_at
    if delivery.status in SETTLED:
        delivery.accepted_at = attempt.attempted_at
    session.flush()


def pending_deliveries(session: Session, job_id: str, destination: str) -> tuple[PendingDelivery, ...]:
    """What one destination has still to be sent of one job, in the order in which the results were written."""
    mine = (Delivery.job_id == job_id, Delivery.destination == destination)
    statement = (
        select(Result, Delivery.attempts)
        .join(Delivery, (Delivery.job_id == Result.job_id) & (Delivery.kind == Result.kind))
        .where(*mine, Delivery.status == DeliveryStatus.WAITING.value)
        .order_by(Result.id)
    )
    return tuple(
        PendingDelivery(row.kind, row.sop_class_uid, row.sop_instance_uid, row.path, row.sha256, attempts)
        for row, attempts in session.execute(statement)
    )


def waiting_chains(session: Session) -> tuple[WaitingChain, ...]:
    """Every job and destination with something still to send, the oldest first."""
    statement = (
        select(Delivery.job_id, Delivery.destination, func.max(Delivery.attempts), Series.correlation_id)
        .join(Delivery.job)
        .join(Job.series)
        .where(Delivery.status == DeliveryStatus.WAITING.value)
        .group_by(Delivery.job_id, Delivery.destination, Series.correlation_id)
        .order_by(func.min(Delivery.id))
    )
    return tuple(WaitingChain(*row) for row in session.execute(statement))


def refused_destinations(session: Session, job_id: str) -> tuple[str, ...]:
    """The destinations that refused something of a job for good."""
    mine = (Delivery.job_id == job_id, Delivery.status == DeliveryStatus.REFUSED.value)
    return tuple(session.scalars(select(Delivery.destination).where(*mine).distinct().order_by(Delivery.destination)))


def send_again(session: Session, job_id: str, destination: str) -> int:
    """Make refused deliveries wait again, on an operator's word; the count of attempts goes on.

    Returns:
        How many wait again.
    """
    mine = (Delivery.job_id == job_id, Delivery.destination == destination)
    refused = session.scalars(select(Delivery).where(*mine, Delivery.status == DeliveryStatus.REFUSED.value)).all()
    for delivery in refused:
        delivery.status, delivery.next_attempt_at = DeliveryStatus.WAITING.value, None
    session.flush()
    return len(refused)
