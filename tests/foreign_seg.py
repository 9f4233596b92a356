"""A SEG as another program writes it: one label map of the structures that it has, with our codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from dicom_io.codes import ANATOMICAL_STRUCTURE, structure_codes
from engine.labels import Segment, thigh29

Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def write_label_map(path: Path, sources: Sequence[Dataset], labels: Labels) -> hd.seg.Segmentation:
    """Write the labels [slice, row, column] of a series; values are numbers of `thigh29`'s segments."""
    by_number = {segment.number: segment for segment in thigh29().segments}
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.LABELMAP,
        segment_descriptions=[_described(by_number[int(number)]) for number in np.unique(labels[labels > 0])],
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="Someone",
        manufacturer_model_name="Else",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return seg


def _described(segment: Segment) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.display,
        segmented_property_category=ANATOMICAL_STRUCTURE,
        segmented_property_type=structure_codes(segment.structure).concept(segment.side),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
