"""Training data without end: batches of synthetic patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from engine.preprocessing import Preprocessing, normalise
from engine.synthesis.anatomy import AnatomySource
from engine.synthesis.person import Sculptor
from engine.training.draws import Batch, Start, seed_of, stacked
from engine.training.errors import TrainingError
from engine.training.preset import Preset, SyntheticPlan
from engine.training.stream import Patch, PatchStream, Reuse

PatchMaker = Callable[[int, Reuse], Iterable[Patch]]
"""Gives an endless stream of patches; the same seed gives the same ones."""
EACH_ONCE = Reuse()
PREFETCH = 3
HELD_OUT = 2**31
"""In the place of a phase's number: the seeds of what is judged on."""


@dataclass(frozen=True)
class Lanes:
    """How a stream is divided: batch n comes from lane n % count, so that as many processes can make them in order.

    Attributes:
        seed: of the run.
        chunk: batches of a lane after which it begins anew from another seed.
        count: lanes.
        reuse: how often a patch is shown.
    """

    seed: int
    chunk: int
    count: int
    reuse: Reuse


class LaneBatches(IterableDataset[Batch]):
    """The batches of the lanes that one process of a loader has: one of them, or all where there is no process."""

    def __init__(self, make: PatchMaker, preprocessing: Preprocessing, lanes: Lanes, start: Start) -> None:
        super().__init__()
        self._make, self._preprocessing, self._lanes, self._start = make, preprocessing, lanes, start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number = self._start.step + (0 if worker is None else worker.id)
        place, lane = divmod(number, self._lanes.count)
        chunk, behind = divmod(place, self._lanes.chunk)
        size = self._start.batch
        while True:
            seed = seed_of(self._lanes.seed, self._start.phase, lane, chunk)
            patches = iter(self._make(seed, self._lanes.reuse))
            for _ in range(behind * size):
                next(patches)
            for _ in range(behind, self._lanes.chunk):
                yield batch_of(list(islice(patches, size)), self._preprocessing)
            chunk, behind = chunk + 1, 0


class SyntheticSource:
    """See `engine.training.draws.Source`.

    Args:
        make: gives streams of patches.
        preset: how they are prepared and counted.
        seed: of the run.
        workers: processes that make patches; 0 makes them in this one.

    Raises:
        TrainingError: the preset does not say how to train on synthetic scans.
    """

    def __init__(self, make: PatchMaker, preset: Preset, seed: int, workers: int) -> None:
        self._plan = synthetic_plan(preset)
        self._make, self._preset, self._seed, self._workers = make, preset, seed, workers
        self._kept: list[Batch] = []

    def epoch_steps(self, batch: int) -> int:
        """See `Source`; a stream has no end, so the preset says what is called an epoch."""
        return self._plan.epoch_steps

    def batches(self, start: Start) -> Iterator[Batch]:
        """See `Source`."""
        phase = self._preset.phases[start.phase]
        lanes = Lanes(self._seed, self._plan.chunk, max(1, self._workers), Reuse(phase.shown, phase.kept))
        dataset = LaneBatches(self._make, self._preset.preprocessing, lanes, start)
        if not self._workers:
            return iter(dataset)
        own = torch.Generator()  # or the loader would take a draw from the network's
        loader = DataLoader(
            dataset, batch_size=None, num_workers=self._workers, prefetch_factor=PREFETCH, generator=own
        )
        return iter(loader)

    def held_out(self) -> Iterator[Batch]:
        """See `Source`; patches, made once."""
        if not self._kept:
            patches = islice(self._make(seed_of(self._seed, HELD_OUT), EACH_ONCE), self._plan.held_out)
            self._kept = [batch_of([patch], self._preset.preprocessing) for patch in patches]
        return iter(self._kept)


def batch_of(patches: list[Patch], preprocessing: Preprocessing) -> Batch:
    """Patches as the network sees them."""
    images = [normalise(torch.from_numpy(hu), preprocessing)[None] for hu, _ in patches]
    return stacked(images, [torch.from_numpy(classes)[None] for _, classes in patches])


def synthetic_plan(preset: Preset) -> SyntheticPlan:
    """What the preset says of synthetic scans.

    Raises:
        TrainingError: nothing.
    """
    if preset.synthetic is None:
        remedy = "Name a folder of scans with labels with --data, or choose a preset that has the section synthetic"
        raise TrainingError(f"preset ({preset.description})", "it does not train on synthetic scans", remedy)
    return preset.synthetic


def stream_of(sources: Sequence[AnatomySource], preprocessing: Preprocessing, device: str) -> PatchMaker:
    """Patches of persons drawn from some anatomies; making these ready takes a minute.

    Args:
        sources: the anatomies.
        preprocessing: gives spacing and window.
        device: where patches are rendered.
    """
    sculptors = [Sculptor(source.anatomy(), device) for source in sources]

    def make(seed: int, reuse: Reuse) -> Iterator[Patch]:
        return iter(PatchStream(sculptors, preprocessing, seed, reuse))

    return make
