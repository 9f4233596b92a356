"""Cases from folders: predictions, truth and CT of one case are files of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.evaluation.cases import Case, EvaluationError, Labels, LabelScheme, highest_value
from engine.images import LabelReader, image_files, read_image, read_labels
from engine.labels import LabelSet
from engine.volume import Grid

GRID_TOLERANCE = 1e-3  # of the affine, mm: more than NIfTI's single precision costs, less than anybody means
NAMES_SHOWN = 5


@dataclass(frozen=True)
class CaseFolders:
    """Where the files lie.

    Attributes:
        predictions: one label volume a case.
        truth: the same names.
        images: the CT of each case, the same names; None where there are none.
    """

    predictions: Path
    truth: Path
    images: Path | None = None


class FolderSource:
    """Reads the cases of some folders, one at a time (a `CaseSource`).

    Args:
        folders: where the files lie.
        label_set: what the numbers mean.
        scheme: how the files number it; None takes it from the files, where that is beyond doubt.
        read: reads one label volume.

    Raises:
        ImageError: a folder cannot be listed or holds no image file.
        EvaluationError: a case lacks its prediction, its truth or its CT; or no scheme is given and the files leave it
            open.
    """

    def __init__(
        self,
        folders: CaseFolders,
        label_set: LabelSet,
        scheme: LabelScheme | None = None,
        read: LabelReader = read_labels,
    ) -> None:
        self._predictions = image_files(folders.predictions)
        self._truth = image_files(folders.truth)
        self._images = None if folders.images is None else image_files(folders.images)
        self._label_set = label_set
        self._read = read
        _refuse_unpaired(self._truth, self._predictions, folders.predictions)
        _refuse_unpaired(self._predictions, self._truth, folders.truth)
        if folders.images is not None and self._images is not None:
            _refuse_unpaired(self._truth, self._images, folders.images)
        self.scheme = scheme or self._recognise()

    @property
    def names(self) -> tuple[str, ...]:
        """The cases, sorted."""
        return tuple(self._truth)

    @property
    def has_images(self) -> bool:
        """Whether a CT is given."""
        return self._images is not None

    def load(self, name: str) -> Case:
        """Read one case.

        Raises:
            ImageError: a file is damaged or no label volume.
            EvaluationError: the grids differ, or there are numbers outside the label set; names the files.
        """
        prediction, grid = self._labels(self._predictions[name])
        truth, truth_grid = self._labels(self._truth[name])
        _refuse_other_grid((self._predictions[name], grid), (self._truth[name], truth_grid))
        if self._images is None:
            return Case(name, truth_grid, prediction, truth)
        image = read_image(self._images[name])
        _refuse_other_grid((self._images[name], image.grid), (self._truth[name], truth_grid))
        return Case(name, truth_grid, prediction, truth, image.hu)

    def _labels(self, path: Path) -> tuple[Labels, Grid]:
        labels, grid = self._read(path)
        highest = highest_value(self._label_set, self.scheme)
        foreign = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        foreign = foreign[foreign > highest]
        if len(foreign):
            values = ", ".join(str(value) for value in foreign[:NAMES_SHOWN])
            reason = f"it holds values outside 0..{highest} ({self.scheme.value}): {values}"
            raise EvaluationError(f"file {path}", reason, f"Give labels of {self._label_set.name}")
        return labels, grid

    def _recognise(self) -> LabelScheme:
        """More values than there are structures can only be segments; fewer may be either."""
        path = next(iter(self._truth.values()))
        labels, _ = self._read(path)
        if labels.max() > highest_value(self._label_set, LabelScheme.STRUCTURES):
            return LabelScheme.SEGMENTS
        reason = f"its values reach {labels.max()} only: structures without sides, or segments of which few are there"
        raise EvaluationError(f"file {path}", reason, "Say which with --labels structures or --labels segments")


def _refuse_unpaired(wanted: Mapping[str, Path], found: Mapping[str, Path], folder: Path) -> None:
    missing = [path for name, path in wanted.items() if name not in found]
    if missing:
        more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
        files = ", ".join(str(path) for path in missing[:NAMES_SHOWN])
        reason = f"it holds no file of the same name as {files}{more}"
        raise EvaluationError(f"folder {folder}", reason, "Give each case in each folder: none is left out of a mean")


def _refuse_other_grid(one: tuple[Path, Grid], other: tuple[Path, Grid]) -> None:
    (path, grid), (other_path, other_grid) = one, other
    remedy = "Bring both to the grid of the CT"
    if grid.shape != other_grid.shape:
        reason = f"it has {grid.shape} voxels and {other_path} has {other_grid.shape}"
        raise EvaluationError(f"file {path}", reason, remedy)
    difference = np.abs(grid.affine - other_grid.affine).max()
    if difference > GRID_TOLERANCE:
        reason = f"its voxels lie elsewhere than those of {other_path}: the affines differ by up to {difference:.4g}"
        raise EvaluationError(f"file {path}", reason, remedy)
