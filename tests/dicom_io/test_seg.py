"""The segmentation object: read back by another library it is the label volume, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.boxes import label_boxes
from dicom_io.colours import group_colour, structure_colour
from dicom_io.encoding import encoded
from dicom_io.encoding import item as item_of
from dicom_io.errors import DicomIoError
from dicom_io.findings import Findings, ResultRequest, tracking_id
from dicom_io.heading import check_request, neutral_source, save
from dicom_io.seg import _segmentation, write_seg
from dicom_io.seg_frames import FrameTemplate, SegmentFrames, frame_count, frame_templates, pack_segments, write_frames
from dicom_io.seg_read import read_seg
from dicom_io.series import SeriesRules, open_series
from dicom_io.synthetic import SyntheticStudy, patient_grid, spaced, tilted, write_series
from dicom_io.uids import tracking_uid
from engine.labels import side_word, thigh29
from engine.measure import Measurements
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume

MakeRequest = Callable[..., ResultRequest]


def written(request: ResultRequest) -> bytes:
    out = BytesIO()
    write_seg(request, out)
    return out.getvalue()


def read(request: ResultRequest) -> hd.seg.Segmentation:
    return hd.seg.segread(BytesIO(written(request)))


def labels_of(seg: hd.seg.Segmentation, request: ResultRequest) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The label volume, put together by source image."""
    return np.asarray(
        seg.get_pixels_by_source_instance(
            [header.SOPInstanceUID for header in request.source.headers],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
    )


@pytest.mark.parametrize("axes", ["axial", "slices downwards", "feet first", "oblique"])
@pytest.mark.parametrize("shape", [(6, 16, 24), (1, 3, 8), (4, 5, 32), (5, 9, 13), (3, 8, 15)])
def test_read_back_is_bit_for_bit_the_label_volume(
    make_request: MakeRequest, shape: tuple[int, int, int], axes: str
) -> None:
    request = make_request(shape, axes)
    seg = read(request)
    labels = request.findings.segmentation.labels
    assert np.array_equal(labels_of(seg, request), labels)
    planes = {(int(number), k) for k in range(shape[0]) for number in np.unique(labels[k]) if number}
    assert seg.NumberOfFrames == len(planes)


@pytest.mark.parametrize("axes", ["axial", "slices downwards", "feet first", "oblique"])
def test_every_voxel_lies_where_it_was(make_request: MakeRequest, axes: str) -> None:
    request = make_request((6, 16, 24), axes)
    volume = read(request).get_volume(combine_segments=True)
    labels, grid = request.findings.segmentation.labels, request.findings.segmentation.grid
    index = np.argwhere(labels > 0)
    there = np.rint(volume.map_reference_to_indices(grid.to_patient(index.astype(np.float64)))).astype(int)
    assert np.array_equal(volume.array[tuple(there.T)], labels[tuple(index.T)])
    assert np.count_nonzero(volume.array) == len(index)


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP"])
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_series_from_files_keeps_its_frames_with_their_slices(
    make_request: MakeRequest, tmp_path: Path, position: str, order: str
) -> None:
    grid = patient_grid((7, 16, 16), (3.0, 2.0, 2.0), position)
    draw = np.random.default_rng(1)
    volume = Volume(draw.integers(-100, 120, grid.shape).astype(np.int16), grid)
    study = SyntheticStudy(
        patient_position=position, instance_order="ascending" if order == "ascending" else "descending"
    )
    source = open_series(write_series(volume, tmp_path, study), SeriesRules(min_slices=1, min_coverage_mm=0.0))
    labels = draw.integers(0, 59, grid.shape).astype(np.uint8)
    findings = Findings(volume, Segmentation(labels, source.grid, thigh29()), Measurements(()))
    request = replace(make_request(), source=source, findings=findings)
    seg = read(request)
    assert np.array_equal(labels_of(seg, request), labels)
    position_of = {header.SOPInstanceUID: header.ImagePositionPatient for header in source.headers}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == position_of[uid]


@pytest.mark.parametrize("columns", [16, 13])  # our own writer, and highdicom's
@pytest.mark.parametrize("steps_mm", [[2.0, 2.0, 2.0, 6.0, 6.0, 6.0], None])
def test_a_tilted_scan_in_blocks_keeps_its_frames_on_its_slices(
    make_request: MakeRequest, tmp_path: Path, steps_mm: list[float] | None, columns: int
) -> None:
    grid = tilted(patient_grid((7, 16, columns), (3.0, 2.0, 2.0), "FFDL"), -18.5)
    grid = spaced(grid, steps_mm) if steps_mm else grid
    draw = np.random.default_rng(1)
    volume = Volume(draw.integers(-100, 120, grid.shape).astype(np.int16), grid)
    study = SyntheticStudy(patient_position="FFDL", instance_order="descending")
    source = open_series(write_series(volume, tmp_path, study), SeriesRules(min_slices=1, min_coverage_mm=0.0))
    labels = draw.integers(0, 59, grid.shape).astype(np.uint8)
    labels[4, 3:] = 0
    findings = Findings(volume, Segmentation(labels, source.grid, thigh29()), Measurements(()))
    request = replace(make_request(), source=source, findings=findings)
    (tmp_path / "seg.dcm").write_bytes(written(request))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(labels_of(seg, request), labels)
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", source, thigh29()).labels, labels)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    normal_mm = 3.0 * np.cos(np.deg2rad(18.5))
    told = None if steps_mm else pytest.approx(normal_mm)
    assert measures.get("SpacingBetweenSlices") == told
    mean_mm = 4.0 * np.cos(np.deg2rad(18.5)) if steps_mm else normal_mm
    assert measures.SliceThickness == pytest.approx(mean_mm)
    position_of = {header.SOPInstanceUID: header.ImagePositionPatient for header in source.headers}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        stated = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(stated, float), np.array(position_of[uid], float), atol=1e-6)


