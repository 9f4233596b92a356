"""The segmentation object: DICOM SEG, BINARY, one segment for each structure and side (PS3.3 A.51).

Grid, orientation and Frame of Reference are those of the source, nothing is cropped, and every source image is
referred to. All segments are described, found or not, so that a segment number always means the same; only planes
with voxels become frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import BinaryIO

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicom_io.attributes import FrameHeader
from dicom_io.boxes import boxes_of
from dicom_io.codes import ANATOMICAL_STRUCTURE, ARTIFICIAL_INTELLIGENCE, structure_codes
from dicom_io.colours import structure_colour
from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest, tracking_id
from dicom_io.heading import (
    MAKER,
    adopt,
    algorithm_name,
    algorithm_parameters,
    content_description,
    encoded_sources,
    long_string,
    maker_attributes,
    neutral_source,
    save,
    state_loss,
)
from dicom_io.seg_frames import DIMENSIONS, frame_count, frame_templates, pack_segments, write_frames
from dicom_io.uids import derive_uid, tracking_uid
from engine.labels import LabelSet, Segment
from engine.volume import Grid

_LOG = logging.getLogger("dicom_io.seg")


def write_seg(request: ResultRequest, out: BinaryIO) -> None:
    """Write the segmentation.

    Our own writer streams the frames. It packs whole bytes of a row, so a grid whose columns are no multiple of 8 is
    written by highdicom, which is slower and holds all frames in memory.

    Raises:
        DicomIoError: a structure has no code, or the result does not fit one DICOM object.
    """
    segmentation = request.findings.segmentation
    columns = segmentation.grid.shape[2]
    if columns % 8 == 0 and len(segmentation.label_set.segments) > 1:
        _stream(request, out)
    else:
        _LOG.info("seg.writer highdicom: %d columns, %d segments", columns, len(segmentation.label_set.segments))
        sources = [_single_image(header) for header in request.source.headers]
        result = _segmentation(request, sources, segmentation.labels)
        _refer_to_frames(result, request.source.headers)
        save(result, out, encoded_sources(request.source.headers))


def _stream(request: ResultRequest, out: BinaryIO) -> None:
    labels, headers = request.findings.segmentation.labels, request.source.headers
    one_pixel = np.zeros((1, *labels.shape[1:]), dtype=np.uint8)
    one_pixel[0, 0, 0] = 1
    result = _segmentation(request, [_single_image(headers[0])], one_pixel)
    dimensions = tuple(int(item.DimensionIndexPointer) for item in result.DimensionIndexSequence)
    item = result.PerFrameFunctionalGroupsSequence[0]
    del result.PerFrameFunctionalGroupsSequence, result.PixelData
    if dimensions != DIMENSIONS or max(result.keys()) > (0x5200, 0x9230):
        raise DicomIoError(
            "segmentation", f"its header has an unknown form {dimensions}", "Report this with the version"
        )
    segments = pack_segments(labels, boxes_of(request.findings.segmentation))
    result.NumberOfFrames = frame_count(segments)
    save(result, out, encoded_sources(headers))
    write_frames(out, segments, frame_templates(item, headers), (labels.shape[1], labels.shape[2]))


def _segmentation(
    request: ResultRequest, sources: Sequence[Dataset], labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> hd.seg.Segmentation:
    """highdicom's object of these sources and labels, with what it cannot know set right."""
    segmentation, headers = request.findings.segmentation, request.source.headers
    result = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(segment, request) for segment in segmentation.label_set.segments],
        content_label=MAKER.upper(),
        content_description=content_description(request.provenance),
        **maker_attributes(request, "seg"),
    )
    adopt(result, request)
    # highdicom knows one slice only here, and takes 1 mm for the spacing of one slice.
    result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [_measures(headers, segmentation.grid)]
    state_loss(result, headers)
    organisation = derive_uid("dimensions", request.uids.seg_instance)  # random in highdicom
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = organisation
    for index in result.DimensionIndexSequence:
        index.DimensionOrganizationUID = organisation
    return result


def _single_image(header: Dataset) -> Dataset:
    """The neutral source; a frame as an image of its own, for highdicom has no flat headers of frames."""
    source = neutral_source(header)
    if isinstance(header, FrameHeader):
        source.SOPClassUID = CTImageStorage
        source.SOPInstanceUID = _frame_uid(header)
    return source


def _frame_uid(header: FrameHeader) -> str:
    """Stands for a frame while highdicom works; in no file."""
    return derive_uid("frame", str(header.SOPInstanceUID), str(header.frame_number))


def _refer_to_frames(result: Dataset, headers: Sequence[Dataset]) -> None:
    """Let the references to the stand-ins of frames be references to the frames."""
    frames = {_frame_uid(header): header for header in headers if isinstance(header, FrameHeader)}
    for group in result.PerFrameFunctionalGroupsSequence if frames else ():
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        frame = frames.get(source.ReferencedSOPInstanceUID)
        if frame is None:  # highdicom's groups of one plane share this item: it is done
            continue
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = frame.SOPClassUID, frame.SOPInstanceUID
        source.ReferencedFrameNumber = frame.frame_number


def _measures(headers: Sequence[Dataset], grid: Grid) -> Dataset:
    """Pixel Measures (PS3.3 C.7.6.16.2.1): the source's own, and the distance between the planes where it is one.

    Where the source states no slice thickness, the distance is the nominal thickness: not of the patient's slices, but
    of the planes of this object, which fill the space between their neighbours. A receiver needs one (type 1C). Where
    the distance varies it is the thickness that all slices state, or the mean distance.
    """
    normal = np.cross(grid.affine[:3, 1], grid.affine[:3, 2])
    spacing_mm = abs(float(grid.affine[:3, 0] @ normal) / float(np.linalg.norm(normal)))
    measures = Dataset()
    measures.PixelSpacing = headers[0].PixelSpacing
    if grid.uneven is None:
        measures.SpacingBetweenSlices = f"{spacing_mm:.10g}"
    stated = headers[0].get("SliceThickness")
    told = stated not in (None, "") and (
        grid.uneven is None or all(header.get("SliceThickness") == stated for header in headers)
    )
    measures.SliceThickness = stated if told else f"{spacing_mm:.10g}"
    return measures


def _description(segment: Segment, request: ResultRequest) -> hd.seg.SegmentDescription:
    provenance, label_set = request.provenance, request.findings.segmentation.label_set
    codes = structure_codes(segment.structure)
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=long_string(segment.display),
        segmented_property_category=ANATOMICAL_STRUCTURE,
        segmented_property_type=codes.concept(segment.side),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=long_string(algorithm_name(provenance)),
            family=ARTIFICIAL_INTELLIGENCE,
            version=long_string(provenance.model_version),
            source=MAKER,
            parameters=algorithm_parameters(provenance),
        ),
        tracking_uid=tracking_uid(provenance.job_id, segment.number),
        tracking_id=tracking_id(segment),
        display_color=_cielab(segment, label_set),
    )
    if codes.note:
        description.SegmentDescription = codes.note
    return description


def _cielab(segment: Segment, label_set: LabelSet) -> hd.color.CIELabColor:
    return hd.color.CIELabColor.from_rgb(*structure_colour(segment.structure, label_set))
