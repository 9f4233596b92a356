"""The names of everything that the log tells: stable, because alarms and dashboards are built on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Event:
    """One kind of log line: the level it is written at, and what it means.

    A seldom one is written once a minute for each `where`, with the number `left_out` since.
    """

    level: str
    meaning: str
    seldom: bool = False


EVENTS: Mapping[str, Event] = MappingProxyType(
    {
        "settings.loaded": Event("info", "The settings were read and are in force."),
        "service.started": Event("info", "The service runs with all its processes."),
        "service.stopping": Event("info", "The service was asked to stop and finishes what it has begun."),
        "service.stopped": Event("info", "The service has stopped in good order."),
        "process.started": Event("info", "One process of the service was started."),
        "process.exited": Event("warning", "One process of the service ended; it is started again unless stopping."),
        "process.hung": Event("error", "A process said nothing for too long; it is killed and started again."),
        "process.failing": Event("error", "A process keeps ending soon after its start; it is tried ever more slowly."),
        "listener.ready": Event("info", "The port is open: associations are accepted."),
        "association.opened": Event("info", "A peer opened an association."),
        "association.rejected": Event("warning", "A peer's association was rejected, with the reason (PS3.8 9.3.4)."),
        "association.released": Event("info", "An association ended in good order."),
        "association.aborted": Event("warning", "An association was aborted by one of the sides or lost."),
        "echo.received": Event("info", "A peer verified the connection (C-ECHO)."),
        "instance.stored": Event("info", "An instance was kept on disk and in SQL, then acknowledged."),
        "instance.duplicate": Event("info", "An instance came again with the same bytes; nothing was stored."),
        "instance.conflict": Event(
            "warning",
            "An instance came again with other bytes; every version is kept. `counts`: whether jobs take this one.",
        ),
        "instance.refused": Event("warning", "An instance was refused with a failure status."),
        "series.complete": Event("info", "No instance of the series has arrived for the quiet period."),
        "series.skipped": Event("info", "A series is not of a kind that is segmented."),
        "series.refused": Event("info", "A rule of selection refuses a series; its job is parked with the reason."),
        "series.unselected": Event("info", "Another series of the same scan was preferred; its job is parked."),
        "series.reconsidered": Event(
            "info", "A series that was not selected is decided on again: the other one ended."
        ),
        "job.queued": Event("info", "A job was made, and queued in the same transaction."),
        "job.started": Event("info", "A worker began a job."),
        "job.stage": Event("info", "One stage of a job is done, with its time."),
        "job.done": Event("info", "A job is done: results written and recorded."),
        "job.parked": Event("warning", "A job was put aside for a reason that a person must read."),
        "job.failed": Event("error", "A job failed: a fault of the node, not of the series."),
        "job.retried": Event("info", "A job was queued again."),
        "job.late": Event("error", "A job is not finished long after it was made."),
        "flag.raised": Event(
            "info", "Something makes a scan less fit for measurement: its code, number, unit and policy."
        ),
        "device.exhausted": Event(
            "warning", "The device had too little memory for a scan, which is tried once more with half the batch."
        ),
        "result.written": Event("info", "A result object was written."),
        "delivery.sent": Event("info", "A destination accepted a result object."),
        "delivery.delayed": Event("warning", "A destination could not take a result object; it is tried again."),
        "delivery.refused": Event("error", "A destination refused a result object for good."),
        "delivery.resent": Event("info", "Refused result objects were queued again on an operator's word."),
        "disk.low": Event("warning", "Little space is left for the spool."),
        "disk.recovered": Event("info", "There is space enough again."),
        "database.lost": Event("error", "The database cannot be reached or written.", seldom=True),
        "database.migrated": Event("info", "The tables were brought to the version of this program."),
        "worker.ready": Event("info", "The worker holds its model and takes jobs."),
        "model.loaded": Event("info", "A model package was read and its digest checked."),
        "plugins.chosen": Event("info", "The parts that results are made with were chosen; each with who brings it."),
        "backend.chosen": Event(
            "info", "What runs the network was decided, for the reason given, and passed the gate."
        ),
        "spool.swept": Event("info", "Left-overs of an interruption were removed from the spool."),
        "log.suppressed": Event("warning", "Repeated lines of a library were left out; the count is given."),
        "log.library": Event("warning", "A line that a library wrote, with its name in `logger`."),
        "program.fault": Event("error", "An error that nobody foresaw reached a boundary: a bug."),
    }
)
