"""How sharply the centre line of a sound femoral shaft turns: what the limit of the flag `shaft_angled` rests on.

Synthetic persons, each scanned whole and cut off at five places above and below, as by a scan that is too short.

    python benchmarks/shaft_angles.py --persons 24
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from engine.fitness_checks.bones import LARGEST_ANGLE_DEG, find_femora, sharpest_angle_deg
from engine.segmentation import Segmentation
from engine.synthesis.scan import ScanRecipe, synthesise, thigh_grid
from engine.volume import Grid

SHAPE, SPACING_MM = (150, 170, 220), (4.0, 2.4, 2.4)
CUTS = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Share of the scan's levels that is left out at one end."""


def cut(truth: Segmentation, below: float, above: float) -> Segmentation:
    """The truth without a share of its levels at either end."""
    levels = truth.grid.shape[0]
    first, stop = round(below * levels), levels - round(above * levels)
    affine = truth.grid.affine.copy()
    affine[:3, 3] = truth.grid.to_patient(np.array([first, 0.0, 0.0]))
    shape = (stop - first, truth.grid.shape[1], truth.grid.shape[2])
    return Segmentation(truth.labels[first:stop], Grid(shape, affine), truth.label_set)


def angles(persons: int) -> Iterator[tuple[str, float]]:
    """What was left out, and the sharpest angle of each femur."""
    for seed in range(persons):
        truth = synthesise(ScanRecipe(seed, thigh_grid(SHAPE, SPACING_MM))).truth
        for share in CUTS:
            ends = (("below", share, 0.0), ("above", 0.0, share)) if share else (("nothing", 0.0, 0.0),)
            for name, below, above in ends:
                for femur in find_femora(cut(truth, below, above)):
                    yield f"{name} {share:.1f}", sharpest_angle_deg(femur)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=24)
    found: dict[str, list[float]] = {}
    for name, angle in angles(parser.parse_args().persons):
        found.setdefault(name, []).append(angle)
    print(f"limit {LARGEST_ANGLE_DEG} degrees")
    for name, values in found.items():
        median, high = np.median(values), np.percentile(values, 95)
        print(f"{name:12} n {len(values):3}  median {median:4.1f}  95 % {high:4.1f}  largest {max(values):4.1f}")


if __name__ == "__main__":
    main()
