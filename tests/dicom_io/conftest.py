"""What the tests of the result writers share: a small series in memory, with labels and measurements."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage

from dicom_io.findings import Findings, Provenance, ResultRequest
from dicom_io.series import SeriesRef, SourceSeries
from dicom_io.uids import derive_uid, derive_uids
from engine.labels import thigh29
from engine.measure import Measurements, SegmentMeasurement
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume

Axes = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
MakeRequest = Callable[..., ResultRequest]

SPACING_MM = (2.0, 1.5, 1.25)  # along slices, rows and columns


def _turned(degrees: float) -> Axes:
    """Axial axes turned about the patient's left-right axis."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return np.asarray(turn @ AXES["axial"])


# Columns: the directions of slices, rows and columns of the grid, LPS.
AXES: dict[str, Axes] = {"axial": np.eye(3)[::-1]}
AXES["feet first"] = AXES["axial"] * (-1, 1, -1)  # slices run to the feet, columns to the patient's right
AXES["slices downwards"] = AXES["axial"] * (-1, 1, 1)
AXES["oblique"] = _turned(20)


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    return Provenance(
        job_id="job-1",
        created_at=datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC),
        software_version="0.1.0",
        model_name="compact",
        model_version="1.0.0",
        model_digest="ab" * 32,
        intended_use="For research, not for diagnosis",
        training_phrase="trained on synthetic CT",
        training_statement="Trained on synthetic CT only; no patient's images were used.",
        attribution="Anatomy after somebody's atlas.",
        backend="openvino",
        precision="float32",
    )


@pytest.fixture(scope="session")
def make_request(provenance: Provenance) -> MakeRequest:
    """Make a request of a shape and of axes named in `AXES`; `change` is applied to every header."""

    def make(
        shape: tuple[int, int, int] = (6, 16, 24),
        axes: str = "axial",
        labels: Labels | None = None,
        change: Callable[[FileDataset], None] | None = None,
    ) -> ResultRequest:
        affine = np.eye(4)
        affine[:3, :3] = AXES[axes] * SPACING_MM
        affine[:3, 3] = (-12.5, 34.25, -700.0)
        grid = Grid(shape, affine)
        draw = np.random.default_rng(0)
        hu = draw.integers(-100, 120, shape).astype(np.int16)
        if labels is None:
            labels = draw.integers(0, 59, shape).astype(np.uint8)
            labels[labels % 3 == 0] = 0  # so that some structures are absent
        headers = tuple(_header(grid, k) for k in range(shape[0]))
        for header in headers:
            if change:
                change(header)
        study, series = headers[0].get("StudyInstanceUID", ""), headers[0].get("SeriesInstanceUID", "")
        source = SourceSeries(SeriesRef(study, series, ()), headers, grid)
        segmentation = Segmentation(labels, grid, thigh29())
        volume = Volume(hu, grid)
        findings = Findings(volume, segmentation, _measured(volume, segmentation))
        return ResultRequest(source, findings, provenance, derive_uids(provenance.job_id))

    return make


def _measured(volume: Volume, segmentation: Segmentation) -> Measurements:
    """Measurements by the simplest means."""
    rows = []
    for segment in segmentation.label_set.segments:
        mask = segmentation.labels == segment.number
        values = volume.hu[mask].astype(float)
        if values.size == 0:
            rows.append(SegmentMeasurement(segment, 0, 0.0, None, None, False))
            continue
        cut = any(bool(mask.take([0, -1], axis=axis).any()) for axis in range(3))
        ml = values.size * volume.grid.voxel_volume_mm3 / 1000
        mean, sd = float(values.mean()), float(values.std())
        rows.append(SegmentMeasurement(segment, values.size, ml, mean, sd, cut))
    return Measurements(tuple(rows))


def _header(grid: Grid, k: int) -> FileDataset:
    header = FileDataset("slice.dcm", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    rows, columns = grid.affine[:3, 1], grid.affine[:3, 2]
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = derive_uid("slice", str(k))
    header.StudyInstanceUID = derive_uid("study")
    header.SeriesInstanceUID = derive_uid("series")
    header.FrameOfReferenceUID = derive_uid("frame of reference")
    header.Modality = "CT"
    header.PatientName = "Synthetic^Phantom"
    header.PatientID = "SYNTH-1"
    header.PatientBirthDate = "19500102"
    header.PatientSex = "F"
    header.StudyDate = "20260303"
    header.StudyTime = "112233"
    header.StudyID = "S1"
    header.AccessionNumber = "A1"
    header.ReferringPhysicianName = ""
    header.PositionReferenceIndicator = ""
    header.Rows, header.Columns = grid.shape[1:]
    header.PixelSpacing = [_decimal(value) for value in grid.spacing_mm[1:]]
    header.SliceThickness = "3"
    header.ImageOrientationPatient = [
        _decimal(value) for axis in (columns, rows) for value in axis / np.linalg.norm(axis)
    ]
    header.ImagePositionPatient = [_decimal(value) for value in grid.to_patient(np.array([k, 0.0, 0.0]))]
    return header


def _decimal(value: float) -> str:
    return f"{float(value):.10g}"


@pytest.fixture(scope="session")
def output_of() -> Callable[..., str]:
    """Run a command of Debian and give what it printed; skip where the command is absent."""

    def run(name: str, *arguments: object) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"the command {name} is not installed")
        done = subprocess.run(
            [path, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        )
        return done.stdout.decode("utf-8", "replace")

    return run
