"""Reads a segmentation object back: from DICOM SEG to labels on the grid of the CT that it was made of.

BINARY (PS3.3 A.51) and LABELMAP. Frames are placed by the source image that they name, never by their order; what
a segment is, is told by its codes, and they must be the label set's for that number.
"""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from dicom_io.attributes import FrameHeader
from dicom_io.codes import laterality, structure_codes
from dicom_io.errors import DicomIoError
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault
from dicom_io.series import SourceSeries
from engine.labels import LabelSet, Segment
from engine.segmentation import Segmentation

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"  # PS3.6 Annex A; pydicom 3.0 has no name for it
Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
KINDS = ("BINARY", "LABELMAP")
_PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")
_ASK = "Give the segmentation that Vastus wrote for this series, or labels as NIfTI or NRRD"


def read_seg(path: Path, source: SourceSeries, label_set: LabelSet) -> Segmentation:
    """Read a SEG as labels on the grid of its CT; a voxel that no frame covers is background.

    Args:
        path: the SEG's file.
        source: the CT, opened.
        label_set: what its segments must be; it may hold fewer.

    Raises:
        DicomIoError: the file is unreadable or no SEG, refers to other images, or its segments are not the label set's
            or overlap; the error names the file.
    """
    thing = f"file {path}"
    with QUIETLY:
        dataset = _read(path, thing)
        _check_segments(dataset, thing, label_set)
        _check_source(dataset, thing, source)
        _check_images(dataset, thing, source)
        labels = _labels(dataset, thing, source)
    return Segmentation(labels, source.grid, label_set)


def _read(path: Path, thing: str) -> Dataset:
    try:
        dataset = dcmread(path)
        kind, form = dataset.get("SOPClassUID"), str(dataset.get("SegmentationType", ""))
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, path):
            raise fault from error
        raise DicomIoError(thing, "it cannot be read as DICOM", "Copy it again from its source") from error
    if kind not in (SegmentationStorage, LABEL_MAP_STORAGE) or form not in KINDS:
        named = getattr(kind, "name", kind)
        reason = f"it is no segmentation with one label a voxel, but {named} {form}".rstrip()
        raise DicomIoError(thing, reason, _ASK)
    return dataset


def _check_segments(dataset: Dataset, thing: str, label_set: LabelSet) -> None:
    known = {segment.number: segment for segment in label_set.segments}
    try:
        described = [(int(item.SegmentNumber), item) for item in dataset.SegmentSequence]
        for number, item in described:
            if number == 0:  # a LABELMAP describes its background too
                continue
            if number not in known:
                reason = f"segment {number} is none of {label_set.name}, which end at {max(known)}"
                raise DicomIoError(thing, reason, _ASK)
            if not _is_coded_as(item, known[number]):
                told = item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning
                reason = f"segment {number} is {told!r}, and should be coded as {known[number].display!r}"
                raise DicomIoError(thing, reason, _ASK)
    except PARSER_ERRORS as error:
        raise DicomIoError(thing, "its segments are not fully described", _ASK) from error


def _is_coded_as(item: Dataset, segment: Segment) -> bool:
    """Whether the property type is one of the structure's codes, and its modifier the side."""
    codes = structure_codes(segment.structure)
    coded = item.SegmentedPropertyTypeCodeSequence[0]
    sides = coded.get("SegmentedPropertyTypeModifierCodeSequence", [])
    side = laterality(segment.side)
    wanted = [] if side is None else [(side.value, side.scheme_designator)]
    same_side = [(each.CodeValue, each.CodingSchemeDesignator) for each in sides] == wanted
    found = (coded.CodeValue, coded.CodingSchemeDesignator)
    return same_side and found in {(code.value, code.scheme_designator) for code in (codes.primary, *codes.equivalents)}


def _check_source(dataset: Dataset, thing: str, source: SourceSeries) -> None:
    if dataset.get("FrameOfReferenceUID") != source.headers[0].FrameOfReferenceUID:
        reason = f"its frame of reference is not that of series {source.ref.series_uid}"
        raise DicomIoError(thing, reason, "Put it beside the series that it was made of")
    size = (int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0)))
    if size != source.grid.shape[1:]:
        reason = f"its frames have {size[0]} x {size[1]} pixels, the series {source.grid.shape[1]} x "
        raise DicomIoError(thing, f"{reason}{source.grid.shape[2]}", "Put it beside the series that it was made of")


def _check_images(dataset: Dataset, thing: str, source: SourceSeries) -> None:
    """Every frame must be of one of the series' images; highdicom leaves the others out without a word."""
    known = {(str(header.SOPInstanceUID), getattr(header, "frame_number", None)) for header in source.headers}
    try:
        images = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in dataset[_PER_FRAME].value]
        named = [(str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")) for image in images]
    except PARSER_ERRORS as error:
        raise DicomIoError(thing, "a frame does not name the image that it was made of", _ASK) from error
    if strange := sum(image not in known for image in named):
        reason = f"{strange} of its {len(named)} frames are of images that series {source.ref.series_uid} does not hold"
        raise DicomIoError(thing, reason, "Put it beside the series that it was made of")


def _labels(dataset: Dataset, thing: str, source: SourceSeries) -> Labels:
    try:
        segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        labels = _labels_of(segmentation, source)
    except PARSER_ERRORS as error:
        reason = f"its frames do not give one label for each voxel of series {source.ref.series_uid}: {error}"
        raise DicomIoError(thing, reason, _ASK) from error
    return np.ascontiguousarray(labels, dtype=np.uint8)


def _labels_of(segmentation: hd.seg.Segmentation, source: SourceSeries) -> Labels:
    """The label of each voxel, by the images or the frames that the slices are."""
    frames: dict[str, list[tuple[int, int]]] = {}
    for k, header in enumerate(source.headers):
        if isinstance(header, FrameHeader):
            frames.setdefault(str(header.SOPInstanceUID), []).append((k, header.frame_number))
    if not frames:
        instances = [header.SOPInstanceUID for header in source.headers]
        by_image = segmentation.get_pixels_by_source_instance(
            instances, combine_segments=True, assert_missing_frames_are_empty=True
        )
        return np.asarray(by_image)
    labels = np.zeros(source.grid.shape, dtype=np.uint8)
    for uid, found in frames.items():
        slices, numbers = zip(*found, strict=True)
        labels[list(slices)] = segmentation.get_pixels_by_source_frame(
            uid, numbers, combine_segments=True, assert_missing_frames_are_empty=True
        )
    return labels
