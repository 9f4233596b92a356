"""A folder of scans with labels: finding the pairs, and refusing what cannot be learnt from.

`images/NAME.*` and `labels/NAME.*` belong together. Files are NIfTI or NRRD; whoever can read more gives a reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.cases import LabelScheme
from engine.images import SUFFIXES, by_case, case_name, read_image, read_labels
from engine.labels import LabelSet
from engine.resample import closest_orientation
from engine.training.errors import TrainingError
from engine.volume import Grid, Volume

IMAGES, LABELS = "images", "labels"
PLACE_TOLERANCE = 0.1
"""How far corners of scan and labels may lie apart, of a voxel: files keep their geometry with different digits."""


@dataclass(frozen=True)
class Case:
    """One scan with its labels.

    Attributes:
        name: what both files are called.
        image: a file, or the folder of a DICOM series.
        labels: a file.
    """

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True, eq=False)
class RawPair:
    """A pair as it was read.

    Attributes:
        volume: the scan.
        labels: uint8, axes [slice, row, column] of `grid`.
        grid: where the labels lie.
        values: what the labels' numbers are where the file says so itself; None where it does not.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    grid: Grid
    values: LabelScheme | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair that can be learnt from; axes (z, y, x).

    Attributes:
        hu: attenuation, int16.
        classes: 0 background, otherwise `Structure.value`, uint8.
        spacing_mm: along z, y and x.
    """

    hu: NDArray[np.int16]
    classes: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


Reader = Callable[[Case], RawPair]


def read_files(case: Case) -> RawPair:
    """Read a pair of NIfTI or NRRD files.

    Raises:
        ImageError: a file is unreadable; the error names it.
    """
    labels, grid = read_labels(case.labels)
    return RawPair(read_image(case.image), labels, grid)


def find_cases(folder: Path, more: tuple[str, ...] = ()) -> tuple[Case, ...]:
    """The pairs of a folder, by name.

    Args:
        folder: holds the folders `images` and `labels`.
        more: suffixes of files beside NIfTI and NRRD. A folder in `images` counts where there are any.

    Raises:
        TrainingError: there are no pairs, two files of one name, or a scan without labels or the other way round.
    """
    images = _entries(folder / IMAGES, more, folders=bool(more))
    labels = _entries(folder / LABELS, more, folders=False)
    for known, others, there in ((images, labels, folder / LABELS), (labels, images, folder / IMAGES)):
        alone = sorted(set(known) - set(others))
        if alone:
            reason = f"nothing of that name lies in {there}" + (f" ({len(alone)} such files)" if alone[1:] else "")
            raise TrainingError(f"file {known[alone[0]]}", reason, "Add what is missing, or move the file away")
    return tuple(Case(name, images[name], labels[name]) for name in sorted(images))


def _entries(folder: Path, more: tuple[str, ...], folders: bool) -> dict[str, Path]:
    remedy = f"Give a folder with {IMAGES}/NAME and {LABELS}/NAME, files ending in {', '.join((*SUFFIXES, *more))}"
    found = by_case(folder, lambda path: _name_of(path, more, folders), TrainingError, remedy)
    if not found:
        raise TrainingError(f"folder {folder}", "it holds nothing that can be read", remedy)
    return found


def _name_of(path: Path, more: tuple[str, ...], folders: bool) -> str | None:
    if path.is_dir():
        return path.name if folders else None
    stem = next((path.name[: -len(end)] for end in more if path.name.lower().endswith(end)), None)
    return stem or case_name(path)


def read_pair(case: Case, reader: Reader, values: LabelScheme, label_set: LabelSet) -> Pair:
    """Read a pair, see that it can be learnt from, and turn it upright.

    Raises:
        TrainingError: the grids differ, or a label is not one of the set; the error names the file.
        VastusError: a file is unreadable; the error names it.
    """
    raw = reader(case)
    raw.volume.grid.require_even(f"file {case.image}")
    orientation, other = closest_orientation(raw.volume.grid), closest_orientation(raw.grid)
    grid, theirs = orientation.turn_grid(raw.volume.grid), other.turn_grid(raw.grid)
    if grid.shape != theirs.shape or _distance(grid, theirs) > PLACE_TOLERANCE * min(grid.spacing_mm):
        reason = f"its grid is not that of {case.image}: {_told(theirs)} against {_told(grid)}"
        raise TrainingError(f"file {case.labels}", reason, "Resample the labels to the scan, nearest neighbour")
    classes = _classes(case, other.turn(raw.labels), raw.values or values, label_set)
    hu = np.ascontiguousarray(orientation.turn(raw.volume.hu))
    return Pair(hu, classes, grid.spacing_mm)


def _distance(grid: Grid, other: Grid) -> float:
    """The largest distance of two corners, mm."""
    corners = np.array(list(product(*((0.0, length - 1.0) for length in grid.shape))))
    return float(np.linalg.norm(grid.to_patient(corners) - other.to_patient(corners), axis=1).max())


def _told(grid: Grid) -> str:
    spacing = " x ".join(f"{step:.3f}" for step in grid.spacing_mm)
    corner = ", ".join(f"{value:.2f}" for value in grid.affine[:3, 3])
    return f"{' x '.join(str(length) for length in grid.shape)} voxels of {spacing} mm from ({corner})"


def _classes(case: Case, labels: NDArray[np.uint8], values: LabelScheme, label_set: LabelSet) -> NDArray[np.uint8]:
    count = len(label_set.structures)
    highest = count if values is LabelScheme.STRUCTURES else 2 * count
    found = int(labels.max())
    if found > highest:
        reason = f"it holds the value {found}, and the {values.value} of {label_set.name} end at {highest}"
        remedy = f"Map its labels to those of {label_set.name}, or say with --labels what its numbers are"
        raise TrainingError(f"file {case.labels}", reason, remedy)
    if values is LabelScheme.STRUCTURES:
        return np.ascontiguousarray(labels)
    return np.ascontiguousarray((labels + 1) // 2, dtype=np.uint8)


def split(cases: tuple[Case, ...], folds: int, seed: int, fold: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases to train on and cases to validate on: every case validates in one fold.

    Args:
        cases: sorted by name.
        folds: how many.
        seed: of the draw.
        fold: the one that validates, counted from 0.

    Raises:
        TrainingError: there is no such fold, or there are fewer cases than folds.
    """
    if not 0 <= fold < folds:
        raise TrainingError(f"fold {fold}", f"the preset has {folds} folds", f"Choose one of 0 to {folds - 1}")
    if len(cases) < folds:
        reason = f"{len(cases)} cases cannot be divided into {folds} folds"
        raise TrainingError("training data", reason, "Add cases, or use a preset of your own with fewer folds")
    order = np.random.default_rng(seed).permutation(len(cases))
    chosen = {int(index) for index in order[fold::folds]}
    train = tuple(case for index, case in enumerate(cases) if index not in chosen)
    return train, tuple(cases[index] for index in sorted(chosen))
