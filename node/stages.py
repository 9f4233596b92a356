"""The work behind the steps of the pipeline.

What one stage leaves for the next lies in the job's folder as a file that is whole or not there, so that every stage
may run twice, in another process, after a crash.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dicom_io.acquisition import acquisition_of
from dicom_io.errors import SeriesParked
from dicom_io.files import write_durably
from dicom_io.findings import Findings, Provenance, ResultRequest
from dicom_io.kernels import NO_KERNELS, OwnKernels
from dicom_io.patient import patient_attributes
from dicom_io.results import ResultFile, write_results
from dicom_io.series import SeriesRef, SeriesRules, SourceSeries, open_series, write_volume
from dicom_io.uids import ResultUids
from dicom_io.writers import OUR_WRITERS, Writer
from engine.errors import DeviceMemoryError, SideError, VastusError
from engine.fitness import NotThighs, find_thighs
from engine.fitness_checks import after_segmentation, before_segmentation, coverage_flags
from engine.flags import DEFAULT_POLICIES, Flag, Policy, RaisedFlag, judged
from engine.labels import LabelSet
from engine.measure import Measurements, measure
from engine.package import ModelPackage
from engine.plugins import Credit
from engine.segmentation import Segmentation
from engine.volume import Volume
from node import log
from node.errors import JobsError
from node.job_files import (
    grid_json,
    grid_of,
    load_flags,
    load_json,
    measurement_json,
    measurement_of,
    result_json,
    result_of,
    save_array,
    save_flags,
    save_json,
)
from node.made_by import MadeBy, made_by_in
from node.pipeline import RETRIABLE, Counts, Outcome, Parked, Stage


class Segments(Protocol):
    """What labels a volume; `engine.segment.Segmenter` does."""

    def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
        """Label every voxel; `progress` is told the windows done and the windows in all."""
        ...


@runtime_checkable
class SegmentsThriftily(Segments, Protocol):
    """A segmenter that can do with less of its device's memory."""

    def with_half_batch(self) -> Segments:
        """The same with half as many windows at a time."""
        ...


@dataclass(frozen=True)
class JobOrder:
    """What a job is made of: fixed before any work starts, so that a repeat gives the same bytes.

    Attributes:
        job_id: the job, and its folder's name.
        source: the files of the series that this job is made of.
        uids: UIDs of the results.
        created_at: the time that the results bear.
        folder: the job's own folder in the spool.
    """

    job_id: str
    source: SeriesRef
    uids: ResultUids
    created_at: datetime
    folder: Path


@dataclass(frozen=True)
class Workshop:
    """What a worker keeps from job to job.

    Attributes:
        package: the model, for the provenance of the results.
        segmenter: the warm network.
        backend: name of what runs the network.
        precision: arithmetic of the network, as `float32`.
        rules: which series are taken.
        software_version: our version.
        writers: what makes the results, in the order of sending.
        plugins: whose the backend, the model and the writers are.
        policies: what each flag means, by its code.
        kernels: what the site says of its reconstruction kernels.
    """

    package: ModelPackage
    segmenter: Segments
    backend: str
    precision: str
    rules: SeriesRules
    software_version: str
    writers: tuple[Writer, ...] = OUR_WRITERS
    plugins: tuple[Credit, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=lambda: DEFAULT_POLICIES)
    kernels: OwnKernels = NO_KERNELS

    @property
    def made_by(self) -> MadeBy:
        """Who segments here, and with what."""
        package = self.package
        return MadeBy(
            backend=self.backend,
            precision=self.precision,
            model_digest=package.digest,
            model_name=package.name,
            model_version=package.version,
            intended_use=package.intended_use,
            training_statement=package.training_statement,
            attribution=package.attribution,
            plugins=self.plugins,
        )

    def provenance(self, job_id: str, created_at: datetime, made_by: MadeBy | None = None) -> Provenance:
        """Who makes the results of a job, and with what.

        Args:
            job_id: the job.
            created_at: the time that the results bear; aware.
            made_by: who segmented, with this model; None: this workshop.
        """
        package, made_by = self.package, made_by or self.made_by
        return Provenance(
            job_id=job_id,
            created_at=created_at.astimezone(),  # a viewer shows it beside the scanner's local times
            software_version=self.software_version,
            model_name=package.name,
            model_version=package.version,
            model_digest=package.digest,
            intended_use=package.intended_use,
            training_phrase=package.training_phrase,
            training_statement=package.training_statement,
            attribution=package.attribution,
            backend=made_by.backend,
            precision=made_by.precision,
            parts=made_by.plugins,
        )


