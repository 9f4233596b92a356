"""Judges a model package on held-out scans, through the very path that the service uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from engine.backends import AUTO, SessionOptions, open_session
from engine.evaluation.cases import Case, LabelScheme, RegionKind, regions_of
from engine.evaluation.scores import Presence, RegionScore, score_case
from engine.labels import Structure, thigh29
from engine.package import ModelPackage, load_package
from engine.segment import Segmenter
from engine.synthesis.anatomy import AnatomySource
from engine.synthesis.atlas import AtlasFolder
from engine.synthesis.builtin import BuiltIn
from engine.training.card import Judgement, ScanTypeScore, StructureScore, Totals
from engine.training.held_out import SCAN_TYPES, HeldOutScans, ScanType, type_of

OVERLAP = 0.25


@dataclass(frozen=True)
class _Trial:
    """What one process needs to judge scans: the package's folder, the atlas's, and the rounds."""

    package: Path
    atlas: Path | None
    rounds: int

    def scans(self) -> HeldOutScans:
        """The scans, to be segmented with the package."""
        package = load_package(self.package)
        sources: dict[str, AnatomySource] = {"built-in": BuiltIn()}
        if self.atlas is not None:
            sources["atlas"] = AtlasFolder(self.atlas)
        return HeldOutScans(
            Segmenter(package, open_session(AUTO, package, SessionOptions(1)), OVERLAP), sources, self.rounds
        )


_scans_of = cache(_Trial.scans)


def judge(package: ModelPackage, atlas: Path | None, rounds: int = 2) -> Judgement:
    """Judge a package, as many scans at a time as there are cores; the same package gives the same judgement.

    A structure that a scan does not show, and that is not found in it, is left out. One that is missed or invented
    counts with Dice 0; surface distances are means over those that were found.

    Args:
        package: the model.
        atlas: an atlas's folder beside the built-in anatomy; None for that alone.
        rounds: scans of each kind and anatomy.

    Raises:
        VastusError: the atlas cannot be read, or a scan cannot be segmented.
    """
    trial = _Trial(package.folder, atlas, rounds)
    names = trial.scans().names
    scores: list[RegionScore] = []
    wrong_sides = 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for number, (name, found, wrong) in enumerate(pool.map(_judged, repeat(trial), names), start=1):
            wrong_sides += wrong
            scores.extend(found)
            mean = _mean([score.scores.dice for score in found if score.scores])
            print(f"judged on scan {number} of {len(names)} ({name}): Dice {mean or 0:.3f}", flush=True)
    return summarised(package, scores, wrong_sides)


def _judged(trial: _Trial, name: str) -> tuple[str, tuple[RegionScore, ...], int]:
    """One scan in a process of its own: its name, its scores, and how many segments lie on the wrong side."""
    torch.set_num_threads(1)
    case = _scans_of(trial).load(name)
    regions = tuple(
        region
        for region in regions_of(thigh29(), LabelScheme.SEGMENTS)
        if region.kind is RegionKind.STRUCTURE and region.side is not None
    )
    return name, tuple(score_case(case, regions)), count_wrong_sides(case)


def summarised(package: ModelPackage, scores: Sequence[RegionScore], wrong_sides: int) -> Judgement:
    """The judgement that follows from the scores of every structure and side of every scan."""
    structures = tuple(
        _structure(structure, [score for score in scores if score.region.key == structure.key])
        for structure in package.label_set.structures
    )
    known = [row for row in structures if row.dice_mean is not None]
    dice = [row.dice_mean for row in known if row.dice_mean is not None]
    return Judgement(
        model_digest=package.digest,
        structures=structures,
        scan_types=tuple(
            _scan_type(kind, [score for score in scores if type_of(score.case) == kind.name]) for kind in SCAN_TYPES
        ),
        totals=Totals(
            scans=len({score.case for score in scores}),
            dice_mean=float(np.mean(dice)),
            dice_least=float(np.min(dice)),
            assd_mm=float(np.mean([row.assd_mm for row in known if row.assd_mm is not None])),
            volume_correlation=float(
                np.mean([row.volume_correlation for row in known if row.volume_correlation is not None])
            ),
            wrong_sides=wrong_sides,
        ),
    )


def count_wrong_sides(case: Case) -> int:
    """Segments of a case that share more voxels with the true segment of the other side than with their own."""
    pairs = np.bincount(case.prediction.ravel().astype(np.intp) * 256 + case.truth.ravel(), minlength=65536)
    table = pairs.reshape(256, 256)
    numbers = np.arange(1, 255)
    others = np.where(numbers % 2 == 1, numbers + 1, numbers - 1)
    return int((table[numbers, others] > table[numbers, numbers]).sum())


def _structure(structure: Structure, scores: Sequence[RegionScore]) -> StructureScore:
    there = [score for score in scores if score.scores is not None]
    found = [score for score in there if score.presence is Presence.FOUND]
    dice = [score.scores.dice for score in there if score.scores]
    truth, ours = (np.array([getattr(score, name) for score in there]) for name in ("truth_ml", "prediction_ml"))
    correlated = len(there) > 2 and bool(np.ptp(truth) > 0 and np.ptp(ours) > 0)
    return StructureScore(
        key=structure.key,
        display=structure.display,
        group=structure.group,
        dice_mean=_mean(dice),
        dice_min=min(dice, default=None),
        assd_mm=_mean([score.scores.assd_mm for score in found if score.scores]),
        volume_ratio=_mean([score.prediction_ml / score.truth_ml for score in there if score.truth_ml > 0]),
        volume_correlation=float(np.corrcoef(truth, ours)[0, 1]) if correlated else None,
        n=len(there),
    )


def _scan_type(kind: ScanType, scores: Sequence[RegionScore]) -> ScanTypeScore:
    there = [score for score in scores if score.scores is not None]
    return ScanTypeScore(
        name=kind.name,
        what=kind.meaning,
        dice_mean=_mean([score.scores.dice for score in there if score.scores]),
        assd_mm=_mean([s.scores.assd_mm for s in there if s.scores and s.presence is Presence.FOUND]),
        n=len({score.case for score in scores}),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
