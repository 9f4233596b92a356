"""A multi-frame series is opened frame by frame, as the single images that it could have been."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from dicom_io.attributes import FrameHeader
from dicom_io.decode import PADDING_HU
from dicom_io.errors import NotUnderstood, SeriesParked
from dicom_io.guard import QUIETLY
from dicom_io.header import read_header
from dicom_io.series import SeriesRef, SeriesRules, find_series, open_series, read_volume, write_volume
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from dicom_io.synthetic_frames import FramesPlan, write_enhanced
from engine.volume import Volume

SHAPE = (6, 40, 36)  # the JPEG 2000 encoder needs more than 32 a side
ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)
Edit = Callable[[Dataset], object]


@pytest.fixture(scope="module")
def scan() -> Volume:
    hu = np.random.default_rng(5).integers(-1024, 3000, SHAPE).astype(np.int16)
    return Volume(hu, patient_grid(SHAPE, (5.0, 0.8, 0.7)))


@pytest.fixture(scope="module")
def slices(scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_series(scan, tmp_path_factory.mktemp("single"), SyntheticStudy()).files


@pytest.fixture
def enhanced(slices: tuple[Path, ...], tmp_path: Path) -> SeriesRef:
    return write_enhanced(slices, tmp_path / "enhanced.dcm")


def edit(ref: SeriesRef, change: Edit, file: int = 0) -> None:
    with QUIETLY:
        dataset = dcmread(ref.files[file])
        change(dataset)
        dataset.save_as(ref.files[file])


def refused(ref: SeriesRef) -> SeriesParked:
    with pytest.raises(SeriesParked) as caught:
        read_volume(open_series(ref, ANY))
    return caught.value


def check_is(ref: SeriesRef, scan: Volume) -> None:
    """The series is the scan, read at once and slice by slice; and it passes the door."""
    for path in ref.files:
        assert read_header(path).modality == "CT"
    source = open_series(ref, ANY)
    volume = read_volume(source)
    np.testing.assert_array_equal(volume.hu, scan.hu)
    np.testing.assert_allclose(volume.grid.affine, scan.grid.affine, atol=1e-9)
    path = ref.files[0].with_suffix(".npy")
    with path.open("wb") as file:
        write_volume(source, file)
    np.testing.assert_array_equal(np.load(path), scan.hu)


@pytest.mark.parametrize(
    "plan",
    [
        FramesPlan(),
        FramesPlan(place_shared=False),
        FramesPlan(DeflatedExplicitVRLittleEndian),
        FramesPlan(RLELossless),
        FramesPlan(RLELossless, extended_offsets=True),
        FramesPlan(JPEGLSLossless),
        FramesPlan(JPEG2000Lossless),
    ],
    ids=["plain", "each with its place", "deflated", "RLE", "extended offsets", "JPEG-LS", "JPEG 2000"],
)
def test_frames_come_back_bit_for_bit(slices: tuple[Path, ...], scan: Volume, tmp_path: Path, plan: FramesPlan) -> None:
    ref = write_enhanced(slices, tmp_path / "enhanced.dcm", plan)
    assert find_series(tmp_path) == (ref,)
    check_is(ref, scan)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_frames_of_another_encoding_come_back(enhanced: SeriesRef, scan: Volume, syntax: UID) -> None:
    dataset = dcmread(enhanced.files[0])
    dataset.file_meta.TransferSyntaxUID = syntax
    if not syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    dcmwrite(enhanced.files[0], dataset, implicit_vr=implicit, little_endian=little_endian, enforce_file_format=True)
    check_is(enhanced, scan)


def test_frames_in_any_order_follow_the_normal(slices: tuple[Path, ...], scan: Volume, tmp_path: Path) -> None:
    ref = write_enhanced([slices[k] for k in (3, 0, 5, 1, 4, 2)], tmp_path / "enhanced.dcm", FramesPlan(RLELossless))
    check_is(ref, scan)
    headers = open_series(ref, ANY).headers
    assert [header.frame_number for header in headers if isinstance(header, FrameHeader)] == [2, 4, 6, 1, 5, 3]
    assert [header.InstanceNumber for header in headers] == [2, 4, 6, 1, 5, 3]
    assert {str(header.filename) for header in headers} == {str(ref.files[0])}


def test_a_series_may_be_several_multi_frame_files(slices: tuple[Path, ...], scan: Volume, tmp_path: Path) -> None:
    parts = [
        write_enhanced(part, tmp_path / f"{number}.dcm", FramesPlan(syntax, instance_number=number))
        for number, (part, syntax) in enumerate([(slices[::2], JPEGLSLossless), (slices[1::2], ImplicitVRLittleEndian)])
    ]
    check_is(SeriesRef(parts[0].study_uid, parts[0].series_uid, parts[0].files + parts[1].files), scan)


def test_a_converted_series_of_another_library_is_read(slices: tuple[Path, ...], scan: Volume, tmp_path: Path) -> None:
    images = [dcmread(path) for path in slices]
    converted = hd.legacy.LegacyConvertedEnhancedCTImage(images, "1.2.3.4", 7, "1.2.3.5", 1)
    assert converted.SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    converted.save_as(tmp_path / "converted.dcm")
    check_is(SeriesRef(str(images[0].StudyInstanceUID), "1.2.3.4", (tmp_path / "converted.dcm",)), scan)


def test_highdicom_and_we_read_the_same(enhanced: SeriesRef) -> None:
    theirs = hd.imread(enhanced.files[0]).get_volume(dtype=np.float32)
    ours = read_volume(open_series(enhanced, ANY))
    placed = np.linalg.solve(theirs.affine, ours.grid.affine)  # their slices may run the other way
    index = np.rint(placed @ [*np.indices(SHAPE).reshape(3, -1), np.ones(ours.hu.size)])[:3].astype(int)
    np.testing.assert_array_equal(theirs.array[tuple(index)].reshape(SHAPE), ours.hu)


def test_each_frame_has_its_own_rescale_and_the_padding_of_all(enhanced: SeriesRef, scan: Volume) -> None:
    def change(dataset: Dataset) -> None:
        group = dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0]
        group.RescaleSlope, group.RescaleIntercept = "2", "-3000"
        dataset.add_new("PixelPaddingValue", "US", int(scan.hu[4, 0, 0]) + 1024)

    edit(enhanced, change)
    hu = read_volume(open_series(enhanced, ANY)).hu
    np.testing.assert_array_equal(hu[2], (scan.hu[2].astype(int) + 1024) * 2 - 3000)
    padding = scan.hu[4] == scan.hu[4, 0, 0]
    np.testing.assert_array_equal(hu[4], np.where(padding, PADDING_HU, scan.hu[4]))


def group(number: int, name: str) -> Callable[[Dataset], Dataset]:
    """A functional group of a frame, by the frame's number; 0 gives the shared one."""

    def find(dataset: Dataset) -> Dataset:
        holder = dataset.PerFrameFunctionalGroupsSequence[number - 1]
        found = (holder if number else dataset.SharedFunctionalGroupsSequence[0])[name].value[0]
        assert isinstance(found, Dataset)
        return found

    return find


