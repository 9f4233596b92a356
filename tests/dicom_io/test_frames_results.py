"""Results of a multi-frame series refer to its frames, and other programs take them as they take those of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from dicom_io.attributes import FrameHeader
from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest
from dicom_io.pages import write_page
from dicom_io.seg import write_seg
from dicom_io.seg_read import read_seg
from dicom_io.series import SeriesRef, SeriesRules, open_series
from dicom_io.sr import write_sr
from dicom_io.synthetic import SyntheticStudy, write_series
from dicom_io.synthetic_frames import FramesPlan, write_enhanced
from engine.labels import thigh29

MakeRequest = Callable[..., ResultRequest]
STREAMED, STOCK = (6, 16, 24), (6, 16, 23)  # highdicom writes the frames where columns are no multiple of 8
ORDER = (3, 0, 5, 1, 4, 2)


@pytest.fixture(params=[1, 2], ids=["one file", "two files"])
def request_of(request: pytest.FixtureRequest, make_request: MakeRequest, tmp_path: Path) -> MakeRequest:
    """A request whose slices are frames, in no order, of one file or of two."""

    def make(shape: tuple[int, int, int] = STREAMED) -> ResultRequest:
        single = make_request(shape)
        slices = write_series(single.findings.volume, tmp_path / "single", SyntheticStudy()).files
        mixed = [slices[k] for k in ORDER]
        count = len(mixed) // request.param
        refs = [
            write_enhanced(mixed[k * count : (k + 1) * count], tmp_path / f"{k}.dcm", FramesPlan(instance_number=k + 1))
            for k in range(request.param)
        ]
        ref = SeriesRef(refs[0].study_uid, refs[0].series_uid, tuple(path for each in refs for path in each.files))
        return replace(single, source=open_series(ref, SeriesRules(2, 0.0)))

    return make


def written(write: Callable[..., None], request: ResultRequest, path: Path) -> Path:
    with path.open("wb") as out:
        write(request, out)
    return path


def frames(request: ResultRequest) -> list[FrameHeader]:
    headers = [header for header in request.source.headers if isinstance(header, FrameHeader)]
    assert len(headers) == len(request.source.headers)
    return headers


def instances(request: ResultRequest) -> list[str]:
    return list(dict.fromkeys(str(header.SOPInstanceUID) for header in request.source.headers))


@pytest.mark.parametrize("shape", [STREAMED, STOCK], ids=["our writer", "highdicom's"])
def test_the_segmentation_is_read_back_by_the_frames(
    request_of: MakeRequest, tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    request = request_of(shape)
    path = written(write_seg, request, tmp_path / "seg.dcm")
    labels = request.findings.segmentation.labels
    np.testing.assert_array_equal(read_seg(path, request.source, thigh29()).labels, labels)
    seg = hd.seg.segread(path)
    for uid in instances(request):
        slices, numbers = zip(
            *[(k, header.frame_number) for k, header in enumerate(frames(request)) if header.SOPInstanceUID == uid],
            strict=True,
        )
        found = seg.get_pixels_by_source_frame(
            uid, numbers, combine_segments=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(found, labels[list(slices)])


@pytest.mark.parametrize("shape", [STREAMED, STOCK], ids=["our writer", "highdicom's"])
def test_every_plane_of_the_segmentation_names_its_frame(
    request_of: MakeRequest, tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    request = request_of(shape)
    seg = dcmread(written(write_seg, request, tmp_path / "seg.dcm"))
    place = {(str(each.SOPInstanceUID), each.frame_number): each.ImagePositionPatient for each in frames(request)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPClassUID == EnhancedCTImageStorage
        expected = place[str(image.ReferencedSOPInstanceUID), image.ReferencedFrameNumber]
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == list(expected)
    assert [image.ReferencedSOPInstanceUID for image in seg.SourceImageSequence] == instances(request)
    (series,) = seg.ReferencedSeriesSequence
    assert [image.ReferencedSOPInstanceUID for image in series.ReferencedInstanceSequence] == instances(request)
    assert series.SeriesInstanceUID == request.source.ref.series_uid
    assert CTImageStorage.encode() not in (tmp_path / "seg.dcm").read_bytes().replace(
        EnhancedCTImageStorage.encode(), b""
    )


@pytest.mark.parametrize("write", [write_sr, write_page])
def test_report_and_picture_refer_to_each_instance_once(
    request_of: MakeRequest, tmp_path: Path, write: Callable[..., None]
) -> None:
    request = request_of()
    result = dcmread(written(write, request, tmp_path / "result.dcm"))
    found = [str(image.ReferencedSOPInstanceUID) for image in references_in(result, EnhancedCTImageStorage)]
    assert set(found) == set(instances(request))
    if write is write_sr:
        assert found == instances(request)
    assert not list(references_in(result, CTImageStorage))


def references_in(dataset: Dataset, kind: str) -> list[Dataset]:
    found = [dataset] if dataset.get("ReferencedSOPClassUID") == kind else []
    for element in dataset:
        if element.VR == "SQ":
            found += [each for item in element.value for each in references_in(item, kind)]
    return found


@pytest.mark.parametrize(
    ("write", "shape"), [(write_seg, STREAMED), (write_seg, STOCK), (write_sr, STREAMED), (write_page, STREAMED)]
)
def test_dciodvfy_finds_no_fault(
    request_of: MakeRequest,
    output_of: Callable[..., str],
    tmp_path: Path,
    write: Callable[..., None],
    shape: tuple[int, int, int],
) -> None:
    output = output_of("dciodvfy", written(write, request_of(shape), tmp_path / "result.dcm"))
    assert output.strip() and "Error" not in output


def test_a_segmentation_of_other_frames_is_refused(request_of: MakeRequest, tmp_path: Path) -> None:
    request = request_of()
    path = written(write_seg, request, tmp_path / "seg.dcm")
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = 7
    dataset.save_as(path)
    with pytest.raises(DicomIoError, match=r"images that series .* does not hold"):
        read_seg(path, request.source, thigh29())
