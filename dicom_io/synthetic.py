"""CT series written from any volume: for tests, demonstrations and the self-test of an installation.

Every file is a complete CT Image Storage instance (PS3.3 A.3) of a patient called `Synthetic^Phantom`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from dicom_io.errors import DicomIoError
from dicom_io.series import SeriesRef
from engine.volume import FloatArray, Grid, UnevenPlanes, Volume

INTERCEPT_HU = -1024
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_NAMESPACE = uuid.UUID("5f7c7b1e-2f0b-5f53-9a86-2c1d6e0f4a37")  # ours; a version 5 UUID of it and a name is a UID
_DATE, _TIME = "20240115", "093000"

# Direction along a row and down a column of an image as the gantry sees it, LPS, by Patient Position
# (PS3.3 C.7.3.1.1.2): down is where gravity points, across is to the right of someone who faces the gantry.
PATIENT_AXES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
}


@dataclass(frozen=True)
class SyntheticStudy:
    """What a synthetic series says beside its voxels.

    Attributes:
        seed: names the study; all UIDs follow from it, the series number and the instance number.
        series_number: tells apart several series of one study.
        patient_position: the label Patient Position; the geometry comes from the volume's grid alone.
        instance_order: whether Instance Number grows or falls along the grid's slices.
        transfer_syntax_uid: explicit or implicit VR little endian, or a lossless one that pydicom can compress to.
        patient_sex: M, F, O, or empty for unknown.
        patient_age_years: None leaves Patient's Age empty.
        patient_size_m: None leaves Patient's Size empty.
    """

    seed: int = 0
    series_number: int = 2
    patient_position: str = "HFS"
    instance_order: Literal["ascending", "descending"] = "ascending"
    transfer_syntax_uid: str = ExplicitVRLittleEndian
    patient_sex: str = "F"
    patient_age_years: int | None = 60
    patient_size_m: float | None = 1.7

    def uid(self, *names: object) -> str:
        """The UID of that name in this study: `2.25.<int>` (PS3.5 Annex B.2), the same every time."""
        name = "/".join(str(part) for part in (self.seed, *names))
        return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def patient_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    patient_position: str = "HFS",
    rotation_deg: float = 0.0,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """The grid of a scan in that patient position, slices along the normal of its images.

    Args:
        shape: slices, rows, columns.
        spacing_mm: between slices, rows, columns.
        patient_position: a key of `PATIENT_AXES`.
        rotation_deg: turns the images in their plane.
        centre_mm: where the middle of the grid lies, LPS.
    """
    row, column = np.array(PATIENT_AXES[patient_position], dtype=np.float64)
    turn = np.deg2rad(rotation_deg)
    turned_row = np.cos(turn) * row + np.sin(turn) * column
    turned_column = np.cos(turn) * column - np.sin(turn) * row
    axes = np.stack([np.cross(row, column), turned_column, turned_row], axis=1) * spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.array(centre_mm) - axes @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def tilted(grid: Grid, tilt_deg: float) -> Grid:
    """The grid of the same scan with the gantry tilted: images turned about their rows, the table's way kept.

    The slices' distance along the table is kept too, so their distance along the normal shrinks by the cosine.
    """
    affine, turn = np.array(grid.affine), np.deg2rad(tilt_deg)
    row, column = (affine[:3, axis] / grid.spacing_mm[axis] for axis in (2, 1))
    turned = np.cos(turn) * column + np.sin(turn) * np.cross(row, column)
    middle = np.array([0.0, (grid.shape[1] - 1) / 2, 0.0])
    affine[:3, 1] = turned * grid.spacing_mm[1]
    affine[:3, 3] += grid.affine[:3, :3] @ middle - affine[:3, :3] @ middle
    return Grid(grid.shape, affine, grid.uneven)


def spaced(grid: Grid, steps_mm: Sequence[float]) -> Grid:
    """The grid with slices at other distances from the first on.

    Args:
        grid: its slice step gives the direction only.
        steps_mm: along that direction from each slice to the next.
    """
    affine = np.array(grid.affine)
    places = np.concatenate([[0.0], np.cumsum(steps_mm)])
    mean_mm = float(places[-1]) / (len(places) - 1)
    affine[:3, 0] *= mean_mm / grid.spacing_mm[0]
    return Grid(grid.shape, affine, UnevenPlanes(0, places / places[-1] * (len(places) - 1)))


def write_series(volume: Volume, folder: Path, study: SyntheticStudy) -> SeriesRef:
    """Write one file for each slice, named by its Instance Number; the folder is made where it is missing.

    Returns:
        the series, its files in the order of the volume's slices.

    Raises:
        DicomIoError: a value is below -1024 HU, or rows and columns of the grid are not perpendicular; neither can be
            written.
    """
    if volume.hu.min() < INTERCEPT_HU:
        reason = f"values below {INTERCEPT_HU} HU do not fit its unsigned pixels"
        raise DicomIoError("synthetic series", reason, "Clip the volume first")
    orientation, step_mm = _plane(volume.grid)
    common = _common(volume.grid, study)
    common.ImageOrientationPatient = _decimals(orientation)
    if volume.grid.uneven is None:
        common.SliceThickness = common.SpacingBetweenSlices = _decimal(step_mm)
    folder.mkdir(parents=True, exist_ok=True)
    count = len(volume.hu)
    numbers = range(1, count + 1) if study.instance_order == "ascending" else range(count, 0, -1)
    paths = [folder / f"{number:04d}.dcm" for number in numbers]
    files = tuple(_write_slice(volume, index, common, study, path) for index, path in enumerate(paths))
    return SeriesRef(common.StudyInstanceUID, common.SeriesInstanceUID, files)


def _plane(grid: Grid) -> tuple[FloatArray, float]:
    """Direction cosines along a row and down a column, [6], and the slice distance along their normal, mm."""
    column, row = (grid.affine[:3, axis] / grid.spacing_mm[axis] for axis in (1, 2))
    if abs(row @ column) > 1e-6:
        raise DicomIoError("synthetic series", "the grid's rows and columns are not perpendicular", "Give another grid")
    return np.concatenate([row, column]), float(abs(np.cross(row, column) @ grid.affine[:3, 0]))


def _common(grid: Grid, study: SyntheticStudy) -> Dataset:
    """The attributes that all slices share, in the order of the modules of PS3.3 A.3.3."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = CTImageStorage
    _fill_patient_and_study(dataset, study)
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = study.uid("series", study.series_number)
    dataset.SeriesNumber = study.series_number
    dataset.SeriesDescription = "Synthetic thighs"
    dataset.Laterality = ""  # both sides
    dataset.PatientPosition = study.patient_position
    dataset.FrameOfReferenceUID = study.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "Vastus"
    dataset.ManufacturerModelName = "synthetic"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber = 1
    dataset.KVP = "120"
    dataset.BurnedInAnnotation = "NO"
    _, dataset.Rows, dataset.Columns = grid.shape
    dataset.PixelSpacing = _decimals(np.array(grid.spacing_mm[1:]))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT_HU), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "50", "400"
    return dataset


