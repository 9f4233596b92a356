"""Training patches from synthetic subjects.

Across the body a patch lies where a window of the service would lie, give or take a few voxels, because the service
crops to the body and spreads its windows evenly; along the legs it lies anywhere, because scans begin anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from engine.body import find_body
from engine.preprocessing import Preprocessing
from engine.synthesis import ScanRecipe, SyntheticScan, synthesise, thigh_grid
from engine.synthesis.scanner import smooth_noise
from engine.windows import window_starts

GRID_SHAPE = (304, 208, 288)
"""Voxels of a training subject on the network's grid: hips and knees with room about them."""
FOREGROUND_SHARE = 0.8
"""Share of patches around a voxel of a class drawn evenly, so that small muscles are seen."""
OVERLAP = 0.25
JITTER_VOXELS = 8
BODY_MARGIN_MM = 8.0
NOISE_VOXELS = 144
GRAINS = (0.3, 0.5, 0.7, 0.9)
"""Widths of the scanner's noise, in voxels."""


@dataclass(frozen=True, eq=False)
class TrainingSubject:
    """A noise-free scan and its classes (0..29, no sides) on the network's grid, cut to the body; [z, y, x]."""

    hu: NDArray[np.int16]
    classes: NDArray[np.uint8]
    aims: NDArray[np.int32]
    """Voxels [n, 4]: class, z, y, x; a thin sample of every class."""


@dataclass(frozen=True, eq=False)
class Patch:
    """One window: HU float32 and classes uint8, both [z, y, x]."""

    hu: NDArray[np.float32]
    classes: NDArray[np.uint8]


def make_subject(seed: int, preprocessing: Preprocessing) -> TrainingSubject:
    """Synthesise one subject without scanner noise."""
    grid = thigh_grid(GRID_SHAPE, preprocessing.spacing_mm)
    scan = synthesise(ScanRecipe(seed, grid, noise_sd_hu=0.0))
    box = _body_box(scan)
    hu = np.ascontiguousarray(scan.volume.hu[box])
    classes = np.ascontiguousarray((scan.truth.labels[box] + 1) // 2, dtype=np.uint8)
    rng = np.random.default_rng(seed)
    found = []
    for value in range(1, int(classes.max()) + 1):
        voxels = np.argwhere(classes == value)
        if len(voxels):
            chosen = voxels[rng.integers(0, len(voxels), 200)]
            found.append(np.column_stack([np.full(len(chosen), value), chosen]))
    return TrainingSubject(hu, classes, np.concatenate(found).astype(np.int32))


def make_subjects(folder: Path, seeds: range, preprocessing: Preprocessing, workers: int) -> Iterator[Path]:
    """Keep one file a subject; those that are there already are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        wanted = {seed: folder / f"{seed}.npz" for seed in seeds}
        missing = [seed for seed, path in wanted.items() if not path.exists()]
        yield from (path for path in wanted.values() if path.exists())
        jobs = pool.map(_keep_subject, missing, [folder] * len(missing), [preprocessing] * len(missing))
        yield from jobs


def _keep_subject(seed: int, folder: Path, preprocessing: Preprocessing) -> Path:
    subject = make_subject(seed, preprocessing)
    part, path = folder / f"{seed}.part.npz", folder / f"{seed}.npz"
    np.savez(part, hu=subject.hu, classes=subject.classes, aims=subject.aims)
    return part.replace(path)


def load_subject(path: Path) -> TrainingSubject:
    """Read a subject's file."""
    with np.load(path) as kept:
        return TrainingSubject(kept["hu"], kept["classes"], kept["aims"])


class PatchSource:
    """Endless patches of some subjects, each with a scanner of its own: noise, slice blur, calibration, mirror.

    Args:
        files: subjects.
        seed: every draw follows from it.
        window: voxels of a patch.
    """

    def __init__(self, files: list[Path], seed: int, window: tuple[int, int, int]) -> None:
        self._subjects = [load_subject(path) for path in files]
        self._rng = np.random.default_rng(seed)
        self._window = window
        size = (NOISE_VOXELS,) * 3
        self._noises = [smooth_noise(self._rng, size, (grain / 2, grain, grain)) for grain in GRAINS]

    def __iter__(self) -> Iterator[Patch]:
        while True:
            yield self._patch(self._subjects[self._rng.integers(len(self._subjects))])

    def _patch(self, subject: TrainingSubject) -> Patch:
        rng = self._rng
        if rng.random() < FOREGROUND_SHARE:
            value = rng.choice(np.unique(subject.aims[:, 0]))
            rows = subject.aims[subject.aims[:, 0] == value]
            aim = rows[rng.integers(len(rows)), 1:]
        else:
            aim = np.array([rng.integers(0, count) for count in subject.classes.shape])
        where = _place(aim, subject.classes.shape, self._window, rng)
        hu, classes = subject.hu[where].astype(np.float32), subject.classes[where]
        if rng.random() < 0.4:
            hu = gaussian_filter1d(hu, rng.uniform(0.3, 1.0), axis=0)
        hu += np.float32(rng.uniform(2, 22)) * self._noise()
        hu = hu * np.float32(rng.uniform(0.97, 1.03)) + np.float32(rng.uniform(-8, 8))
        if rng.random() < 0.5:
            hu, classes = hu[:, :, ::-1], classes[:, :, ::-1]
        return Patch(np.ascontiguousarray(hu, dtype=np.float32), np.ascontiguousarray(classes))

    def _noise(self) -> NDArray[np.float32]:
        """A window of noise from a stock, turned about, so that no two are alike."""
        rng = self._rng
        stock = self._noises[rng.integers(len(self._noises))]
        starts = [int(rng.integers(0, NOISE_VOXELS - size + 1)) for size in self._window]
        cut = stock[tuple(slice(start, start + size) for start, size in zip(starts, self._window, strict=True))]
        return np.asarray(np.flip(cut, tuple(axis for axis in range(3) if rng.random() < 0.5)))


def _body_box(scan: SyntheticScan) -> tuple[slice, slice, slice]:
    """What the service would crop to: the body without its table, and a margin."""
    points = find_body(scan.volume.hu, scan.volume.grid).points()
    margin = BODY_MARGIN_MM / np.array(scan.volume.grid.spacing_mm)
    low = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0) + margin) + 1, scan.volume.grid.shape).astype(int)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2]))


def _place(
    aim: NDArray[np.int32], shape: tuple[int, ...], window: tuple[int, int, int], rng: np.random.Generator
) -> tuple[slice, ...]:
    """A window that holds the aim: anywhere along z, near one of the service's places across."""
    places = []
    for axis, (target, length, size) in enumerate(zip(aim, shape, window, strict=True)):
        if axis == 0:
            start = int(target) - int(rng.integers(8, size - 8))
        else:
            holding = [each for each in window_starts(length, size, OVERLAP) if each <= target < each + size]
            start = int(rng.choice(holding)) + int(rng.integers(-JITTER_VOXELS, JITTER_VOXELS + 1))
        start = int(np.clip(start, 0, length - size))
        places.append(slice(start, start + size))
    return tuple(places)
