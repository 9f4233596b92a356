"""The words that a job and a delivery can be described with."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    PARKED = "parked"
    """Kept, not segmented, for a reason that a radiographer understands."""
    FAILED = "failed"


class DeliveryStatus(StrEnum):
    """Where one object stands on its way to one destination."""

    WAITING = "waiting"
    """Not sent yet, or to be tried again."""
    ACCEPTED = "accepted"
    WARNING = "warning"
    """Accepted with a warning status."""
    REFUSED = "refused"
    """Refused for good: an operator must act."""