def _fill_patient_and_study(dataset: Dataset, study: SyntheticStudy) -> None:
    dataset.PatientName = "Synthetic^Phantom"
    dataset.PatientID = f"SYNTH-{study.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = study.patient_sex
    dataset.PatientAge = "" if study.patient_age_years is None else f"{study.patient_age_years:03d}Y"
    dataset.PatientSize = None if study.patient_size_m is None else _decimal(study.patient_size_m)
    dataset.StudyInstanceUID = study.uid("study")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = _TIME
    dataset.StudyID = str(study.seed)
    dataset.StudyDescription = "Synthetic CT"
    dataset.AccessionNumber = f"SYNTH-{study.seed}"
    dataset.ReferringPhysicianName = ""


def _write_slice(volume: Volume, index: int, common: Dataset, study: SyntheticStudy, path: Path) -> Path:
    dataset = Dataset()
    dataset.update(common)
    dataset.InstanceNumber = int(path.stem)
    dataset.SOPInstanceUID = study.uid("series", study.series_number, "instance", dataset.InstanceNumber)
    dataset.ImagePositionPatient = _decimals(volume.grid.to_patient(np.array([index, 0, 0])))
    if volume.grid.uneven is not None:
        dataset.SliceThickness = _decimal(_plane(volume.grid)[1] * float(volume.grid.uneven.thickness[index]))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    syntax = UID(study.transfer_syntax_uid)
    dataset.file_meta.TransferSyntaxUID = syntax if syntax in _NATIVE else ExplicitVRLittleEndian
    stored = volume.hu[index].astype(np.int32) - INTERCEPT_HU
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax not in _NATIVE:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _decimal(value: float) -> DSfloat:
    """A number as the decimal string that keeps most of it; one may have 16 characters (PS3.5 6.2)."""
    return DSfloat(float(value), auto_format=True)


def _decimals(values: FloatArray) -> list[DSfloat]:
    return [_decimal(value) for value in values]
