"""A series is opened as a volume, or parked with the reason that a person would give."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_io.errors import DicomIoError, NotUnderstood, SeriesParked
from dicom_io.guard import QUIETLY
from dicom_io.series import SeriesRef, SeriesRules, SourceSeries, find_series, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, patient_grid, spaced, tilted, write_series
from engine.volume import Grid, Volume

SHAPE = (8, 6, 5)
SPACING_MM = (5.0, 0.8, 0.7)
ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)
Edit = Callable[[Dataset], object]


def scan(grid: Grid | None = None) -> Volume:
    grid = grid or patient_grid(SHAPE, SPACING_MM)
    return Volume(np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape), grid)


@pytest.fixture
def ref(tmp_path: Path) -> SeriesRef:
    """Eight slices, 5 mm apart, numbered from the lowest."""
    return write_series(scan(), tmp_path / "series", SyntheticStudy())


def edit(files: Sequence[Path], change: Edit) -> None:
    for path in files:
        with QUIETLY:
            dataset = dcmread(path)
            change(dataset)
            dataset.save_as(path)


def moved(offset_mm: Sequence[float]) -> Edit:
    def change(dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [a + b for a, b in zip(dataset.ImagePositionPatient, offset_mm, strict=True)]

    return change


def setting(keyword: str, value: object) -> Edit:
    return lambda dataset: setattr(dataset, keyword, value)


def parked(ref: SeriesRef, rules: SeriesRules = ANY) -> SeriesParked:
    with pytest.raises(SeriesParked) as caught:
        open_series(ref, rules)
    error = caught.value
    assert ref.series_uid in error.thing and error.reason and error.remedy
    return error


def test_a_regular_series_is_opened(ref: SeriesRef) -> None:
    source = open_series(ref, SeriesRules(min_slices=8, min_coverage_mm=40.0))
    assert source.grid.shape == SHAPE
    np.testing.assert_allclose(source.grid.affine, scan().grid.affine, atol=1e-9)
    assert [Path(str(header.filename)) for header in source.headers] == list(ref.files)
    assert all("PixelData" not in header for header in source.headers)
    np.testing.assert_array_equal(read_volume(source).hu, scan().hu)


def test_slices_follow_the_normal_whatever_their_numbers_and_files_say(tmp_path: Path) -> None:
    ref = write_series(scan(), tmp_path, SyntheticStudy(instance_order="descending"))
    source = open_series(SeriesRef(ref.study_uid, ref.series_uid, ref.files[::-1]), ANY)
    assert [header.InstanceNumber for header in source.headers] == list(range(8, 0, -1))
    np.testing.assert_array_equal(read_volume(source).hu, scan().hu)


def test_slices_written_against_the_normal_come_back_along_it(tmp_path: Path) -> None:
    affine = np.array(scan().grid.affine)
    affine[:3, 3] += 7 * affine[:3, 0]
    affine[:3, 0] *= -1
    ref = write_series(scan(Grid(SHAPE, affine)), tmp_path, SyntheticStudy())
    source = open_series(ref, ANY)
    np.testing.assert_allclose(source.grid.affine, scan().grid.affine, atol=1e-9)
    np.testing.assert_array_equal(read_volume(source).hu, scan().hu[::-1])


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (setting("Modality", "MR"), "not_ct", "MR"),
        (setting("SOPClassUID", MRImageStorage), "not_ct", "MR Image Storage"),
        (setting("SOPClassUID", PositronEmissionTomographyImageStorage), "not_ct", "Positron"),
        (setting("SOPClassUID", SecondaryCaptureImageStorage), "secondary_capture", "screen"),
        (setting("SOPClassUID", EnhancedCTImageStorage), "missing_geometry", "frame 1 of image 1 has no functional"),
        (setting("NumberOfFrames", 4), "multi_frame", "several frames"),
        (setting("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", "overview"),
        (setting("SOPInstanceUID", ""), "missing_identifiers", "SOPInstanceUID"),
        (setting("ImagePositionPatient", None), "missing_geometry", "ImagePositionPatient"),
        (setting("ImageOrientationPatient", [1, 0, 0]), "missing_geometry", "ImageOrientationPatient"),
        (setting("PixelSpacing", None), "missing_geometry", "PixelSpacing"),
        (setting("FrameOfReferenceUID", ""), "missing_geometry", "FrameOfReferenceUID"),
        (setting("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "not_a_volume", "perpendicular"),
        (setting("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]), "not_a_volume", "unit vectors"),
        (setting("PixelSpacing", [0, 1]), "not_a_volume", "positive"),
        (setting("SamplesPerPixel", 3), "not_a_volume", "colour"),
        (setting("RescaleSlope", "0"), "not_hounsfield", "Hounsfield"),
        (setting("RescaleIntercept", None), "not_hounsfield", "Hounsfield"),
        (setting("RescaleType", "Z_EFF"), "not_hounsfield", "Z_EFF"),
    ],
)
def test_a_series_that_is_no_ct_volume_is_parked(ref: SeriesRef, change: Edit, code: str, words: str) -> None:
    edit(ref.files, change)
    error = parked(ref)
    assert (error.code, words in error.reason) == (code, True)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (setting("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", "1 of its 8 images"),
        (setting("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "localizer", "different directions"),
        (setting("Rows", 7), "not_a_volume", "2 different numbers of rows"),
        (setting("PixelSpacing", [0.8, 0.71]), "not_a_volume", "different pixel spacings"),
        (setting("FrameOfReferenceUID", "1.2.3"), "not_a_volume", "frames of reference"),
        (setting("SeriesInstanceUID", "1.2.3"), "not_a_volume", "2 different series"),
        (setting("ImagePositionPatient", ["x", "y", "z"]), "missing_geometry", "image 4"),
        (moved((0, 0, 5)), "duplicate_positions", "image 4 and image 5"),
        (moved((0, 0, 2)), "irregular_spacing", "varies from 3.00 to 7.00 mm"),
        (moved((1, 0, 0)), "not_a_volume", "image 4 is displaced sideways by 1.0 mm"),
    ],
)
def test_one_odd_slice_is_named(ref: SeriesRef, change: Edit, code: str, words: str) -> None:
    edit([ref.files[3]], raw_text(change))
    error = parked(ref)
    assert (error.code, words in error.reason) == (code, True), error.reason


def raw_text(change: Edit) -> Edit:
    """Let a change write text that pydicom would refuse to write as a decimal string."""

    def apply(dataset: Dataset) -> None:
        try:
            change(dataset)
        except ValueError:
            dataset.add_new("ImagePositionPatient", "LO", ["x", "y", "z"])

    return apply


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "OTHER-99"),
        ("IssuerOfPatientID", "Elsewhere"),
        ("PatientName", "Other^Person"),
        ("PatientBirthDate", "19010203"),
        ("PatientSex", "M"),
        ("PatientID", ""),
    ],
)
def test_images_of_several_patients_are_no_series(ref: SeriesRef, keyword: str, value: str) -> None:
    own = str(dcmread(ref.files[0]).get(keyword, ""))
    edit([ref.files[5]], setting(keyword, value))
    error = parked(ref)
    assert (error.code, keyword in error.reason) == ("several_patients", True)
    assert not [word for word in (own, value) if len(word) > 1 and word in str(error)]


def test_a_patient_is_told_apart_by_more_than_padding(ref: SeriesRef) -> None:
    edit([ref.files[5]], setting("PatientID", " SYNTH-0 "))
    assert open_series(ref, ANY).grid.shape == SHAPE


def test_missing_slices_are_named(ref: SeriesRef) -> None:
    kept = tuple(path for number, path in enumerate(ref.files, 1) if number not in (4, 5, 7))
    error = parked(SeriesRef(ref.study_uid, ref.series_uid, kept))
    assert error.code == "missing_slices"
    assert "slices 4 and 5, 7 of 8 are missing, 5 mm each" in error.reason
    assert "between image 3 and image 6" in error.reason


@pytest.mark.parametrize("tilt_deg", [-16.5, 30.0])
def test_a_tilted_gantry_gives_a_sheared_grid(tmp_path: Path, tilt_deg: float) -> None:
    grid = tilted(patient_grid(SHAPE, SPACING_MM), tilt_deg)
    source = open_series(write_series(scan(grid), tmp_path, SyntheticStudy()), ANY)
    assert source.grid.lies_as(grid) and source.grid.uneven is None
    np.testing.assert_array_equal(read_volume(source).hu, scan().hu)


def test_more_tilt_than_a_gantry_has_is_named_with_its_angle(tmp_path: Path) -> None:
    error = parked(write_series(scan(tilted(patient_grid(SHAPE, SPACING_MM), 34.0)), tmp_path, SyntheticStudy()))
    assert (error.code, "34.0 degrees" in error.reason) == ("gantry_tilt", True)


def test_too_few_and_too_short_are_told_in_numbers(ref: SeriesRef) -> None:
    few = parked(ref, SeriesRules(min_slices=50, min_coverage_mm=200.0))
    assert (few.code, "8 slices" in few.reason, "50" in few.reason) == ("too_few_slices", True, True)
    short = parked(ref, SeriesRules(min_slices=8, min_coverage_mm=200.0))
    assert (short.code, "covers 40 mm" in short.reason, "200 mm" in short.reason) == ("short_coverage", True, True)


def test_one_slice_is_never_a_volume(ref: SeriesRef) -> None:
    one = SeriesRef(ref.study_uid, ref.series_uid, ref.files[:1])
    assert parked(one, SeriesRules(min_slices=1, min_coverage_mm=0.0)).code == "too_few_slices"
    none = SeriesRef(ref.study_uid, ref.series_uid, ())
    assert parked(none, SeriesRules(min_slices=0, min_coverage_mm=0.0)).code == "too_few_slices"


def test_rounded_positions_are_regular(ref: SeriesRef) -> None:
    for number, path in enumerate(ref.files):
        edit([path], moved((0, 0, 0.05 if number % 2 else -0.05)))
    assert open_series(ref, ANY).grid.spacing_mm[0] == pytest.approx(5.0, abs=0.02)


def test_a_slice_distance_that_changes_a_little_is_kept(tmp_path: Path) -> None:
    """Each step is nearly the same, but in the end the slices would lie 1.5 mm from a regular stack."""
    ref = write_series(scan(patient_grid((60, 4, 4), (1.0, 1.0, 1.0))), tmp_path, SyntheticStudy())
    for number, path in enumerate(ref.files):
        edit([path], moved((0, 0, 0.05 * max(0, number - 30))))
    source = open_series(ref, ANY)
    assert source.grid.uneven is not None
    for k, header in enumerate(source.headers):
        found = source.grid.to_patient(np.array([k, 0.0, 0.0]))
        np.testing.assert_allclose(found, header.ImagePositionPatient, atol=1e-6)


def test_a_repeated_file_counts_once_and_another_version_is_a_conflict(ref: SeriesRef, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dcm"
    shutil.copy(ref.files[2], copy)
    twice = SeriesRef(ref.study_uid, ref.series_uid, (*ref.files, copy))
    source = open_series(twice, ANY)
    assert len(source.headers) == 8
    assert len(find_series(tmp_path)[0].files) == 9
    edit([copy], setting("PixelData", bytes(60)))
    assert parked(twice).code == "conflicting_instances"


def test_a_damaged_header_is_parked_and_names_the_file(ref: SeriesRef) -> None:
    ref.files[1].write_bytes(b"no DICOM")
    error = parked(ref)
    assert (error.code, "0002.dcm" in error.reason) == ("unreadable", True)


def test_a_failing_machine_is_no_reason_to_park(ref: SeriesRef, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("dicom_io.series.dcmread", fail)

    fail_with(OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(DicomIoError, match="Too many open files") as caught:
        open_series(ref, ANY)
    assert isinstance(caught.value.__cause__, OSError)
    fail_with(MemoryError())
    with pytest.raises(MemoryError):
        open_series(ref, ANY)


def test_a_vanished_file_is_no_reason_to_park(ref: SeriesRef) -> None:
    ref.files[2].unlink()
    with pytest.raises(DicomIoError, match=r"0003\.dcm.*No such file"):
        open_series(ref, ANY)


def test_the_reference_must_name_the_files_own_series(ref: SeriesRef) -> None:
    assert parked(SeriesRef(ref.study_uid, "1.2.3", ref.files)).code == "not_a_volume"


def test_the_first_reason_is_the_one_a_person_would_give(ref: SeriesRef) -> None:
    edit(ref.files, setting("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    edit(ref.files, setting("ImagePositionPatient", None))
    assert parked(ref, SeriesRules(min_slices=50, min_coverage_mm=200.0)).code == "localizer"


def test_a_parked_series_can_be_pickled(ref: SeriesRef) -> None:
    import pickle

    error = parked(ref, SeriesRules(50, 200.0))
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.thing, str(again)) == (error.code, error.thing, str(error))


def test_find_series_groups_by_series_and_counts_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refs = [
        write_series(scan(), tmp_path / str(number), SyntheticStudy(seed=1, series_number=number)) for number in (2, 3)
    ]
    (tmp_path / "notes.txt").write_text("not DICOM")
    with caplog.at_level(logging.WARNING, logger="dicom_io"):
        found = find_series(tmp_path)
    assert sorted(found, key=lambda ref: ref.files) == refs
    assert "1 files" in caplog.text


def test_find_series_without_dicom_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM")
    with pytest.raises(DicomIoError, match="no DICOM file"):
        find_series(tmp_path)


def test_find_series_leaves_a_media_directory_out(
    ref: SeriesRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Dataset()
    directory.FileSetID, directory.DirectoryRecordSequence = "MEDIA", []
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    with caplog.at_level(logging.WARNING, logger="dicom_io"):
        (found,) = find_series(tmp_path)
    assert (found.series_uid, len(found.files)) == (ref.series_uid, 8)
    assert "1 files" in caplog.text


def test_find_series_does_not_pass_over_a_damaged_slice(ref: SeriesRef) -> None:
    whole = ref.files[3].read_bytes()
    ref.files[3].write_bytes(whole[:-10])
    with pytest.raises(NotUnderstood, match=r"0004\.dcm"):
        find_series(ref.files[0].parent)


def test_opening_does_not_change_what_the_source_says(ref: SeriesRef) -> None:
    source: SourceSeries = open_series(ref, ANY)
    again = [dcmread(path, stop_before_pixels=True) for path in ref.files]
    assert list(source.headers) == again


def repeated(ref: SeriesRef, numbers: Sequence[int], change: Edit = lambda _: None) -> SeriesRef:
    """The series with copies of some slices under UIDs and numbers of their own, as of blocks that overlap."""
    copies = []
    for number in numbers:
        copy = ref.files[0].with_name(f"again{number}.dcm")
        shutil.copy(ref.files[number], copy)
        edit([copy], setting("SOPInstanceUID", f"1.2.3.{number}"))
        edit([copy], setting("InstanceNumber", 100 + number))
        edit([copy], change)
        copies.append(copy)
    return SeriesRef(ref.study_uid, ref.series_uid, (*copies, *ref.files))


def test_the_same_slice_sent_twice_is_taken_once(ref: SeriesRef, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dicom_io"):
        source = open_series(repeated(ref, (2, 3)), ANY)
    assert (len(source.headers), source.repeats) == (8, 2)
    assert [header.InstanceNumber for header in source.headers] == list(range(1, 9))
    assert "2 slices" in caplog.text
    np.testing.assert_array_equal(read_volume(source).hu, scan().hu)
    assert open_series(ref, ANY).repeats == 0


def test_the_lowest_number_stays_and_a_slice_without_one_goes(ref: SeriesRef) -> None:
    twice = repeated(ref, (2,), setting("InstanceNumber", 0))
    assert open_series(twice, ANY).headers[2].SOPInstanceUID == "1.2.3.2"
    edit(twice.files[:1], setting("InstanceNumber", None))
    assert open_series(twice, ANY).headers[2].InstanceNumber == 3


@pytest.mark.parametrize(
    "change", [setting("PixelData", bytes(60)), setting("RescaleSlope", "2"), moved((0.0, 0.5, 0.0))]
)
def test_different_slices_at_one_place_are_refused(ref: SeriesRef, change: Edit) -> None:
    error = parked(repeated(ref, (2, 3), change))
    assert (error.code, "several scans or phases" in error.reason) == ("duplicate_positions", True)


def test_repeated_slices_do_not_count_as_slices(ref: SeriesRef) -> None:
    error = parked(repeated(ref, (2, 3)), SeriesRules(min_slices=9, min_coverage_mm=0.0))
    assert (error.code, "8 slices" in error.reason) == ("too_few_slices", True)


def test_a_tilted_series_in_blocks_is_read_where_it_lies(tmp_path: Path) -> None:
    grid = spaced(tilted(patient_grid((8, 6, 5), SPACING_MM), 16.5), [2.0] * 4 + [6.0] * 3)
    ref = write_series(scan(grid), tmp_path, SyntheticStudy(instance_order="descending"))
    source = open_series(ref, ANY)
    assert source.grid.lies_as(grid)
    np.testing.assert_array_equal(read_volume(source).hu, scan(grid).hu)
    headers = [dcmread(path) for path in ref.files]
    assert not any("SpacingBetweenSlices" in header for header in headers)
    thickness = [float(header.SliceThickness) for header in headers]
    assert thickness == pytest.approx(np.cos(np.deg2rad(16.5)) * np.array([2.0] * 4 + [4.0] + [6.0] * 3))