def setting(find: Callable[[Dataset], Dataset], keyword: str, value: object) -> Edit:
    return lambda dataset: setattr(find(dataset), keyword, value)


def without(number: int, name: str) -> Edit:
    return lambda dataset: dataset.PerFrameFunctionalGroupsSequence[number - 1].pop(Tag(name))


CONTENT, TYPE = "FrameContentSequence", "CTImageFrameTypeSequence"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (without(4, "PlanePositionSequence"), "missing_geometry", "ImagePositionPatient is missing or unusable in 1"),
        (without(4, "PlanePositionSequence"), "missing_geometry", "frame 4 of image 1"),
        (without(2, "PixelValueTransformationSequence"), "not_hounsfield", "frame 2 of image 1"),
        (
            lambda dataset: dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence.append(Dataset()),
            "missing_geometry",
            "frame 2 of image 1",
        ),
        (
            lambda dataset: dataset.SharedFunctionalGroupsSequence[0].pop(Tag("PlaneOrientationSequence")),
            "missing_geometry",
            "ImageOrientationPatient is missing or unusable in 6",
        ),
        (
            lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(),
            "missing_geometry",
            "frame 6 of image 1 has no functional groups",
        ),
        (lambda dataset: dataset.pop(Tag("NumberOfFrames")), "missing_geometry", "functional groups"),
        (setting(group(2, CONTENT), "StackID", "2"), "several_volumes", "2 stacks"),
        (setting(group(2, CONTENT), "TemporalPositionIndex", 2), "several_volumes", "2 different temporal positions"),
        (setting(group(0, TYPE), "VolumetricProperties", "DISTORTED"), "not_a_volume", "DISTORTED"),
        (setting(group(0, TYPE), "VolumeBasedCalculationTechnique", "MAX_IP"), "not_a_volume", "MAX_IP"),
        (setting(group(0, TYPE), "FrameType", ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]), "localizer", "6 of its 6"),
        (lambda dataset: setattr(dataset, "SamplesPerPixel", 3), "not_a_volume", "colour"),
        (lambda dataset: setattr(dataset, "Modality", "MR"), "not_ct", "MR"),
    ],
)
def test_what_is_no_volume_of_frames_is_refused(enhanced: SeriesRef, change: Edit, code: str, words: str) -> None:
    edit(enhanced, change)
    error = refused(enhanced)
    assert (error.code, words in error.reason) == (code, True), error.reason


