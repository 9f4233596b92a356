"""Training data and a watcher for tests: boxes of a few classes, drawn in no time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.training.loop import StepReport
from engine.training.preset import Preset, load_preset
from engine.training.stream import Patch, Reuse
from engine.training.synthetic import SyntheticSource

SIZE = 32


def boxes(seed: int, reuse: Reuse) -> Iterator[Patch]:
    """Patches of 8 x 8 x 8 boxes; each class has an attenuation of its own."""
    rng = np.random.default_rng((seed, reuse.times))
    while True:
        coarse = rng.integers(0, 30, (SIZE // 8,) * 3, dtype=np.uint8)
        classes = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)
        hu = classes.astype(np.float32) * 12 - 150 + rng.normal(0, 5, classes.shape).astype(np.float32)
        yield hu, classes


def tiny() -> Preset:
    """The preset `tiny`."""
    return load_preset("tiny")


def source(seed: int = 1, workers: int = 0, preset: Preset | None = None) -> SyntheticSource:
    """A stream of boxes."""
    return SyntheticSource(boxes, preset or tiny(), seed, workers)


class Notes:
    """A watcher that remembers.

    Args:
        stop_after: steps of all phases after which it wants to stop; None never does.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self._stop_after = stop_after
        self.phases: list[str] = []
        self.steps: list[StepReport] = []
        self.dice: list[tuple[int, float, bool]] = []

    def phase(self, name: str, number: int, of: int) -> None:
        """See `Watcher`."""
        self.phases.append(f"{number}/{of} {name}")

    def step(self, report: StepReport) -> None:
        """See `Watcher`."""
        self.steps.append(report)

    def validated(self, step: int, dice: float, best: bool) -> None:
        """See `Watcher`."""
        self.dice.append((step, dice, best))

    def wants_stop(self) -> bool:
        """See `Watcher`."""
        return self._stop_after is not None and bool(self.steps) and self.steps[-1].step >= self._stop_after