class Ledger(Protocol):
    """What remembers a job: SQL on the node, nothing but the folder on the command line."""

    def record(self, order: JobOrder, measurements: Measurements, files: tuple[ResultFile, ...]) -> Counts:
        """Remember figures and results."""
        ...

    def note_flags(self, order: JobOrder, raised: tuple[RaisedFlag, ...]) -> Counts:
        """Remember what makes the scan less fit for measurement, in the step that records or parks the job."""
        ...

    def deliver(self, order: JobOrder) -> Counts:
        """Queue the results for every destination."""
        ...

    def park(self, order: JobOrder, parked: Parked) -> Counts:
        """Remember why the series is not segmented."""
        ...

    def finish(self, order: JobOrder, outcome: Outcome, made_by: MadeBy) -> Counts:
        """Remember that the job is done, and who made its results."""
        ...


EXPECTED: tuple[tuple[type[VastusError], str], ...] = (
    (NotThighs, "not_thighs"),
    (SideError, "sides_unclear"),
    (DeviceMemoryError, "out_of_memory"),
)
"""Errors that end a job as parked, with the key of the reason; `SeriesParked` brings its own key."""


class SeriesStages:
    """The stages of one job.

    Args:
        order: what the job is made of.
        workshop: the warm model and the rules.
        ledger: what remembers the job.
        progress: told the windows done and the windows in all.
    """

    def __init__(
        self, order: JobOrder, workshop: Workshop, ledger: Ledger, progress: Callable[[int, int], None]
    ) -> None:
        self._order = order
        self._workshop = workshop
        self._ledger = ledger
        self._progress = progress
        self._work = order.folder / "work"
        self._results = order.folder / "results"
        self._opened: SourceSeries | None = None

    def read(self) -> Counts | Parked:
        """The files become `volume.npy` and `grid.json`."""

        def load() -> Counts:
            source = self._source()
            self._work.mkdir(parents=True, exist_ok=True)
            write_durably(self._work / "volume.npy", partial(write_volume, source))
            save_json(self._work / "grid.json", grid_json(source.grid))
            repeats = {"repeated_slices": source.repeats} if source.repeats else {}
            return {"slices": source.grid.shape[0], **repeats}

        return _expecting(load)

    def check(self) -> Counts | Parked:
        """What the model expects to see, or a reason why not; and the flags that are known before it is asked."""

        def look() -> Counts | Parked:
            volume, span = self._volume(), None
            if self._workshop.package.expects == "thighs":
                span = find_thighs(volume)
            headers, population = self._source().headers, self._workshop.package.ages_years
            patient = patient_attributes(headers)
            acquisition = acquisition_of(headers, patient.age_years, population, self._workshop.kernels)
            found = (*patient.flags, *before_segmentation(volume, acquisition))
            # The labels tell better what of the limbs is missing; but a job that is refused for it need not wait.
            early = () if span is None else tuple(filter(self._refuses, coverage_flags(span)))
            return self._raised("check", (*found, *early))

        return _expecting(look)

    def segment(self) -> Counts | Parked:
        """The volume becomes `labels.npy`, and beside it lies who made it."""

        def label() -> Counts | Parked:
            segmentation = self._labelled()
            save_array(self._work / "labels.npy", segmentation.labels)
            self._workshop.made_by.save(self._work)
            # Slice by slice: counting the whole array at once would need eight times its memory.
            present = {int(label) for plane in segmentation.labels for label in np.flatnonzero(np.bincount(plane.flat))}
            if not present - {0}:
                return Parked("nothing_found", "The network found none of its structures in the scan.")
            return {"segments": len(present - {0})}

        return _expecting(label)

    def measure(self) -> Counts | Parked:
        """Volume and labels become `measurements.json`, and the flags that the labels tell."""
        volume, segmentation = self._volume(), self._segmentation()
        measurements = measure(volume, segmentation)
        rows = [measurement_json(row) for row in measurements.segments]
        save_json(self._work / "measurements.json", rows)
        flagged = self._raised("measure", after_segmentation(volume, segmentation, measurements))
        if isinstance(flagged, Parked):
            return flagged
        truncated = sum(row.truncated for row in measurements.segments)
        return {"measurements": len(rows), "truncated": truncated, **flagged}

    def write(self) -> Counts | Parked:
        """Everything becomes DICOM objects in the folder `results`."""
        source = self._source()  # was read before: that it cannot be read now is a failure, no reason to park
        findings = Findings(self._volume(), self._segmentation(), self._measurements(), load_flags(self._work))
        self._results.mkdir(parents=True, exist_ok=True)
        made_by = self._made_by().with_writers_of(self._workshop.plugins)
        provenance = self._workshop.provenance(self._order.job_id, self._order.created_at, made_by)
        request = ResultRequest(source, findings, provenance, self._order.uids)
        results = write_results(request, self._results, self._workshop.writers)
        made_by.save(self._work)
        save_json(self._work / "results.json", [result_json(file) for file in results.files])
        return {"results": len(results.files), "result_bytes": sum(file.size_bytes for file in results.files)}

    def record(self) -> Counts | Parked:
        """Figures, results and flags go into SQL."""
        self._ledger.note_flags(self._order, load_flags(self._work))
        files = tuple(result_of(row, self._results) for row in load_json(self._work / "results.json"))
        return self._ledger.record(self._order, self._measurements(), files)

    def deliver(self) -> Counts | Parked:
        """The results are queued for every destination."""
        return self._ledger.deliver(self._order)

    def park(self, parked: Parked) -> Counts:
        """The reason goes into SQL, and the flags as far as they are known."""
        self._ledger.note_flags(self._order, load_flags(self._work))
        return self._ledger.park(self._order, parked)

    def finish(self, outcome: Outcome) -> Counts:
        """The times go into SQL; the job is done."""
        return self._ledger.finish(self._order, outcome, self._made_by())

    def tidy(self) -> None:
        """The folder `work` goes; results stay until they are purged."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _refuses(self, flag: Flag) -> bool:
        return self._workshop.policies.get(flag.code) is Policy.REFUSE

    def _raised(self, stage: str, flags: Iterable[Flag]) -> Counts | Parked:
        """Keep and tell the flags of a stage; those by whose policy there are no results park the job."""
        raised = judged(flags, self._workshop.policies)
        save_flags(self._work, stage, raised)
        for each in raised:
            facts = {"code": each.flag.code, "number": each.flag.number, "unit": each.flag.unit}
            words = {"policy": each.policy.value, "words": each.flag.words}
            log.event("flag.raised", job_id=self._order.job_id, **facts, **words)
        refused = [each.flag for each in raised if each.policy is Policy.REFUSE]
        if refused:
            return Parked(refused[0].code, " ".join(flag.words for flag in refused))
        return {f"flags_{stage}": len(raised)}

    def _labelled(self) -> Segmentation:
        """The scan, segmented; once more with half the batch where the memory of the device did not suffice."""
        segmenter, volume = self._workshop.segmenter, self._volume()
        try:
            return segmenter.segment(volume, self._progress)
        except DeviceMemoryError as error:
            if not isinstance(segmenter, SegmentsThriftily):
                raise
            log.event("device.exhausted", error=error, job_id=self._order.job_id)
        return segmenter.with_half_batch().segment(volume, self._progress)

    def _source(self) -> SourceSeries:
        """The opened series: kept, because `write` needs it again, and a series of a job does not change."""
        if self._opened is None:
            self._opened = open_series(self._order.source, self._workshop.rules)
        return self._opened

    def _volume(self) -> Volume:
        hu = cast(NDArray[np.int16], np.load(self._work / "volume.npy", mmap_mode="r"))
        return Volume(hu, grid_of(load_json(self._work / "grid.json"), (hu.shape[0], hu.shape[1], hu.shape[2])))

    def _made_by(self) -> MadeBy:
        """Who segmented; where the folder does not say, this workshop."""
        return made_by_in(self._work) or self._workshop.made_by

    def _label_set(self) -> LabelSet:
        """The label set of what segmented: the numbers of the labels mean nothing in another model's.

        Raises:
            JobsError: another model segmented.
        """
        theirs, ours = self._made_by(), self._workshop.made_by
        if theirs.model_digest != ours.model_digest:
            job_id = self._order.job_id
            reason = f"it was segmented with the model {theirs.model}, and this worker has {ours.model}"
            raise JobsError(f"job {job_id}", reason, f"Segment it anew: vastus jobs --retry {job_id}")
        return self._workshop.package.label_set

    def _segmentation(self) -> Segmentation:
        label_set = self._label_set()
        labels = cast(NDArray[np.uint8], np.load(self._work / "labels.npy", mmap_mode="r"))
        return Segmentation(labels, self._volume().grid, label_set)

    def _measurements(self) -> Measurements:
        label_set = self._label_set()
        rows = load_json(self._work / "measurements.json")
        return Measurements(tuple(measurement_of(row, label_set) for row in rows))


def _expecting(stage: Stage) -> Counts | Parked:
    """Turn an expected error into a value; where it may pass, its words say what then."""
    try:
        return stage()
    except SeriesParked as expected:
        return Parked(expected.code, str(expected))
    except tuple(kind for kind, _ in EXPECTED) as expected:
        code = next(code for kind, code in EXPECTED if isinstance(expected, kind))
        return Parked(code, " ".join(filter(None, (str(expected), RETRIABLE.get(code)))))