def test_a_place_told_for_the_whole_image_is_no_frame_s_place(enhanced: SeriesRef) -> None:
    def change(dataset: Dataset) -> None:
        without(4, "PlanePositionSequence")(dataset)
        dataset.ImagePositionPatient = [0, 0, 0]

    edit(enhanced, change)
    assert refused(enhanced).code == "missing_geometry"


@pytest.mark.parametrize(
    ("name", "keyword", "values"),
    [
        ("CTXRayDetailsSequence", "KVP", (80.0, 140.0)),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset", (0.0, 12.5)),
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", (30.0, 75.0)),
        (TYPE, "FrameType", ("ORIGINAL\\PRIMARY\\VOLUME\\VMI", "ORIGINAL\\PRIMARY\\VOLUME\\NONE")),
    ],
)
def test_several_volumes_in_one_file_are_never_mixed(
    enhanced: SeriesRef, name: str, keyword: str, values: tuple[object, object]
) -> None:
    def change(dataset: Dataset) -> None:
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            setattr(item, keyword, values[number % 2])
            setattr(frame, name, [item])

    edit(enhanced, change)
    assert refused(enhanced).code == "several_volumes"


def test_two_volumes_at_one_place_are_told_apart_without_labels(slices: tuple[Path, ...], tmp_path: Path) -> None:
    others = []
    for path in slices[2:4]:
        dataset = dcmread(path)
        dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(tmp_path / path.name)
        others.append(tmp_path / path.name)
    assert refused(write_enhanced((*slices, *others), tmp_path / "enhanced.dcm")).code == "duplicate_positions"


def test_frames_with_the_same_pixels_at_one_place_are_taken_once(slices: tuple[Path, ...], tmp_path: Path) -> None:
    source = open_series(write_enhanced(slices + slices[2:4], tmp_path / "enhanced.dcm"), ANY)
    assert (len(source.headers), source.repeats) == (len(slices), 2)


def test_frames_and_single_images_are_not_mixed(slices: tuple[Path, ...], enhanced: SeriesRef, tmp_path: Path) -> None:
    dataset = dcmread(slices[0])
    dataset.SeriesInstanceUID = enhanced.series_uid
    dataset.save_as(tmp_path / "single.dcm")
    mixed = SeriesRef(enhanced.study_uid, enhanced.series_uid, (*enhanced.files, tmp_path / "single.dcm"))
    assert refused(mixed).code == "not_a_volume"


