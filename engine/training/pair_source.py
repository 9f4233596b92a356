"""Training data from a folder of scans with labels: prepared once and kept, then cut into windows, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.dataset import PersistentDataset
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CropForegroundd, RandCropByPosNegLabeld, SpatialPadd
from monai.transforms.intensity.dictionary import RandGaussianNoised, RandShiftIntensityd, ScaleIntensityRanged
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd, Spacingd
from monai.transforms.transform import MapTransform
from monai.transforms.utility.dictionary import CastToTyped, Lambdad
from torch.utils.data import DataLoader, Dataset

from engine.errors import VastusError
from engine.evaluation.cases import LabelScheme
from engine.labels import LabelSet
from engine.preprocessing import Preprocessing
from engine.training.draws import Batch, Start, seed_of, stacked
from engine.training.errors import TrainingError
from engine.training.pairs import Case, Reader, read_pair
from engine.training.preset import Augmentation, PairsPlan, Preset

IMAGE, LABEL = "image", "label"
BOTH = (IMAGE, LABEL)
LEFT_RIGHT = 2  # the axis x of (z, y, x)

Item = dict[str, Any]
Transforms = list[Callable[..., Any]]
Tell = Callable[[int, int, str], None]
"""Told how many cases are ready, of how many, and the name of the last."""
Key = tuple[int, int, int]
"""Phase, epoch and case: what a draw's randomness follows from."""


@dataclass(frozen=True)
class PairData:
    """Cases, and how to read them.

    Attributes:
        train: to learn from.
        held_out: to be judged on.
        reader: reads a case.
        values: what the numbers in label files are, where a file does not say so itself.
        label_set: which classes there are.
        allow_missing: whether a structure may be in no file of `train`; the network then never learns it.
    """

    train: tuple[Case, ...]
    held_out: tuple[Case, ...]
    reader: Reader
    values: LabelScheme
    label_set: LabelSet
    allow_missing: bool


class _ReadPair(MapTransform):
    """Reads a case; the first of the transforms."""

    def __init__(self, data: PairData) -> None:
        super().__init__(IMAGE)
        self._data = data

    def __call__(self, item: Item) -> Item:
        case = Case(item["name"], Path(item["image"]), Path(item["labels"]))
        pair = read_pair(case, self._data.reader, self._data.values, self._data.label_set)
        affine = np.diag([*pair.spacing_mm, 1.0])  # where it lies in the patient no longer matters
        return {
            IMAGE: MetaTensor(torch.from_numpy(pair.hu.astype(np.float32))[None], affine=torch.from_numpy(affine)),
            LABEL: MetaTensor(torch.from_numpy(pair.classes)[None], affine=torch.from_numpy(affine)),
        }


def preparation(plan: PairsPlan, preprocessing: Preprocessing) -> Transforms:
    """What is done to a scan once: intensity, spacing, foreground, and room for a window, in the preset's order."""
    low, high = preprocessing.hu_low, preprocessing.hu_high
    intensity: Transforms = [ScaleIntensityRanged(IMAGE, low, high, 0.0, 1.0, clip=True)]
    if preprocessing.gamma != 1.0:
        # Not MONAI's AdjustContrast: that scales by the extremes of each image.
        intensity.append(Lambdad(IMAGE, partial(torch.pow, exponent=preprocessing.gamma)))
    crop: Transforms = [CropForegroundd(BOTH, IMAGE, allow_smaller=True)] if plan.foreground_crop else []
    spacing: Transforms = [Spacingd(BOTH, preprocessing.spacing_mm, mode=("bilinear", "nearest"), dtype=np.float32)]
    orders = {"before_intensity": [*spacing, *intensity, *crop], "after_intensity": [*intensity, *crop, *spacing]}
    cast = CastToTyped(BOTH, dtype=(torch.float32, torch.uint8))
    return [*orders[plan.resample], SpatialPadd(BOTH, preprocessing.window), cast]


