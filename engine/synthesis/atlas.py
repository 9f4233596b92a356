"""Reads an anatomical atlas from a folder: a label volume, its sides, and a table of what the labels mean."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.synthesis.anatomy import Anatomy, Joints, prepare, upright_grid
from engine.synthesis.tissues import SIDES, tissue_table
from engine.volume import FloatArray

LABELS, SIDE_LABELS, TABLE = "thigh_atlas_1p5mm.nii.gz", "thigh_atlas_side_1p5mm.nii.gz", "labels.csv"
RENAMED = {
    "other_soft_tissue": "soft_tissue",
    "lumbar_vertebrae": "vertebra",
    "calf_muscles": "calf_muscle",
    "femur_trabecular": "femur_spongy",
    "ilium_trabecular": "ilium_spongy",
    "other_trabecular": "other_spongy",
}
"""Names of the atlas that are others here."""
LEFT_SIDE = 2
ORIGIN_MM = np.array([0.0, -95.0, 405.0])
"""What becomes the origin, in the atlas's own LPS mm: midline, depth of the hip joint, level of the knee joint."""
JOINTS = Joints(
    hip_mm=np.array([[-90.0, 5.0, 402.0], [90.0, 5.0, 402.0]]),
    knee_mm=np.array([[-96.0, 22.0, 0.0], [96.0, 22.0, 0.0]]),
)
ABOVE_MM, BELOW_MM = 75.0, 45.0
"""By how much the trunk and the calf are carried on beyond the atlas's ends."""
ROOM_MM = 40.0
"""Air added around it, for subjects with more fat."""
ATTRIBUTION = (
    "Anatomy adapted from BodyParts3D, (c) The Database Center for Life Science, licensed under "
    "CC Attribution-Share Alike 2.1 Japan."
)


@dataclass(frozen=True)
class AtlasFolder:
    """An atlas in a folder.

    Attributes:
        folder: holds `thigh_atlas_1p5mm.nii.gz`, `thigh_atlas_side_1p5mm.nii.gz` and `labels.csv`.
    """

    folder: Path

    def anatomy(self) -> Anatomy:
        """Read it, turn it upright, carry trunk and calf on, and put the origin between the knees.

        Raises:
            VolumeError: a file is missing or unreadable, or a label is not in the table.
        """
        labels, first_mm, spacing_mm = self._read(LABELS)
        sides, _, _ = self._read(SIDE_LABELS)
        codes = self._codes(labels, sides)
        above, below, room = (round(length / spacing_mm) for length in (ABOVE_MM, BELOW_MM, ROOM_MM))
        codes = np.concatenate([_calf(codes[:1]).repeat(below, 0), codes, codes[-1:].repeat(above, 0)])
        codes = np.pad(codes, ((0, 0), (room, room), (room, room)))
        start_mm = first_mm - ORIGIN_MM - spacing_mm * np.array([room, room, below])
        shape = (codes.shape[0], codes.shape[1], codes.shape[2])
        grid = upright_grid(shape, spacing_mm, (float(start_mm[0]), float(start_mm[1]), float(start_mm[2])))
        return prepare("atlas", ATTRIBUTION, codes, grid, JOINTS)

    def _read(self, name: str) -> tuple[NDArray[np.uint8], FloatArray, float]:
        """A volume turned upright, the place (x, y, z) of its first voxel in mm, and its spacing."""
        path = self.folder / name
        try:
            image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            remedy = "Give the folder of the whole atlas"
            raise VolumeError(f"atlas {path}", "it is missing or no volume", remedy) from error
        array = SimpleITK.GetArrayFromImage(image).astype(np.uint8)
        return array, np.array(image.GetOrigin()), float(image.GetSpacing()[0])

    def _codes(self, labels: NDArray[np.uint8], sides: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Tissue codes of the atlas's labels."""
        table = tissue_table()
        codes = np.zeros((256, len(SIDES)), dtype=np.uint8)
        known = np.zeros(256, dtype=bool)
        for value, key in self._names().items():
            known[value] = True
            if key != "air":
                codes[value] = [table.code(RENAMED.get(key, key), side) for side in SIDES]
        unknown = np.unique(labels[~known[labels]])
        if unknown.size:
            reason = f"the values {unknown.tolist()} are not in {TABLE}"
            raise VolumeError(f"atlas {self.folder / LABELS}", reason, "Give the table that belongs to it")
        return np.asarray(codes[labels, (sides == LEFT_SIDE).astype(np.uint8)], dtype=np.uint8)

    def _names(self) -> dict[int, str]:
        path = self.folder / TABLE
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return {int(row["value"]): row["key"] for row in csv.DictReader(file)}
        except (OSError, KeyError, ValueError) as error:
            reason = "it is missing or has no columns value and key"
            raise VolumeError(f"atlas {path}", reason, "Give the folder of the whole atlas") from error


def _calf(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a slice below the knee becomes when it is carried on: muscles of the thigh end, those of the calf do not."""
    table = tissue_table()
    return np.where(table.muscles[codes], table.code("soft_tissue"), codes).astype(np.uint8)
