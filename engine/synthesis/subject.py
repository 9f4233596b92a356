"""One synthetic subject: everything that is drawn from the seed, before any voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.labels import LabelSet
from engine.synthesis.tissue import draw_attenuation

KNOT_SPACING_MM = 60.0
FIELD_KNOTS = (14, 9, 12)
"""Knots of the deformation along z, y and x; they span 720 x 480 x 660 mm about the body."""
FIELD_ORIGIN_MM = (-90.0, -240.0, -330.0)
"""z, y (forward) and x (to the patient's left) of the first knot."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A drawn anatomy.

    Attributes:
        stature, girth: scale along z, and across.
        fat_mm: subcutaneous fat over the thigh.
        atrophy_mm: by how much every muscle draws back from its hull; shape [2 sides, structures].
        gap_mm: width of the fat between neighbours.
        twist_deg: rotation of each leg about its own axis at the knee; 0 at the hip; shape [2].
        field_mm: smooth deformation across, forward and to the left; shape [2, *FIELD_KNOTS].
        attenuation: mean HU and texture SD of each tissue code; shape [2, 256].
        infiltration: share of fatty streaks in muscle.
    """

    stature: float
    girth: float
    fat_mm: float
    atrophy_mm: NDArray[np.float64]
    gap_mm: float
    twist_deg: NDArray[np.float64]
    field_mm: NDArray[np.float32]
    attenuation: NDArray[np.float32]
    infiltration: float


def draw_subject(rng: np.random.Generator, label_set: LabelSet) -> Subject:
    """Draw a subject. Ranges: stature 1.57 to 1.93 m, girth +-9 %, fat 4 to 22 mm, infiltration 1 to 10 %."""
    return Subject(
        stature=float(rng.uniform(0.90, 1.10)),
        girth=float(rng.uniform(0.92, 1.09)),
        fat_mm=float(rng.uniform(4, 22)),
        atrophy_mm=rng.normal(rng.uniform(-0.5, 1.2), 0.5, (2, len(label_set.structures))),
        gap_mm=float(rng.uniform(0.8, 2.2)),
        twist_deg=rng.uniform(-6, 8, 2),
        field_mm=rng.normal(0, 2.2, (2, *FIELD_KNOTS)).astype(np.float32),
        attenuation=draw_attenuation(rng, label_set),
        infiltration=float(rng.uniform(0.01, 0.10)),
    )
