"""Tissues of a synthetic scan: their attenuation and how it varies.

Sources of the figures: muscle by age PMC10920396; fat -190..-30 HU and mode -105; muscles of one patient differ by
some 35 HU; hip bone median 191; femoral cortex 1000 to 1700, shaft marrow -80..0 (textbook ranges).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.labels import LabelSet

FIRST_CONTEXT = 64
"""Codes 1..58 are the segments of the label set; context begins here."""


@dataclass(frozen=True)
class Tissue:
    """One tissue: mean HU, its SD between subjects, SD of its texture inside one subject."""

    name: str
    mean_hu: float
    between_hu: float
    texture_hu: float


CONTEXT = (
    Tissue("skin", 40, 10, 8),
    Tissue("subcutaneous_fat", -105, 6, 8),
    Tissue("intermuscular_fat", -92, 10, 14),
    Tissue("visceral_fat", -100, 7, 10),
    Tissue("soft_tissue", 45, 12, 12),
    Tissue("other_muscle", 45, 10, 9),
    Tissue("bowel", 25, 15, 30),
    Tissue("urine", 6, 5, 3),
    Tissue("vessel", 42, 6, 5),
    Tissue("nerve", 25, 10, 8),
    Tissue("spongy_bone", 190, 60, 70),
    Tissue("cortical_bone", 900, 150, 130),
    Tissue("femur_cortex", 1300, 150, 120),
    Tissue("femur_marrow", -45, 25, 18),
    Tissue("femur_spongy", 200, 60, 70),
    Tissue("ilium_cortex", 600, 130, 130),
    Tissue("ilium_spongy", 170, 50, 70),
    Tissue("table", -350, 60, 10),
)
AIR_HU = -1000.0
MUSCLE = Tissue("muscle", 43, 9, 9)
MUSCLE_BETWEEN_MUSCLES_HU = 7.0
MUSCLE_BETWEEN_SIDES_HU = 2.5


def context_code(name: str) -> int:
    """The code of a context tissue; KeyError where there is none."""
    return {tissue.name: FIRST_CONTEXT + index for index, tissue in enumerate(CONTEXT)}[name]


def draw_attenuation(rng: np.random.Generator, label_set: LabelSet) -> NDArray[np.float32]:
    """Mean HU (row 0) and texture SD (row 1) of every tissue code of one subject; shape [2, 256]."""
    table = np.zeros((2, 256), dtype=np.float32)
    table[0, 0] = AIR_HU
    for index, tissue in enumerate(CONTEXT):
        table[:, FIRST_CONTEXT + index] = (rng.normal(tissue.mean_hu, tissue.between_hu), tissue.texture_hu)
    patient = rng.normal(MUSCLE.mean_hu, MUSCLE.between_hu)
    for structure in label_set.structures:
        muscle = patient + rng.normal(0, MUSCLE_BETWEEN_MUSCLES_HU)
        for number in (2 * structure.value - 1, 2 * structure.value):
            table[:, number] = (muscle + rng.normal(0, MUSCLE_BETWEEN_SIDES_HU), MUSCLE.texture_hu)
    return table
