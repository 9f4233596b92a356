"""What is looked after every minute, because our own tables are the truth and the job engine's are not."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from db import queries
from db.session import now, transaction
from node import log
from node.jobs import JobQueue

LATE_AFTER = timedelta(minutes=30)


def mind_jobs(database: Engine, queue: JobQueue) -> None:
    """Mark the jobs as failed that the job engine gave up without a word, and tell of those that take too long."""
    with transaction(database) as session:
        unfinished = queries.unfinished_since(session, now())
    given_up = queue.lost([job.job_id for job in unfinished])
    for job in unfinished:
        if job.job_id in given_up:
            reason = f"the job engine gave it up ({given_up[job.job_id]})"
            with transaction(database) as session:
                queries.fail_job(session, job.job_id, "given_up", reason)
            log.event(
                "job.failed", job_id=job.job_id, correlation_id=job.correlation_id, code="given_up", reason=reason
            )
        elif now() - job.created_at > LATE_AFTER:
            log.event("job.late", job_id=job.job_id, correlation_id=job.correlation_id, status=job.status.value)


def mind_deliveries(database: Engine, queue: JobQueue) -> None:
    """Queue an attempt wherever something waits to be sent and the job engine knows of none to come."""
    with transaction(database) as session:
        chains = queries.waiting_chains(session)
    for chain in chains:
        if queue.on_its_way(chain.job_id, chain.destination):
            continue
        attempt = queue.next_attempt(chain.job_id, chain.destination)
        with transaction(database) as session:
            queue.deliver(session, chain.job_id, chain.destination, attempt)
        log.event(
            "delivery.delayed",
            job_id=chain.job_id,
            correlation_id=chain.correlation_id,
            destination=chain.destination,
            reason="its chain had ended",
        )
