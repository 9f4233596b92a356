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
from engine.synthesis.tissues import AIR, CODES, SIDES, tissue_table
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
WHOLE_FOLDER = "Give the folder of the whole atlas"
SAME_MM = 1e-4
LEFT_SIDE = 2
ORIGIN_MM = np.array([0.0, -95.0, 405.0])
"""What becomes the origin, in the atlas's own LPS mm: midline, depth of the hip joint, level of the knee joint."""
JOINTS = Joints(
    hip_mm=np.array([[-81.6, 2.0, 414.9], [81.6, 2.0, 414.9]]),
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
            VolumeError: a file is missing or unreadable, its voxels are no cubes, the volumes do not fit, or a label is
                not in the table or no tissue known here.
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

    def _read(self, name: str) -> tuple[NDArray[np.int64], FloatArray, float]:
        """A volume turned upright, the place (x, y, z) of its first voxel in mm, and its spacing."""
        path = self.folder / name
        try:
            image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
        except RuntimeError as error:
            raise VolumeError(f"atlas {path}", "it is missing or no volume", WHOLE_FOLDER) from error
        if np.ptp(image.GetSpacing()) > SAME_MM:
            reason = f"its voxels are no cubes: {image.GetSpacing()} mm"
            raise VolumeError(f"atlas {path}", reason, "Resample it to one spacing")
        array = np.asarray(SimpleITK.GetArrayFromImage(image), dtype=np.int64)
        return array, np.array(image.GetOrigin()), float(image.GetSpacing()[0])

    def _codes(self, labels: NDArray[np.int64], sides: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Tissue codes of the atlas's labels."""
        if sides.shape != labels.shape:
            reason = f"it has the shape {sides.shape}, {LABELS} {labels.shape}"
            raise VolumeError(f"atlas {self.folder / SIDE_LABELS}", reason, WHOLE_FOLDER)
        names = self._names()
        unknown = sorted(set(np.unique(labels).tolist()) - set(names))
        if unknown:
            reason = f"the values {unknown} are not in {TABLE}"
            raise VolumeError(f"atlas {self.folder / LABELS}", reason, "Give the table that belongs to it")
        codes = np.zeros((max(names) + 1, len(SIDES)), dtype=np.uint8)
        for value, key in names.items():
            codes[value] = self._pair(key)
        return np.asarray(codes[labels, (sides == LEFT_SIDE).astype(np.uint8)], dtype=np.uint8)

    def _pair(self, key: str) -> list[int]:
        """The codes of an atlas's name on both sides."""
        table = tissue_table()
        ours = RENAMED.get(key, key)
        if ours == "air":
            return [AIR] * len(SIDES)
        if ours not in {tissue.key for tissue in table.tissues}:
            reason = f"it names {key!r}, which is no tissue known here"
            raise VolumeError(f"atlas {self.folder / TABLE}", reason, "Use the names of engine/synthesis/tissues.csv")
        return [table.code(ours, side) for side in SIDES]

    def _names(self) -> dict[int, str]:
        path = self.folder / TABLE
        reason = "it is missing or has no columns value (0 to 255) and key"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                names = {int(row["value"]): row["key"] for row in csv.DictReader(file)}
        except (OSError, KeyError, ValueError) as error:
            raise VolumeError(f"atlas {path}", reason, WHOLE_FOLDER) from error
        if not names or min(names) < 0 or max(names) > CODES - 1:
            raise VolumeError(f"atlas {path}", reason, WHOLE_FOLDER)
        return names


def _calf(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a slice below the knee becomes when it is carried on: muscles of the thigh end, those of the calf do not."""
    table = tissue_table()
    return np.where(table.muscles[codes], table.code("soft_tissue"), codes).astype(np.uint8)
