"""A sender's work: one attempt to deliver a job's results to one destination, and the next one when it is needed.

One attempt is one short workflow. Where something is still to be sent it queues its successor with a delay and ends:
no thread waits for a PACS that is down, and the fixed id of the successor prevents a second chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import Engine

from db import queries
from db.models import Job
from db.session import now, transaction
from db.status import DeliveryStatus
from node import log
from node.deliver import Answer, Destination, ResultObject, SenderRules, retry_delay_s, send
from node.executor import JobEngine
from node.faults import words_of
from node.jobs import JobQueue
from node.pipeline import StepReport, StepRunner
from node.spool import Spool
from node.status import StoreOutcome

_STATUS = {
    StoreOutcome.ACCEPTED: DeliveryStatus.ACCEPTED,
    StoreOutcome.WARNING: DeliveryStatus.WARNING,
    StoreOutcome.LATER: DeliveryStatus.WAITING,
    StoreOutcome.REFUSED: DeliveryStatus.REFUSED,
}
_EVENT = {
    StoreOutcome.ACCEPTED: "delivery.sent",
    StoreOutcome.WARNING: "delivery.sent",
    StoreOutcome.LATER: "delivery.delayed",
    StoreOutcome.REFUSED: "delivery.refused",
}


@dataclass(frozen=True)
class SendingPlan:
    """To whom and how results are sent.

    Attributes:
        destinations: by their names.
        rules: how we call.
        first_retry_s: wait before the second attempt.
        longest_retry_s: longest wait between two attempts.
    """

    destinations: Mapping[str, Destination]
    rules: SenderRules
    first_retry_s: float
    longest_retry_s: float


@dataclass(frozen=True)
class Sender:
    """Delivers.

    Attributes:
        database: the node's database.
        spool: where the results lie.
        plan: to whom and how.
        queue: where the next attempt is queued.
        engine: the job engine of this process.
        run_step: how a step is run: by the engine, unless a test stands in between.
    """

    database: Engine
    spool: Spool
    plan: SendingPlan
    queue: JobQueue
    engine: JobEngine
    run_step: StepRunner

    def run(self, job_id: str, destination: str, attempt: int) -> str:
        """The workflow `deliver`. Returns `done`, or `again` where another attempt was queued.

        Args:
            job_id: whose results.
            destination: name of the destination.
            attempt: number of this attempt, from 0.
        """

        def correlation_id() -> str:
            with transaction(self.database) as session:
                return session.get_one(Job, job_id).series.correlation_id

        with log.correlated(self.engine.patiently(correlation_id)):
            report = self.run_step("send", partial(self._send, job_id, destination, attempt))
            if not report.counts["waiting"]:
                return "done"
            self.run_step("again", partial(self._again, job_id, destination, attempt))
            return "again"

    def _send(self, job_id: str, destination: str, attempt: int) -> StepReport:
        """Send what is pending. What was accepted before a crash is not pending, so it is not sent again."""
        pending = self.engine.patiently(partial(self._pending, job_id, destination))
        unheard = [each.kind for each in pending]
        counts = {"accepted": 0, "waiting": 0, "refused": 0}

        def heard(answer: Answer) -> None:
            self._remember(job_id, destination, attempt, answer)
            unheard.remove(answer.kind)
            kind = {StoreOutcome.LATER: "waiting", StoreOutcome.REFUSED: "refused"}.get(answer.outcome, "accepted")
            counts[kind] += 1

        try:
            self._call(job_id, destination, pending, heard)
        except Exception as error:  # noqa: BLE001 - boundary of a step: the reason goes into SQL, and the chain goes on
            log.event("program.fault", error=error)
            for kind in list(unheard):
                heard(Answer(kind, StoreOutcome.LATER, None, words_of(error)))
        return StepReport(0.0, counts)

    def _pending(self, job_id: str, destination: str) -> tuple[queries.PendingDelivery, ...]:
        with transaction(self.database) as session:
            return queries.pending_deliveries(session, job_id, destination)

    def _call(
        self,
        job_id: str,
        destination: str,
        pending: Sequence[queries.PendingDelivery],
        heard: Callable[[Answer], None],
    ) -> None:
        peer = self.plan.destinations.get(destination)
        if peer is None:
            unknown = f"the settings name no destination {destination}"
            remedy = f"Enter it, start the service again, then use vastus jobs --resend {job_id}"
            for each in pending:
                heard(Answer(each.kind, StoreOutcome.REFUSED, None, f"{unknown}. {remedy}"))
        elif pending:
            folder = self.spool.results_folder(job_id).parent
            objects = [ResultObject(each.kind, folder / each.path, each.sha256) for each in pending]
            send(objects, peer, self.plan.rules, heard)

    def _remember(self, job_id: str, destination: str, attempt: int, answer: Answer) -> None:
        at = now()
        later = answer.outcome is StoreOutcome.LATER
        told = queries.DeliveryAttempt(
            job_id=job_id,
            destination=destination,
            kind=answer.kind,
            number=attempt + 1,
            status=_STATUS[answer.outcome],
            dicom_status=answer.code,
            comment=answer.words,
            attempted_at=at,
            next_attempt_at=at + timedelta(seconds=self._delay_s(attempt)) if later else None,
        )

        def note() -> None:
            with transaction(self.database) as session:
                queries.record_delivery_attempt(session, told)

        self.engine.patiently(note)
        log.event(
            _EVENT[answer.outcome],
            job_id=job_id,
            destination=destination,
            kind=answer.kind,
            status=None if answer.code is None else f"{answer.code:04X}",
            reason=answer.words,
            attempt=attempt + 1,
        )

    def _again(self, job_id: str, destination: str, attempt: int) -> StepReport:
        self.queue.deliver(self.engine.session(), job_id, destination, attempt + 1, self._delay_s(attempt))
        return StepReport(0.0, {})

    def _delay_s(self, attempt: int) -> float:
        return retry_delay_s(attempt, self.plan.first_retry_s, self.plan.longest_retry_s)
