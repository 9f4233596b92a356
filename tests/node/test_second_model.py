"""A package that shares nothing with the thigh model goes through the whole pipeline."""

from __future__ import annotations

import csv
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from flat_model import NAME, TISSUES, write_flat_package
from pydicom import dcmread

from config.settings import Settings, load_settings
from dicom_io.errors import DicomIoError
from dicom_io.report import read_figures
from dicom_io.seg_read import read_seg
from dicom_io.series import SeriesRules, open_series
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.errors import BackendError
from engine.package import STORED_WINDOWS
from engine.volume import Volume
from node import compose
from node.by_hand import HandJob, segment_folder

SHAPE, SPACING_MM = (24, 64, 64), (6.0, 5.0, 5.0)


def body() -> Volume:
    """One body, not two legs: a cylinder of muscle in fat, around one bone."""
    grid = patient_grid(SHAPE, SPACING_MM)
    rows, columns = np.mgrid[0 : SHAPE[1], 0 : SHAPE[2]] * 5.0 - 157.5
    distance = np.hypot(rows, columns)
    plane = np.full(SHAPE[1:], -1000, dtype=np.int16)
    for radius, hu in ((120.0, -100), (90.0, 60), (30.0, 800)):
        plane[distance < radius] = hu
    return Volume(np.ascontiguousarray(np.broadcast_to(plane, SHAPE)), grid)


def settings_for(tmp_path: Path) -> Settings:
    path = tmp_path / "vastus.toml"
    path.write_text(
        f'[node]\nstate_dir = "{tmp_path / "state"}"\n[engine]\nmodel = "{NAME}"\n'
        f'model_dirs = ["{tmp_path / "models"}"]\nbackend = "onnxruntime"\nthreads = 1\n'
        "[series]\nmin_slices = 10\nmin_coverage_mm = 50\n",
        encoding="utf-8",
    )
    return load_settings(path, {})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> HandJob:
    folder = tmp_path_factory.mktemp("second")
    write_flat_package(folder / "models" / NAME)
    write_series(body(), folder / "in", SyntheticStudy(seed=1))
    workshop = compose.workshop_of(settings_for(folder))
    (done,) = segment_folder(folder / "in", folder / "out", workshop, lambda *_: None)
    assert done.outcome.parked is None
    return done


def of_kind(job: HandJob, kind: str) -> Path:
    return next(file.path for file in job.files if file.kind == kind)


def true_ml() -> dict[str, float]:
    hu, voxel_ml = body().hu, body().grid.voxel_volume_mm3 / 1000
    return {key: float((hu == value).sum()) * voxel_ml for key, value in (("fat", -100), ("muscle", 60), ("bone", 800))}


def test_the_segmentation_holds_the_packages_own_structures(job: HandJob) -> None:
    dataset = dcmread(of_kind(job, "seg"))
    hd.seg.Segmentation.from_dataset(dataset, copy=True)
    for item, structure in zip(dataset.SegmentSequence, TISSUES.structures, strict=True):
        assert (item.SegmentNumber, item.SegmentLabel) == (structure.value, structure.display)
        coded = item.SegmentedPropertyTypeCodeSequence[0]
        assert (coded.CodingSchemeDesignator, coded.CodeValue) == ("99TISSUES", structure.key.upper())
        assert coded.EquivalentCodeSequence[0].CodingSchemeDesignator == "FMA"
        assert "SegmentedPropertyTypeModifierCodeSequence" not in coded
        assert item.TrackingID == structure.key
    source = open_series(job.series, SeriesRules(10, 50.0))
    labels = read_seg(of_kind(job, "seg"), source, TISSUES).labels
    truth = np.select([body().hu == -100, body().hu == 60, body().hu == 800], [1, 2, 3])
    order = 1 if np.mean(labels == truth) > np.mean(labels == truth[::-1]) else -1
    assert np.mean(labels == truth[::order]) > 0.97


def test_the_report_tells_volumes_without_a_side(job: HandJob) -> None:
    assert read_figures(of_kind(job, "sr"), TISSUES) == job.figures
    assert {figure.side for figure in job.figures} == {None}
    volumes = {figure.structure: figure.value for figure in job.figures if figure.quantity == "volume"}
    for key, expected in true_ml().items():
        assert volumes[key] == pytest.approx(expected, rel=0.12), key
    report = hd.sr.srread(of_kind(job, "sr")).content
    assert isinstance(report, hd.sr.MeasurementReport)
    groups = report.get_volumetric_roi_measurement_groups()
    assert [group.finding_sites[0].laterality for group in groups] == [None] * 3
    assert [group.tracking_identifier for group in groups] == ["fat", "muscle", "bone"]


def test_the_table_and_the_picture_know_no_sides(job: HandJob) -> None:
    with (job.folder / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["side"] for row in rows} == {""}
    assert [(row["structure"], float(row["value"])) for row in rows] == [
        (figure.structure, figure.value) for figure in job.figures
    ]
    assert dcmread(of_kind(job, "sc")).ImageLaterality == "U"


def test_a_backend_that_answers_otherwise_never_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = write_flat_package(tmp_path / "models" / NAME)
    settings = settings_for(tmp_path)
    assert compose.package_of(settings) == package and package.windows == package.folder / STORED_WINDOWS
    from engine.backends import onnxruntime

    honest = onnxruntime.OnnxRuntimeSession.run
    monkeypatch.setattr(onnxruntime.OnnxRuntimeSession, "run", lambda self, windows: honest(self, windows).roll(1, 1))
    with pytest.raises(BackendError, match=r"error of the logits .*, largest 0\.005, same class in .*, Dice 0\.\d+"):
        compose.workshop_of(settings)


def test_a_package_whose_words_fit_no_result_is_refused_before_any_job(tmp_path: Path) -> None:
    write_flat_package(tmp_path / "models" / NAME, training_phrase="trained on what nobody can name in a few words")
    with pytest.raises(DicomIoError, match="longer than 64 characters"):
        compose.workshop_of(settings_for(tmp_path))
