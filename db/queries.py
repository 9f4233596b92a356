"""Every question and every note, in one place to import from.

All are plain functions that take a `Session` first and leave the commit to its owner. Each may run twice, and two
callers may run the same one at once.
"""

from __future__ import annotations

from db.arrivals import (
    InstanceOutcome,
    OpenSeries,
    ReceivedInstance,
    lock_series,
    open_series,
    open_series_ids,
    record_instance,
    reopen_series,
    series_quiet_since,
)
from db.deliveries import (
    DeliveryAttempt,
    PendingDelivery,
    WaitingChain,
    pending_deliveries,
    plan_deliveries,
    record_delivery_attempt,
    refused_destinations,
    send_again,
    waiting_chains,
)
from db.jobs import (
    MeasurementRow,
    NewJob,
    ResultRow,
    create_job,
    fail_job,
    finish_job,
    job_files,
    park_job,
    record_measurements,
    record_results,
    requeue_job,
    start_job,
)
from db.listing import (
    DeliverySummary,
    JobSummary,
    count_jobs,
    deliveries_of,
    job_summary,
    jobs_of_series,
    list_jobs,
    measurements_of,
    results_of,
    unfinished_since,
)
from db.session import session_of

__all__ = [
    "DeliveryAttempt",
    "DeliverySummary",
    "InstanceOutcome",
    "JobSummary",
    "MeasurementRow",
    "NewJob",
    "OpenSeries",
    "PendingDelivery",
    "ReceivedInstance",
    "ResultRow",
    "WaitingChain",
    "count_jobs",
    "create_job",
    "deliveries_of",
    "fail_job",
    "finish_job",
    "job_files",
    "job_summary",
    "jobs_of_series",
    "list_jobs",
    "lock_series",
    "measurements_of",
    "open_series",
    "open_series_ids",
    "park_job",
    "pending_deliveries",
    "plan_deliveries",
    "record_delivery_attempt",
    "record_instance",
    "record_measurements",
    "record_results",
    "refused_destinations",
    "reopen_series",
    "requeue_job",
    "results_of",
    "send_again",
    "series_quiet_since",
    "session_of",
    "start_job",
    "unfinished_since",
    "waiting_chains",
]
