"""A segmentation object read back: the label volume that went in, or a refusal that names the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from foreign_seg import write_label_map
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest
from dicom_io.heading import neutral_source
from dicom_io.seg import write_seg
from dicom_io.seg_read import LABEL_MAP_STORAGE, read_seg
from engine.labels import LabelSet, thigh29

MakeRequest = Callable[..., ResultRequest]


def kept(request: ResultRequest, folder: Path, change: Callable[[Dataset], None] | None = None) -> Path:
    """The request's SEG as a file, changed where that is wanted."""
    out = BytesIO()
    write_seg(request, out)
    path = folder / "seg.dcm"
    path.write_bytes(out.getvalue())
    if change is not None:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return path


@pytest.mark.parametrize("axes", ["axial", "slices downwards", "feet first", "oblique"])
@pytest.mark.parametrize("shape", [(6, 16, 24), (1, 3, 8), (5, 9, 13)])
def test_what_was_written_is_read(
    make_request: MakeRequest, tmp_path: Path, shape: tuple[int, int, int], axes: str
) -> None:
    request = make_request(shape, axes)
    found = read_seg(kept(request, tmp_path), request.source, thigh29())
    np.testing.assert_array_equal(found.labels, request.findings.segmentation.labels)
    assert found.grid is request.source.grid


def test_a_label_map_with_fewer_segments_is_read(make_request: MakeRequest, tmp_path: Path) -> None:
    labels = np.zeros((4, 16, 16), dtype=np.uint8)
    labels[1:3, 2:9, 3:7] = 7
    request = make_request((4, 16, 16), labels=labels)
    sources = [neutral_source(header) for header in request.source.headers]
    seg = write_label_map(tmp_path / "map.dcm", sources, labels)
    assert seg.SOPClassUID == LABEL_MAP_STORAGE
    found = read_seg(tmp_path / "map.dcm", request.source, thigh29())
    np.testing.assert_array_equal(found.labels, labels)


def _other_number(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentNumber = 200


def _other_code(dataset: Dataset) -> None:
    dataset.SegmentSequence[2].SegmentedPropertyTypeCodeSequence[0].CodeValue = "1"


def _other_side(dataset: Dataset) -> None:
    first, second = (item.SegmentedPropertyTypeCodeSequence[0] for item in dataset.SegmentSequence[:2])
    first.SegmentedPropertyTypeModifierCodeSequence = second.SegmentedPropertyTypeModifierCodeSequence


def _no_side(dataset: Dataset) -> None:
    del dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence


def _no_codes(dataset: Dataset) -> None:
    del dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence


def _other_place(dataset: Dataset) -> None:
    dataset.FrameOfReferenceUID = "1.2.3"


def _other_image(dataset: Dataset) -> None:
    source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def _fractional(dataset: Dataset) -> None:
    dataset.SegmentationType = "FRACTIONAL"


def _cut_short(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_number, "segment 200 is none of thigh29"),
        (_other_code, "should be coded as 'Rectus femoris, right'"),
        (_other_side, "should be coded as 'Sartorius, right'"),
        (_no_side, "should be coded as 'Sartorius, right'"),
        (_no_codes, "not fully described"),
        (_other_place, "frame of reference"),
        (_other_image, "1 of its .* frames are of images"),
        (_fractional, "one label a voxel"),
        (_cut_short, "one label for each voxel"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    make_request: MakeRequest, tmp_path: Path, change: Callable[[Dataset], None], reason: str
) -> None:
    request = make_request((4, 16, 24))
    path = kept(request, tmp_path, change)
    with pytest.raises(DicomIoError, match=reason) as refused:
        read_seg(path, request.source, thigh29())
    assert refused.value.thing == f"file {path}"


def test_segments_that_overlap_are_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    def overlap(dataset: Dataset) -> None:
        dataset.PixelData = bytes([255]) * len(dataset.PixelData)

    request = make_request((4, 16, 24))
    path = kept(request, tmp_path, overlap)
    with pytest.raises(DicomIoError, match="one label for each voxel"):
        read_seg(path, request.source, thigh29())


def test_frames_of_another_size_are_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    path = kept(make_request((4, 16, 24)), tmp_path)
    with pytest.raises(DicomIoError, match="16 x 24 pixels"):
        read_seg(path, make_request((4, 16, 32)).source, thigh29())


def test_a_file_of_another_kind_is_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request((2, 8, 8))
    header: FileDataset = request.source.headers[0]
    header.save_as(tmp_path / "ct.dcm", enforce_file_format=False)
    (tmp_path / "notes.dcm").write_text("no DICOM")
    with pytest.raises(DicomIoError, match="CT Image Storage"):
        read_seg(tmp_path / "ct.dcm", request.source, thigh29())
    for name in ("notes.dcm", "absent.dcm"):
        with pytest.raises(DicomIoError, match="read"):
            read_seg(tmp_path / name, request.source, thigh29())


def test_a_label_set_without_the_structure_is_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request((2, 8, 8))
    fewer: LabelSet = replace(thigh29(), structures=thigh29().structures[:3])
    with pytest.raises(DicomIoError, match="which end at 6"):
        read_seg(kept(request, tmp_path), request.source, fewer)
