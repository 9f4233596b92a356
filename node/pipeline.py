"""The whole life of a series, top to bottom: read, check, segment, measure, write, record, deliver.

`process` is an ordinary function. Under the job engine each step is checkpointed, and after a crash the job goes on at
the step that was interrupted; on the command line the same steps simply run. Every step may run twice with the same
result. Steps hand each other files in the job's folder; what is checkpointed is a small report, never pixels and never
a patient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

STEPS = ("read", "check", "segment", "measure", "write", "record", "deliver", "finish")
"""The steps of a job that is not parked, in their order."""


@dataclass(frozen=True)
class Parked:
    """An expected end: the series is kept, but not segmented, for a reason that a radiographer understands.

    Attributes:
        code: stable key of the reason, as `not_ct`.
        reason: the reason in words.
    """

    code: str
    reason: str


RETRIABLE: Mapping[str, str] = MappingProxyType(
    {
        "out_of_memory": "That may pass: when the device has room again, set the job going with vastus jobs --retry",
        "another_model": "Set the job going with vastus jobs --retry: it then takes the model that the settings name",
    }
)
"""Codes of parked jobs that may run again, with the words that tell so."""

Counts = Mapping[str, int]
"""What a stage counted, as `{"slices": 450}`."""

Stage = Callable[[], Counts | Parked]
"""One stage. It returns an expected failure as a value; it raises only for bugs and failing machines."""


@dataclass(frozen=True)
class StepReport:
    """What a step leaves in the checkpoint: how long it took, what it counted, and whether the series is parked."""

    seconds: float
    counts: dict[str, int]
    parked: Parked | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: done or parked, with the seconds and counts of its stages."""

    stage_seconds: dict[str, float]
    counts: dict[str, int]
    parked: Parked | None = None


class StepRunner(Protocol):
    """Runs one named step: plainly, or with a checkpoint so that it is not repeated after a crash."""

    def __call__(self, name: str, step: Callable[[], StepReport]) -> StepReport:
        """Run the step, or return the report of the time when it ran."""
        ...


class Stages(Protocol):
    """The work behind the steps."""

    def read(self) -> Counts | Parked:
        """Turn the files of the series into one volume."""
        ...

    def check(self) -> Counts | Parked:
        """See whether the volume shows two thighs."""
        ...

    def segment(self) -> Counts | Parked:
        """Label every voxel."""
        ...

    def measure(self) -> Counts | Parked:
        """Measure every structure on each side."""
        ...

    def write(self) -> Counts | Parked:
        """Write the DICOM results."""
        ...

    def record(self) -> Counts | Parked:
        """Remember figures and results."""
        ...

    def deliver(self) -> Counts | Parked:
        """Send the results on their way, one chain of attempts for each destination."""
        ...

    def park(self, parked: Parked) -> Counts:
        """Remember that the series is parked, and why."""
        ...

    def finish(self, outcome: Outcome) -> Counts:
        """Remember that the job is done."""
        ...

    def tidy(self) -> None:
        """Remove the job's working files."""
        ...


def process(stages: Stages, run_step: StepRunner) -> Outcome:
    """Take one series from its files to its results.

    Args:
        stages: the work.
        run_step: how a step is run.

    Returns:
        How the job ended. A parked series ends the job at once and is no error.
    """
    outcome = Outcome({}, {})
    for name, stage in (
        ("read", stages.read),  # the files become one volume in Hounsfield units
        ("check", stages.check),  # two thighs, or a reason why not
        ("segment", stages.segment),  # a label for every voxel of the scanner's own grid
        ("measure", stages.measure),  # volume and attenuation of every structure and side
        ("write", stages.write),  # DICOM SEG, structured report and picture page
        ("record", stages.record),  # figures and results in SQL
        ("deliver", stages.deliver),  # queued for every destination
    ):
        report = run_step(name, partial(_timed, stage))
        outcome = _with(outcome, name, report)
        if report.parked is not None:
            run_step("park", partial(_timed, partial(stages.park, report.parked)))
            break
    else:
        run_step("finish", partial(_timed, partial(stages.finish, outcome)))
    stages.tidy()  # no step: when a crash comes before it, the whole function is replayed and tidies then
    return outcome


def run_plainly(name: str, step: Callable[[], StepReport]) -> StepReport:
    """The step runner of the command line: no checkpoint."""
    return step()


def _timed(stage: Stage) -> StepReport:
    started = time.monotonic()
    found = stage()
    seconds = round(time.monotonic() - started, 3)
    return StepReport(seconds, {}, found) if isinstance(found, Parked) else StepReport(seconds, dict(found))


def _with(outcome: Outcome, name: str, report: StepReport) -> Outcome:
    return Outcome({**outcome.stage_seconds, name: report.seconds}, {**outcome.counts, **report.counts}, report.parked)
