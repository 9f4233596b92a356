"""One instance on its way in: to the disk, understood, named, remembered, and only then acknowledged.

No pixel is decoded, and nothing of the network is known here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.errors import DatabaseUnreachable
from db.queries import Changed, InstanceOutcome, ReceivedInstance, record_instance
from db.session import now, transaction
from dicom_io.errors import NotUnderstood
from dicom_io.header import InstanceHeader, read_header
from node import log
from node.errors import SpoolFull
from node.spool import Kept, SpaceWatch, Spool
from node.status import CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES, SUCCESS, store_status

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError, DatabaseUnreachable)
"""What is raised where the database cannot be reached, is locked for too long, or has no space."""

_UID = re.compile(r"[0-9.]{1,64}")  # laxer than PS3.5 9.1: leading zeros occur in real objects and do no harm


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request.

    Attributes:
        sop_class_uid: Affected SOP Class UID (0000,0002) of the request.
        sop_instance_uid: Affected SOP Instance UID (0000,1000) of the request.
        calling_ae: AE title of the sender.
        content: callable that gives the DICOM file: the data set exactly as received, behind File Meta Information.
    """

    sop_class_uid: str
    sop_instance_uid: str
    calling_ae: str
    content: Callable[[], bytes]


@dataclass(frozen=True)
class Answer:
    """What the sender is told.

    Attributes:
        code: Status (0000,0900).
        comment: Error Comment (0000,0902); empty for none. At most 64 characters.
        what: for the log and the counts: `stored`, `duplicate`, `conflict` or `refused`.
        size_bytes: size of the file.
        series_uid: the series, where it is known.
    """

    code: int
    comment: str
    what: str
    size_bytes: int = 0
    series_uid: str = ""


class InstanceRecorder(Protocol):
    """Remembers an instance in SQL, in a transaction of its own."""

    def __call__(self, instance: ReceivedInstance, /) -> InstanceOutcome:
        """Commit, then return. May be called twice with the same instance."""
        ...


def sql_recorder(engine: Engine, changed: Changed = Changed.KEEP) -> InstanceRecorder:
    """A recorder that remembers each instance in one transaction of a database.

    Args:
        engine: the database.
        changed: what becomes of an instance that comes again with other bytes.
    """

    def record(instance: ReceivedInstance, /) -> InstanceOutcome:
        with transaction(engine) as session:
            return record_instance(session, instance, changed)

    return record


class _Refusal(Exception):  # noqa: N818 - ends the path of an instance, and never leaves this file
    """Why an instance is refused: the status, the comment for the sender, the reason for the log."""

    def __init__(self, code: int, comment: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.comment = comment
        self.reason = reason


class Intake:
    """Takes instances in.

    Args:
        spool: where the bytes go.
        record: how they are remembered.
        hard_free_bytes: below this free space nothing is taken.
    """

    def __init__(self, spool: Spool, record: InstanceRecorder, hard_free_bytes: int) -> None:
        self._spool = spool
        self._record = record
        self._space = SpaceWatch(spool, hard_free_bytes)

    def take(self, arrival: Arrival, sends: Callable[[str], None]) -> Answer:
        """Keep one instance: part file, header, name, SQL, in this order.

        Args:
            arrival: the request.
            sends: told the series' UID as soon as it is known, before SQL knows of the instance.

        Returns:
            Success only when file, folder and SQL are on the disk. After any other answer no part file
            remains, and no row unless a commit was cut off; an object that was not understood or did not match
            lies in quarantine.

        Raises:
            SpoolError: the disk fails, but not for want of space.
        """
        try:
            return self._take(arrival, sends)
        except _Refusal as refusal:
            code, comment, reason = refusal.code, refusal.comment, refusal.reason
        except SpoolFull as full:
            code, comment, reason = OUT_OF_RESOURCES, "No space left on the disk", full.reason
        except DATABASE_AWAY as away:
            log.event("database.lost", error=away, where="C-STORE")
            code, comment, reason = OUT_OF_RESOURCES, "Database not available", "the database is not available"
        log.event(
            "instance.refused",
            status=store_status(code).hex,
            reason=reason,
            calling_ae=arrival.calling_ae,
            sop_instance_uid=_fit_for_log(arrival.sop_instance_uid),
        )
        return Answer(code, comment, "refused")

    def _take(self, arrival: Arrival, sends: Callable[[str], None]) -> Answer:
        for name, uid in (("Class", arrival.sop_class_uid), ("Instance", arrival.sop_instance_uid)):
            if not _UID.fullmatch(uid):
                raise _Refusal(CANNOT_UNDERSTAND, f"SOP {name} UID is no UID", "the request names a UID that is none")
        content = arrival.content()
        if not self._space.room_for(len(content)):
            raise _Refusal(OUT_OF_RESOURCES, "Not enough free disk space", "free space is below the hard limit")
        sha256 = hashlib.sha256(content).hexdigest()
        part = self._spool.receive(content)
        try:
            header = self._understand(part, arrival, sha256)
            sends(header.series_uid)
            kept = self._spool.keep(part, header.series_uid, sha256)
            # Where SQL fails the file stays: the commit may have happened, and a second attempt has the same name.
            outcome = self._record(_row(header, arrival, kept, sha256, len(content)))
        finally:
            self._spool.discard(part)  # gone after `keep` and `quarantine`
        return _acknowledge(header, arrival, outcome, len(content))

    def _understand(self, part: Path, arrival: Arrival, sha256: str) -> InstanceHeader:
        """Read the header and compare it with the request; what fails goes to quarantine."""
        try:
            header = read_header(part)
        except NotUnderstood as error:
            path = self._spool.quarantine(part, sha256)
            raise _Refusal(
                CANNOT_UNDERSTAND, "Data set not understood", f"{error.reason}; kept as {path.name}"
            ) from None
        for name, asked, found in (
            ("SOP Class UID", arrival.sop_class_uid, header.sop_class_uid),
            ("SOP Instance UID", arrival.sop_instance_uid, header.sop_instance_uid),
        ):
            if asked != found:
                path = self._spool.quarantine(part, sha256)
                reason = f"{name} of the data set is not that of the request; kept as {path.name}"
                raise _Refusal(DOES_NOT_MATCH, f"{name} of data set and request differ", reason)
        return header


def _row(header: InstanceHeader, arrival: Arrival, kept: Kept, sha256: str, size_bytes: int) -> ReceivedInstance:
    return ReceivedInstance(
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        modality=header.modality,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        calling_ae=arrival.calling_ae,
        path=kept.relative,
        sha256=sha256,
        size_bytes=size_bytes,
        received_at=now(),
    )


def _acknowledge(header: InstanceHeader, arrival: Arrival, outcome: InstanceOutcome, size_bytes: int) -> Answer:
    what = "duplicate" if outcome.duplicate else "conflict" if outcome.conflict else "stored"
    counts = {"counts": not outcome.set_aside} if outcome.conflict else {}
    log.event(
        f"instance.{what}",
        **counts,
        correlation_id=outcome.correlation_id,
        calling_ae=arrival.calling_ae,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        size_bytes=size_bytes,
    )
    return Answer(SUCCESS, "", what, size_bytes, header.series_uid)


def _fit_for_log(uid: str) -> str:
    return uid if _UID.fullmatch(uid) else "[not a UID]"