def test_labels_on_other_slices_than_the_images_are_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    """With the same ends and another slice in between."""
    grid = spaced(patient_grid((7, 16, 16), (3.0, 2.0, 2.0)), [2.0] * 3 + [6.0] * 3)
    volume = Volume(np.zeros(grid.shape, dtype=np.int16), grid)
    source = open_series(write_series(volume, tmp_path, SyntheticStudy()), SeriesRules(1, 0.0))
    labels = np.ones(grid.shape, dtype=np.uint8)
    even = Segmentation(labels, Grid(grid.shape, source.grid.affine), thigh29())
    request = replace(make_request(), source=source, findings=Findings(volume, even, Measurements(())))
    with pytest.raises(DicomIoError, match=r"segmentation lies 6\.0 mm off the grid"):
        check_request(request)


def test_all_segments_are_described_and_coded(make_request: MakeRequest) -> None:
    request = make_request()
    seg, label_set = read(request), thigh29()
    assert [item.SegmentNumber for item in seg.SegmentSequence] == list(range(1, 59))
    for item, segment in zip(seg.SegmentSequence, label_set.segments, strict=True):
        assert item.SegmentLabel == segment.display
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.TrackingID == tracking_id(segment)
        assert item.TrackingUID == tracking_uid("job-1", segment.number)
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
        side = item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning
        assert side.lower() == side_word(segment.side)
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Vastus compact", "1.0.0")
        assert f"model_sha256={'ab' * 32}" in algorithm.AlgorithmParameters
    assert "wider" in seg.SegmentSequence[48].SegmentDescription


def test_left_and_right_share_a_colour_and_structures_differ(make_request: MakeRequest) -> None:
    colours = [tuple(item.RecommendedDisplayCIELabValue) for item in read(make_request()).SegmentSequence]
    assert colours[0::2] == colours[1::2]
    assert len(set(colours)) == 29
    label_set = thigh29()
    assert len({structure_colour(structure, label_set) for structure in label_set.structures}) == 29
    assert len({group_colour(structure.group) for structure in label_set.structures}) == 6


def test_geometry_is_the_source_s(make_request: MakeRequest) -> None:
    request = make_request(axes="oblique")
    seg, header = read(request), request.source.headers[0]
    shared = seg.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.0)
    assert measures.PixelSpacing == header.PixelSpacing == [1.5, 1.25]
    assert measures.SliceThickness == 3
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == header.ImageOrientationPatient
    assert seg.FrameOfReferenceUID == header.FrameOfReferenceUID
    assert (seg.Rows, seg.Columns) == (16, 24)


def test_every_source_image_is_referred_to(make_request: MakeRequest) -> None:
    request = make_request()
    seg = read(request)
    expected = [header.SOPInstanceUID for header in request.source.headers]
    series = seg.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == request.source.headers[0].SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == expected
    assert [item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence] == expected


@pytest.mark.parametrize("absent", [True, False])
def test_planes_of_unknown_thickness_are_as_thick_as_their_distance(
    make_request: MakeRequest, output_of: Callable[..., str], tmp_path: Path, absent: bool
) -> None:
    def forget(header: Dataset) -> None:
        header.SliceThickness = None
        if absent:
            del header.SliceThickness

    path = tmp_path / "seg.dcm"
    path.write_bytes(written(make_request(change=forget)))
    measures = dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == measures.SpacingBetweenSlices == pytest.approx(2.0)
    assert "Error" not in output_of("dciodvfy", path)


