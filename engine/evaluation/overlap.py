"""Overlap and volume: counted once for all labels, then read off for any region.

P is the prediction, G the truth, V their volumes. Where both are empty nothing can be said, and every measure is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VALUES = 256  # of uint8
SLAB = 8  # slices counted at a time, so that memory stays bounded


@dataclass(frozen=True)
class Counts:
    """Voxels of one region.

    Attributes:
        both: in P and in G, the true positives.
        prediction: in P.
        truth: in G.
        volume: in the whole scan.
    """

    both: int
    prediction: int
    truth: int
    volume: int

    @property
    def different(self) -> int:
        """Voxels in one of them alone: false positives and false negatives."""
        return self.prediction + self.truth - 2 * self.both


def confusion(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels of every pair of labels, int64 [256 prediction, 256 truth]; the arrays have the same shape."""
    counts = np.zeros(VALUES * VALUES, dtype=np.int64)
    for start in range(0, len(truth), SLAB):
        pairs = prediction[start : start + SLAB].astype(np.uint16) * VALUES + truth[start : start + SLAB]
        counts += np.bincount(pairs.ravel(), minlength=VALUES * VALUES)
    return counts.reshape(VALUES, VALUES)


def counts_of(table: NDArray[np.int64], values: tuple[int, ...]) -> Counts:
    """The counts of the union of some labels, from the table of `confusion`."""
    chosen = list(values)
    return Counts(
        both=int(table[np.ix_(chosen, chosen)].sum()),
        prediction=int(table[chosen].sum()),
        truth=int(table[:, chosen].sum()),
        volume=int(table.sum()),
    )


def dice(counts: Counts) -> float | None:
    """2 |P and G| / (|P| + |G|), 0..1; the printed 2TP / (2TP + 2FP + FN) of Kim 2024 is a slip."""
    total = counts.prediction + counts.truth
    return 2 * counts.both / total if total else None


def jaccard(counts: Counts) -> float | None:
    """|P and G| / |P or G|, 0..1; equals Dice / (2 - Dice)."""
    union = counts.both + counts.different
    return counts.both / union if union else None


def hamming_distance(counts: Counts) -> float | None:
    """Share of all voxels of the scan that are labelled differently, 0..1: it shrinks as the scan grows around them."""
    return counts.different / counts.volume if counts.prediction or counts.truth else None


def hamming_similarity(counts: Counts) -> float | None:
    """1 - Hamming distance."""
    distance = hamming_distance(counts)
    return None if distance is None else 1.0 - distance


def relative_volume_difference(counts: Counts) -> float | None:
    """RVD: 100 (V_P - V_G) / V_G in %, with its sign; None where G is empty. Its absolute value is RAVD."""
    return 100.0 * (counts.prediction - counts.truth) / counts.truth if counts.truth else None
