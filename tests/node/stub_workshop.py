"""A stub of what segments: a rule of Hounsfield units in place of a network, and a phantom small enough for it.

It stands for the network only; files, DICOM, SQL and jobs around it are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dicom_io.series import SeriesRef, SeriesRules
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.labels import thigh29
from engine.package import ModelPackage
from engine.preprocessing import Preprocessing
from engine.segmentation import Segmentation
from engine.volume import Volume
from node.stages import Workshop

SLICES, SIZE, SPACING_MM = 36, 72, 6.0
STUB = "stub"
RULES = SeriesRules(min_slices=20, min_coverage_mm=150.0)


def phantom() -> Volume:
    """Two cylinders of muscle around two shafts of bone, 216 mm long."""
    grid = patient_grid((SLICES, SIZE, SIZE), (SPACING_MM, SPACING_MM, SPACING_MM))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] * SPACING_MM
    plane = np.full((SIZE, SIZE), -1000, dtype=np.int16)
    middle = SIZE * SPACING_MM / 2
    for centre in (middle - 95.0, middle + 95.0):
        distance = np.hypot(rows - middle, columns - centre)
        plane[distance < 80.0] = 50
        plane[distance < 15.0] = 900
    return Volume(np.ascontiguousarray(np.broadcast_to(plane, (SLICES, SIZE, SIZE))), grid)


def phantom_series(folder: Path, seed: int = 1) -> SeriesRef:
    """The phantom as CT files."""
    return write_series(phantom(), folder, SyntheticStudy(seed=seed))


class RuleSegmenter:
    """Bone above 300 HU is femur, the rest of the soft tissue is vastus lateralis; the patient's left is at +x."""

    def segment(self, volume: Volume, progress: Callable[[int, int], None]) -> Segmentation:
        """Label by the rule."""
        labels = np.zeros(volume.hu.shape, dtype=np.uint8)
        indices = np.moveaxis(np.indices(volume.hu.shape, dtype=np.float64), 0, -1)
        left = volume.grid.to_patient(indices)[..., 0] > 0
        label_set = thigh29()
        for key, low, high in (("vastus_lateralis", 0, 300), ("femur", 300, 3000)):
            value = label_set.structure(key).value
            where = (volume.hu >= low) & (volume.hu < high)
            labels[where] = 2 * value - 1
            labels[where & left] = 2 * value
        progress(1, 1)
        return Segmentation(labels, volume.grid, label_set)


def stub_workshop(model: str = STUB) -> Workshop:
    """A workshop with the rule in place of the network of a model of this name."""
    package = ModelPackage(
        folder=Path("stub"),
        name=model,
        version="0",
        digest="0" * 64,
        label_set=thigh29(),
        preprocessing=Preprocessing(),
        intended_use="For tests only",
        training_statement="A rule of Hounsfield units for tests; nothing was trained.",
        training_phrase="a rule for tests",
        attribution="",
        network={},
        onnx=Path("stub"),
    )
    return Workshop(package, RuleSegmenter(), "rule", "fp32", RULES, "0.1.0")