def test_our_writer_says_what_highdicom_says(make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request((5, 16, 24))
    ours = read(request)
    monkeypatch.setattr("dicom_io.seg._stream", _by_highdicom)
    stock = read(request)
    for keyword in ("PerFrameFunctionalGroupsSequence", "PixelData"):
        assert len(ours[keyword].value) == len(stock[keyword].value)
    named = {_identity(frame): frame for frame in stock.PerFrameFunctionalGroupsSequence}
    for frame in ours.PerFrameFunctionalGroupsSequence:
        twin = named[_identity(frame)]
        for item in (frame, twin):  # the planes are counted from the other end
            del item.FrameContentSequence
        assert frame == twin
    for dataset in (ours, stock):
        del dataset.PerFrameFunctionalGroupsSequence, dataset.PixelData
    assert ours.to_json_dict() == stock.to_json_dict()


def _by_highdicom(request: ResultRequest, out: BytesIO) -> None:
    sources = [neutral_source(header) for header in request.source.headers]
    save(_segmentation(request, sources, request.findings.segmentation.labels), out)


def test_functional_groups_are_encoded_as_pydicom_does(make_request: MakeRequest) -> None:
    headers = make_request(axes="oblique").source.headers
    template_item = read(make_request(axes="oblique")).PerFrameFunctionalGroupsSequence[0]
    templates = frame_templates(deepcopy(template_item), headers)
    for rank, (template, header) in enumerate(zip(templates, headers, strict=True), start=1):
        expected = deepcopy(template_item)
        source = expected.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        expected.PlanePositionSequence[0].ImagePositionPatient = header.ImagePositionPatient
        expected.FrameContentSequence[0].DimensionIndexValues = [7, rank]
        expected.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 7
        assert template.patched(7, rank) == item_of(encoded(expected))


def _identity(frame: Dataset) -> tuple[int, str]:
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return (frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber, source.ReferencedSOPInstanceUID)


def test_frames_are_indexed_by_segment_and_position(make_request: MakeRequest) -> None:
    request = make_request()
    seg = read(request)
    order = [header.SOPInstanceUID for header in request.source.headers]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        number, uid = _identity(frame)
        assert frame.FrameContentSequence[0].DimensionIndexValues == [number, order.index(uid) + 1]


def test_the_choice_of_highdicom_is_logged(make_request: MakeRequest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dicom_io.seg"):
        written(make_request((3, 8, 16)))
        assert not caplog.records
        written(make_request((3, 8, 15)))
    assert "15 columns" in caplog.text


def test_pixel_data_has_an_even_length(make_request: MakeRequest) -> None:
    labels = np.zeros((1, 1, 8), dtype=np.uint8)
    labels[0, 0, 3] = 7
    seg = dcmread(BytesIO(written(make_request((1, 1, 8), labels=labels))))
    assert seg.PixelData == bytes([0b1000, 0])


def test_the_same_request_gives_the_same_bytes(make_request: MakeRequest) -> None:
    for shape in ((6, 16, 24), (6, 16, 23)):
        assert written(make_request(shape)) == written(make_request(shape))


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4)))
def test_packed_bits_are_the_labels(seed: int, size: tuple[int, int, int]) -> None:
    shape = (size[0], size[1], 8 * size[2])
    labels = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 5], shape).astype(np.uint8)
    found = np.zeros_like(labels)
    for segment in pack_segments(labels, label_boxes(labels)):
        frames = np.zeros((len(segment.slices), shape[1], size[2]), dtype=np.uint8)
        frames[:, segment.rows, segment.bytes_] = segment.bits
        bits = np.unpackbits(frames, axis=-1, bitorder="little").astype(bool)
        assert bits.any(axis=(1, 2)).all()
        found[segment.slices] += segment.number * bits.astype(np.uint8)
    assert np.array_equal(found, labels)


def test_what_does_not_fit_one_value_is_refused() -> None:
    row = np.ones((1, 1, 1), dtype=np.uint8)
    segments = [SegmentFrames(1, np.zeros(1, dtype=np.int64), row, slice(0, 1), slice(0, 1))]
    assert frame_count(segments) == 1
    with pytest.raises(DicomIoError, match="exceed one value"):
        write_frames(BytesIO(), segments, [FrameTemplate(bytes(10), 0, 8)], (1 << 20, 1 << 20))


def test_an_unknown_form_of_functional_groups_is_refused(make_request: MakeRequest) -> None:
    request = make_request()
    item = read(request).PerFrameFunctionalGroupsSequence[0]
    item.FrameContentSequence.append(Dataset())
    item.FrameContentSequence[1].DimensionIndexValues = [0xA1B2C3D4, 0xE5F60718]
    with pytest.raises(DicomIoError, match="unknown form"):
        frame_templates(item, request.source.headers)


@pytest.mark.parametrize(("shape", "uneven"), [((24, 32, 40), False), ((24, 32, 41), False), ((24, 32, 40), True)])
def test_dciodvfy_finds_no_fault(
    make_request: MakeRequest, output_of: Callable[..., str], tmp_path: Path, shape: tuple[int, int, int], uneven: bool
) -> None:
    path, request = tmp_path / "seg.dcm", make_request(shape)
    if uneven:
        steps_mm = [2.0] * 8 + [6.0] * (shape[0] - 9)
        source, segmentation = request.source, request.findings.segmentation
        grid = spaced(tilted(source.grid, 15.0), steps_mm)
        for k, header in enumerate(source.headers):
            header.ImagePositionPatient = [f"{value:.8g}" for value in grid.to_patient(np.array([k, 0.0, 0.0]))]
        findings = replace(request.findings, segmentation=replace(segmentation, grid=grid))
        request = replace(request, source=replace(source, grid=grid), findings=findings)
    path.write_bytes(written(request))
    output = output_of("dciodvfy", path)
    assert "Segmentation" in output
    assert "Error" not in output
