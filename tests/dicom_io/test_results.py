"""Results as a whole: whose they are, when they were made, and that a second run changes nothing."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.errors import DicomIoError
from dicom_io.findings import Provenance, ResultRequest
from dicom_io.heading import RESULT_KINDS, check_request, series_description
from dicom_io.pages import draw_page
from dicom_io.results import Findings, Results, write_results
from dicom_io.series import SeriesRules, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, write_series
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, derive_uids
from engine.labels import thigh29
from engine.measure import measure
from engine.models import find_model
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume

MakeRequest = Callable[..., ResultRequest]


def write_all(request: ResultRequest, folder: Path) -> Results:
    folder.mkdir(exist_ok=True)
    return write_results(request, folder)


def test_every_kind_is_written_and_accounted_for(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    results = write_all(request, tmp_path)
    assert [file.kind for file in results.files] == ["seg", "sr", "sc"] == list(RESULT_KINDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sc.dcm", "seg.dcm", "sr.dcm"]
    for file in results.files:
        dataset, data = dcmread(file.path), file.path.read_bytes()
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.size_bytes == len(data)
        assert (file.series_uid, file.sop_instance_uid) == (dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        assert file.sop_class_uid == dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


def test_a_second_run_gives_the_same_bytes(make_request: MakeRequest, tmp_path: Path) -> None:
    first, second = write_all(make_request(), tmp_path / "a"), write_all(make_request(), tmp_path / "b")
    assert [file.sha256 for file in first.files] == [file.sha256 for file in second.files]
    third = write_all(make_request(), tmp_path / "a")
    assert third == first


def test_patient_and_study_are_the_source_s(make_request: MakeRequest, tmp_path: Path) -> None:
    def odd(header: Dataset) -> None:
        header.SpecificCharacterSet = "ISO_IR 192"
        header.PatientName = "Müller^Änne"
        header.add_new("PatientSex", "LO", "female")  # no value that the Standard knows
        header.PatientSize = "1.7"
        header.StudyDescription = "CT Oberschenkel"
        del header.PatientBirthDate, header.AccessionNumber

    for file in write_all(make_request(change=odd), tmp_path).files:
        dataset = dcmread(file.path)
        assert dataset.PatientName == "Müller^Änne"
        assert dataset.PatientID == "SYNTH-1"
        assert dataset.PatientSex == "female"
        assert (dataset.PatientSize, dataset.StudyDescription) == (1.7, "CT Oberschenkel")
        assert (dataset.StudyDate, dataset.StudyID) == ("20260303", "S1")
        assert dataset.PatientBirthDate == "" and dataset.AccessionNumber == ""
        assert dataset.SpecificCharacterSet == "ISO_IR 192"


def test_names_stay_out_of_the_log(make_request: MakeRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def odd(header: Dataset) -> None:
        header.PatientName = "Doe Jane"  # highdicom warns of a name without ^

    with caplog.at_level(logging.DEBUG):
        write_all(make_request(change=odd), tmp_path)
    assert "Doe" not in caplog.text
    assert "SYNTH-1" not in caplog.text


def test_headers_are_left_as_they_were(make_request: MakeRequest, tmp_path: Path) -> None:
    def forget(header: Dataset) -> None:
        header.SliceThickness = None

    request = make_request(change=forget)
    before = [header.to_json() for header in request.source.headers]
    write_all(request, tmp_path)
    assert [header.to_json() for header in request.source.headers] == before


@pytest.mark.parametrize(
    "keyword",
    [
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "SOPInstanceUID",
        "SOPClassUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_source_without_identity_or_place_is_refused(
    make_request: MakeRequest, tmp_path: Path, keyword: str, empty: bool
) -> None:
    def spoil(header: Dataset) -> None:
        if empty:
            setattr(header, keyword, None)
        else:
            delattr(header, keyword)

    with pytest.raises(DicomIoError, match=keyword):
        write_all(make_request(change=spoil), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_of_two_frames_of_reference_are_refused(make_request: MakeRequest) -> None:
    request = make_request()
    request.source.headers[3].FrameOfReferenceUID = "1.2.3"
    with pytest.raises(DicomIoError, match="differ in FrameOfReferenceUID"):
        check_request(request)


def test_findings_of_another_grid_are_refused(make_request: MakeRequest) -> None:
    request = make_request()
    with pytest.raises(DicomIoError, match="the segmentation"):
        check_request(replace(request, findings=make_request((5, 16, 24)).findings))
    with pytest.raises(DicomIoError, match="mm off the grid"):
        check_request(replace(request, findings=make_request(axes="slices downwards").findings))


def test_a_grid_turned_in_its_plane_is_refused(make_request: MakeRequest) -> None:
    request = make_request()
    turn, angle = np.eye(4), np.deg2rad(2.0)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = request.source.grid
    affine = turn @ grid.affine
    affine[:3, 3] = grid.affine[:3, 3]  # the first voxel of every slice stays where it is
    segmentation = Segmentation(request.findings.segmentation.labels, Grid(grid.shape, affine), thigh29())
    with pytest.raises(DicomIoError, match="mm off the grid"):
        check_request(replace(request, findings=replace(request.findings, segmentation=segmentation)))


def test_an_empty_segmentation_is_refused(make_request: MakeRequest) -> None:
    with pytest.raises(DicomIoError, match="no voxel"):
        check_request(make_request(labels=np.zeros((6, 16, 24), dtype=np.uint8)))


def test_the_model_s_digest_is_the_serial_number(make_request: MakeRequest, tmp_path: Path) -> None:
    for file in write_all(make_request(), tmp_path).files:
        dataset = dcmread(file.path)
        assert (dataset.DeviceSerialNumber, dataset.SoftwareVersions) == ("ab" * 32, "0.1.0")


def test_lossy_compression_of_any_source_image_is_handed_on(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    lossy = request.source.headers[3]
    lossy.LossyImageCompression, lossy.LossyImageCompressionRatio = "01", 10
    lossy.LossyImageCompressionMethod = "ISO_10918_1"
    for file in write_all(request, tmp_path / "lossy").files[::2]:
        dataset = dcmread(file.path)
        assert dataset.LossyImageCompression == "01"
        assert (dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod) == (10, "ISO_10918_1")
    for file in write_all(make_request(), tmp_path / "exact").files[::2]:
        assert dcmread(file.path).get("LossyImageCompression", "00") == "00"


def test_series_descriptions_name_the_model_and_its_training(provenance: Provenance) -> None:
    assert [series_description(kind, provenance) for kind in RESULT_KINDS.values()] == [
        "Vastus segments, model compact, trained on synthetic CT",
        "Vastus report, model compact, trained on synthetic CT",
        "Vastus picture, model compact, trained on synthetic CT",
    ]


@pytest.mark.parametrize("phrase", ["trained on synthetic CT and on much else", "trained on\\synthetic CT", "für CT"])
def test_a_description_is_refused_rather_than_cut(make_request: MakeRequest, phrase: str) -> None:
    request = make_request()
    with pytest.raises(DicomIoError, match="text"):
        check_request(replace(request, provenance=replace(request.provenance, training_phrase=phrase)))


@pytest.mark.parametrize(
    "changed",
    [
        {"training_statement": "für CT"},
        {"attribution": "Käthe's atlas"},
        {"training_statement": "two\nlines"},
        {"training_statement": "many words " * 100},
        {"intended_use": "For research, not for diagnosis, nor for much else"},
        {"intended_use": ""},
    ],
)
def test_words_that_do_not_fit_are_refused(make_request: MakeRequest, changed: dict[str, Any]) -> None:
    request = make_request()
    with pytest.raises(DicomIoError, match=r"^t(raining statement|ext)"):
        check_request(replace(request, provenance=replace(request.provenance, **changed)))


def test_every_result_says_what_it_is_for_and_what_made_it(make_request: MakeRequest, tmp_path: Path) -> None:
    for file in write_all(make_request(), tmp_path).files:
        dataset = dcmread(file.path)
        (equipment,) = dataset.ContributingEquipmentSequence
        assert equipment.ContributionDescription == (
            "For research, not for diagnosis. Trained on synthetic CT only; no patient's images were used. "
            "Anatomy after somebody's atlas."
        )
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("Vastus compact", ["0.1.0", "1.0.0"])
        assert (equipment.DeviceSerialNumber, equipment.Manufacturer) == ("ab" * 32, "Vastus")
        assert str(equipment.ContributionDateTime) == "20260304050607.089000+0000"
    seg = dcmread(tmp_path / "seg.dcm")
    assert seg.ContentDescription == "For research, not for diagnosis; trained on synthetic CT"


def test_the_words_of_every_model_that_ships_fit(make_request: MakeRequest) -> None:
    request = make_request()
    names = sorted(path.name for path in (Path(str(files("engine"))) / "packages").iterdir() if path.is_dir())
    assert names
    for name in names:
        package = find_model(name)
        told = replace(
            request.provenance,
            model_name=package.name,
            model_version=package.version,
            intended_use=package.intended_use,
            training_phrase=package.training_phrase,
            training_statement=package.training_statement,
            attribution=package.attribution,
        )
        check_request(replace(request, provenance=told))
        draw_page(replace(request, provenance=told))


def test_a_time_without_zone_is_refused(provenance: Provenance) -> None:
    with pytest.raises(DicomIoError, match="no zone"):
        replace(provenance, created_at=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(None, "20260304 050607.089"), ("+0900", "20260304 140607.089"), ("-0530", "20260303 233607.089")],
)
def test_times_are_the_provenance_s_in_the_source_s_zone(
    make_request: MakeRequest, tmp_path: Path, offset: str | None, expected: str
) -> None:
    def state(header: Dataset) -> None:
        if offset:
            header.TimezoneOffsetFromUTC = offset

    for file in write_all(make_request(change=state), tmp_path).files:
        dataset = dcmread(file.path)
        assert dataset.get("TimezoneOffsetFromUTC") == offset
        for part in ("Series", "Content", "InstanceCreation"):
            stated = f"{dataset[f'{part}Date'].value} {dataset[f'{part}Time'].value}"
            assert stated.startswith(expected)


def test_a_time_without_stated_offset_keeps_its_own_zone(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    local = request.provenance.created_at.astimezone(timezone(timedelta(hours=2)))
    results = write_all(replace(request, provenance=replace(request.provenance, created_at=local)), tmp_path)
    assert dcmread(results.files[1].path).ContentTime.startswith("070607")


@pytest.mark.parametrize("position", ["HFS", "FFS"])
def test_from_files_to_files(provenance: Provenance, tmp_path: Path, position: str) -> None:
    affine = np.array([[0, 0, 2.0, -20], [0, 2.0, 0, -10], [5.0, 0, 0, 100], [0, 0, 0, 1]])
    draw = np.random.default_rng(2)
    grid = Grid((24, 16, 24), affine)
    volume = Volume(draw.integers(-100, 120, grid.shape).astype(np.int16), grid)
    (tmp_path / "ct").mkdir()
    ref = write_series(volume, tmp_path / "ct", SyntheticStudy(patient_position=position, instance_order="descending"))
    source = open_series(ref, SeriesRules(min_slices=1, min_coverage_mm=0.0))
    read = read_volume(source)
    segmentation = Segmentation(draw.integers(0, 59, grid.shape).astype(np.uint8), read.grid, thigh29())
    findings = Findings(read, segmentation, measure(read, segmentation))
    (tmp_path / "results").mkdir()
    request = ResultRequest(source, findings, provenance, derive_uids("job-1"))
    results = write_results(request, tmp_path / "results")
    assert {dcmread(file.path).StudyInstanceUID for file in results.files} == {ref.study_uid}
    assert len({file.series_uid for file in results.files} | {ref.series_uid}) == 4