@pytest.mark.parametrize("total", [3, None])
def test_a_concatenation_is_read_whole_or_not_at_all(
    slices: tuple[Path, ...], scan: Volume, tmp_path: Path, total: int | None
) -> None:
    files: list[Path] = []
    for number in (1, 2, 3):
        part = write_enhanced(
            slices[2 * number - 2 : 2 * number], tmp_path / f"{number}.dcm", FramesPlan(instance_number=number)
        )

        def label(dataset: Dataset, number: int = number) -> None:
            dataset.ConcatenationUID, dataset.InConcatenationNumber = "1.2.3", number
            if total:
                dataset.InConcatenationTotalNumber = total

        edit(part, label)
        files += part.files
    whole = SeriesRef(part.study_uid, part.series_uid, tuple(files))
    check_is(whole, scan)
    error = refused(SeriesRef(whole.study_uid, whole.series_uid, whole.files[1:]))
    assert (error.code, "3 parts, of which 2" in error.reason) == ("missing_slices", True)


def compressed(change: Callable[[list[bytes]], list[bytes]], offsets: bool) -> Edit:
    def apply(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate(change(fragments_of(dataset)), has_bot=offsets)

    return apply


def fragments_of(dataset: Dataset) -> list[bytes]:
    return list(generate_fragments(dataset.PixelData))[1:]  # the first item is the offset table


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: [*found[:3], found[3][:64], *found[4:]], "frame 4 of instance"),
        (lambda found: [*found, found[0]], "instance"),
    ],
    ids=["broken", "one too many"],
)
def test_a_broken_frame_is_named(
    slices: tuple[Path, ...],
    tmp_path: Path,
    change: Callable[[list[bytes]], list[bytes]],
    words: str,
    offsets: bool,
) -> None:
    ref = write_enhanced(slices, tmp_path / "enhanced.dcm", FramesPlan(RLELossless))
    edit(ref, compressed(change, offsets))
    error = refused(ref)
    assert (error.code, words in error.reason) == ("undecodable", True), error.reason
    assert str(dcmread(ref.files[0]).SOPInstanceUID) in error.reason


def test_a_frame_too_few_is_refused_at_the_door_and_by_the_reader(slices: tuple[Path, ...], tmp_path: Path) -> None:
    ref = write_enhanced(slices, tmp_path / "enhanced.dcm", FramesPlan(RLELossless))
    edit(ref, compressed(lambda found: found[:-1], offsets=True))
    with pytest.raises(NotUnderstood, match="5 fragments for 6 frames"):
        read_header(ref.files[0])
    error = refused(ref)
    assert (error.code, "frame 6 of instance" in error.reason) == ("undecodable", True)


def test_frames_of_several_fragments_are_put_together(slices: tuple[Path, ...], scan: Volume, tmp_path: Path) -> None:
    ref = write_enhanced(slices, tmp_path / "enhanced.dcm", FramesPlan(JPEG2000Lossless))

    def split(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate(fragments_of(dataset), fragments_per_frame=3, has_bot=False)

    edit(ref, split)
    check_is(ref, scan)


def test_pixels_that_end_early_are_refused(enhanced: SeriesRef) -> None:
    content = enhanced.files[0].read_bytes()
    source = open_series(enhanced, ANY)
    enhanced.files[0].write_bytes(content[:-100])
    with pytest.raises(NotUnderstood, match="cut off"):
        read_header(enhanced.files[0])
    with pytest.raises(SeriesParked, match="frame 6 of instance"):
        read_volume(source)


@pytest.mark.parametrize("plan", [FramesPlan(), FramesPlan(DeflatedExplicitVRLittleEndian), FramesPlan(RLELossless)])
def test_the_file_is_never_held_whole_beside_the_volume(tmp_path: Path, plan: FramesPlan) -> None:
    """Of what Python and numpy set aside; `benchmarks/read.py --frames` tells the whole process's peak."""
    shape = (40, 256, 256)
    hu = (np.arange(np.prod(shape)) % 997).astype(np.int16).reshape(shape)
    single = write_series(Volume(hu, patient_grid(shape, (1.0, 1.0, 1.0))), tmp_path / "single", SyntheticStudy())
    source = open_series(write_enhanced(single.files, tmp_path / "enhanced.dcm", plan), ANY)
    tracemalloc.start()
    try:
        volume = read_volume(source)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(volume.hu, hu)
    assert peak_bytes < 1.3 * hu.nbytes + (4 << 20)  # the inflated file is copied by the megabyte
