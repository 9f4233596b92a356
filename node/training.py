"""What a training learns from, put together: the one place where the trainer meets DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_io.errors import SeriesParked
from dicom_io.seg_read import read_seg
from dicom_io.series import SeriesRules, SourceSeries, find_series, open_series, read_volume
from engine.evaluation.cases import LabelScheme
from engine.images import read_labels
from engine.labels import thigh29
from engine.synthesis.atlas import AtlasFolder
from engine.synthesis.builtin import BuiltIn
from engine.training.devices import open_machine
from engine.training.draws import Source
from engine.training.errors import TrainingError
from engine.training.loop import RunPlan, identity_of
from engine.training.pair_source import PairData, PairSource, Tell
from engine.training.pairs import Case, RawPair, find_cases, read_files, split
from engine.training.records import Identity, refuse_other
from engine.training.synthetic import SyntheticSource, stream_of, synthetic_plan

SEG_SUFFIX = ".dcm"
CACHE = "prepared"
ANY_STACK = SeriesRules(min_slices=2, min_coverage_mm=0.0)
"""Whoever gives labels to a series knows that it is worth learning from."""


@dataclass(frozen=True)
class DataPlan:
    """What to learn from.

    Attributes:
        folder: pairs of scans and labels; None for synthetic scans.
        fold: the fold of the pairs that validates, counted from 0.
        values: what the numbers in label files are.
        allow_missing: whether a structure may be in no label file.
        workers: processes that make windows; 0 makes them in this one, synthetic ones on the run's device.
        atlas: an atlas's folder that synthetic persons are drawn from beside the built-in anatomy.
    """

    folder: Path | None = None
    fold: int = 0
    values: LabelScheme = LabelScheme.SEGMENTS
    allow_missing: bool = False
    workers: int = 1
    atlas: Path | None = None


def training_data(plan: RunPlan, data: DataPlan, tell: Tell) -> tuple[Source, Identity]:
    """The data of a run, read and checked, and what the run is called by.

    Args:
        plan: of the run.
        data: what to learn from.
        tell: told of the cases that are ready.

    Raises:
        TrainingError: the device is absent, the folder belongs to another run, or the data cannot be learnt from.
        VastusError: a file is unreadable; the error names it.
    """
    open_machine(plan.device, plan.preset.precision)  # refused before anything is read
    if data.folder is None:
        synthetic_plan(plan.preset)
        atlas = None if data.atlas is None else str(data.atlas)
        identity = identity_of(plan, {"kind": "synthetic", "atlas": atlas, "lanes": max(1, data.workers)})
        refuse_other(plan.folder, identity)
        anatomies = (BuiltIn(), *(() if data.atlas is None else (AtlasFolder(data.atlas),)))
        make = stream_of(anatomies, plan.preset.preprocessing, "cpu" if data.workers else plan.device)
        return SyntheticSource(make, plan.preset, plan.seed, data.workers), identity
    cases = find_cases(data.folder, (SEG_SUFFIX,))
    identity = identity_of(plan, _told(data, cases))
    refuse_other(plan.folder, identity)
    train, held_out = split(cases, plan.preset.pairs.folds, plan.preset.pairs.split_seed, data.fold)
    pairs = PairData(train, held_out, read_any, data.values, thigh29(), data.allow_missing)
    source = PairSource(pairs, plan.preset, plan.seed, data.workers, plan.folder / CACHE)
    source.prepare(tell)
    return source, identity


def _told(data: DataPlan, cases: tuple[Case, ...]) -> Mapping[str, Any]:
    names = [case.name for case in cases]
    return {"kind": "pairs", "folder": str(data.folder), "fold": data.fold, "values": data.values, "cases": names}


def read_any(case: Case) -> RawPair:
    """Read a pair: NIfTI or NRRD files, the folder of a DICOM series, a DICOM SEG of that series.

    Raises:
        TrainingError: the folder holds several series or none that is a volume, or a SEG has no series beside it.
        VastusError: a file is unreadable; the error names it.
    """
    is_seg = case.labels.name.lower().endswith(SEG_SUFFIX)
    if not case.image.is_dir():
        if is_seg:
            reason = f"it is a DICOM SEG, but its scan {case.image} is no DICOM series"
            remedy = "Put the folder of the series there, or give the labels as NIfTI or NRRD"
            raise TrainingError(f"file {case.labels}", reason, remedy)
        return read_files(case)
    try:
        source = _series(case.image)
        volume = read_volume(source)
    except SeriesParked as parked:
        raise TrainingError(f"folder {case.image}", parked.reason, parked.remedy) from parked
    if is_seg:
        found = read_seg(case.labels, source, thigh29())
        return RawPair(volume, found.labels, found.grid, LabelScheme.SEGMENTS)
    labels, grid = read_labels(case.labels)
    return RawPair(volume, labels, grid)


def _series(folder: Path) -> SourceSeries:
    found = find_series(folder)
    if len(found) > 1:
        reason = f"it holds {len(found)} series"
        raise TrainingError(f"folder {folder}", reason, "Leave the one that the labels belong to")
    return open_series(found[0], ANY_STACK)