def variation(plan: PairsPlan, augmentation: Augmentation, window: tuple[int, int, int]) -> Transforms:
    """What is done at each draw: windows around labelled voxels and others, and the preset's augmentation."""
    cut = RandCropByPosNegLabeld(BOTH, LABEL, window, plan.positive, plan.negative, plan.crops, IMAGE, 0.0)
    turn, scale = np.deg2rad(augmentation.turn_deg), augmentation.scale
    affine = RandAffined(
        BOTH,
        prob=1.0,
        rotate_range=(turn,) * 3,
        scale_range=(scale,) * 3,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    table = (
        (augmentation.mirror, RandFlipd(BOTH, augmentation.mirror, LEFT_RIGHT)),
        (max(turn, scale), affine),
        (augmentation.shift, RandShiftIntensityd(IMAGE, augmentation.shift, prob=1.0)),
        (augmentation.noise_sd, RandGaussianNoised(IMAGE, prob=1.0, std=augmentation.noise_sd)),
    )
    return [cut, *(transform for strength, transform in table if strength)]


class _Draws(Dataset[Batch]):
    """Windows of one scan, drawn by key."""

    def __init__(self, prepared: PersistentDataset, transforms: Transforms, seed: int) -> None:
        self._prepared, self._seed = prepared, seed
        self._variation = Compose(transforms)

    def __getitem__(self, key: Key) -> Batch:
        self._variation.set_random_state(seed=seed_of(self._seed, *key))
        with warnings.catch_warnings():
            # A scan without any label, or without anything else, is drawn from where it can be.
            warnings.filterwarnings("ignore", message="Num foregrounds")
            windows = self._variation(self._prepared[key[2]])
        images = [torch.as_tensor(window[IMAGE].as_tensor(), dtype=torch.float32) for window in windows]
        classes = [torch.as_tensor(window[LABEL].as_tensor(), dtype=torch.uint8) for window in windows]
        return stacked(images, classes)


@dataclass(frozen=True)
class _Keys:
    """Keys of the batches from a step on, without end; every epoch takes each case once, in an order of its own."""

    start: Start
    cases: int
    epoch_steps: int
    seed: int

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, step = divmod(self.start.step, self.epoch_steps)
        while True:
            order = np.random.default_rng((self.seed, self.start.phase, epoch)).permutation(self.cases)
            for first in range(step * self.start.batch, self.cases, self.start.batch):
                yield [(self.start.phase, epoch, int(case)) for case in order[first : first + self.start.batch]]
            epoch, step = epoch + 1, 0


class PairSource:
    """See `engine.training.draws.Source`.

    Args:
        data: the cases.
        preset: how they are prepared and cut.
        seed: of the run.
        workers: processes that cut windows; 0 cuts them in this one.
        cache: folder where prepared scans are kept.
    """

    def __init__(self, data: PairData, preset: Preset, seed: int, workers: int, cache: Path) -> None:
        self._data, self._preset, self._seed, self._workers = data, preset, seed, workers
        recipe = repr((preset.preprocessing, preset.pairs.foreground_crop, preset.pairs.resample, data.values))
        steps: Transforms = [_ReadPair(data), *preparation(preset.pairs, preset.preprocessing)]
        self._train, self._held_out = (
            PersistentDataset([_item(case, recipe) for case in cases], Compose(steps), cache)
            for cases in (data.train, data.held_out)
        )

    def prepare(self, tell: Tell) -> None:
        """Read, check and prepare every case, or find it prepared; needed before anything else.

        Raises:
            TrainingError: a pair cannot be learnt from, or a structure is in no file of those to train on.
            VastusError: a file is unreadable; the error names it.
        """
        count = len(self._data.train) + len(self._data.held_out)
        voxels = torch.zeros(self._data.label_set.class_count, dtype=torch.int64)
        for number, case in enumerate((*self._data.train, *self._data.held_out)):
            dataset, index = self._train, number
            if number >= len(self._data.train):
                dataset, index = self._held_out, number - len(self._data.train)
            item = _unwrapped(dataset, index)
            if dataset is self._train:
                voxels += torch.bincount(item[LABEL].flatten(), minlength=len(voxels))
            tell(number + 1, count, case.name)
        self._refuse_missing(voxels)

    def epoch_steps(self, batch: int) -> int:
        """See `Source`; every scan is drawn once."""
        return -(-len(self._data.train) // batch)

    def batches(self, start: Start) -> Iterator[Batch]:
        """See `Source`."""
        window = self._preset.preprocessing.window
        draws = _Draws(self._train, variation(self._preset.pairs, self._preset.augmentation, window), self._seed)
        keys = _Keys(start, len(self._data.train), self.epoch_steps(start.batch), self._seed)
        own = torch.Generator()  # or the loader would take a draw from the network's
        loader = DataLoader(draws, batch_sampler=keys, num_workers=self._workers, collate_fn=_joined, generator=own)
        return iter(loader)

    def held_out(self) -> Iterator[Batch]:
        """See `Source`; whole scans."""
        for index in range(len(self._data.held_out)):
            item = self._held_out[index]
            yield stacked([torch.as_tensor(item[IMAGE])], [torch.as_tensor(item[LABEL])])

    def _refuse_missing(self, voxels: torch.Tensor) -> None:
        missing = [each.key for each in self._data.label_set.structures if not voxels[each.value]]
        if not missing or self._data.allow_missing:
            return
        files = f"{len(self._data.train)} label files to train on, as {self._data.train[0].labels}"
        reason = f"{len(missing)} structures are in none of the {files}: {', '.join(missing)}"
        remedy = (
            "Add cases that show them; where they must stay unknown, say --allow-missing; "
            "where the files have no sides, say --labels structures"
        )
        raise TrainingError("training data", reason, remedy)


def _item(case: Case, recipe: str) -> Mapping[str, Any]:
    """What the kept file of a case is named by: a changed file, or another recipe, is prepared anew."""
    stamps = [_stamp(path) for path in (case.image, case.labels)]
    names = {"name": case.name, "image": str(case.image), "labels": str(case.labels)}
    return {**names, "stamps": stamps, "recipe": recipe}


def _stamp(path: Path) -> list[tuple[int, int]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        return [(stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files)]
    except OSError as error:
        raise TrainingError(f"file {path}", f"it cannot be read: {error.strerror}", "Check its rights") from error


def _unwrapped(dataset: PersistentDataset, index: int) -> Item:
    """One prepared case; MONAI wraps every error in its own, and ours is the one that names the file."""
    try:
        item: Item = dataset[index]
        return item
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, VastusError):
            cause = cause.__cause__
        raise cause or error from error


def _joined(draws: list[Batch]) -> Batch:
    return Batch(torch.cat([draw.image for draw in draws]), torch.cat([draw.classes for draw in draws]))
