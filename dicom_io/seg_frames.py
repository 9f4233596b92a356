"""The frames of a BINARY segmentation, streamed structure by structure.

highdicom writes the header; this module writes what follows it: the per-frame functional groups and the pixel data.
A slice's functional groups differ between structures in two numbers only, so they are encoded once for each slice and
patched for each frame; the pixels are packed inside each structure's bounding box. That is about five times faster
than one dataset for each frame, and holds one structure in memory instead of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack, pack_into
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.attributes import FrameHeader
from dicom_io.boxes import LabelBoxes
from dicom_io.encoding import encoded, encoded_value, filled, item, uid_value
from dicom_io.errors import DicomIoError

DIMENSIONS = (0x0062000B, 0x00200032)
"""The dimensions that a frame is indexed by: Referenced Segment Number, Image Position (Patient)."""

_PER_FRAME_GROUPS = 0x52009230
_PIXEL_DATA = 0x7FE00010
_LONGEST_BYTES = 0xFFFFFFFE  # of a value with a 32-bit length, PS3.5 7.1.1
_FRAMES_AT_ONCE = 32  # 1 MB at 512 x 512, which stays in the cache while it is filled and written
_FRAME_MARK = "987654321"
_FRAME_VALUE = encoded_value("ReferencedFrameNumber", _FRAME_MARK)
_SEGMENT_MARK, _RANK_MARK, _NUMBER_MARK = 0xA1B2C3D4, 0xE5F60718, 0xBEEF
_CLASS_MARK, _INSTANCE_MARK, _POSITION_MARK = (
    "2.25.1.2.3.4.5",
    "2.25.1.2.3.4.6",
    ("-98765.125", "-98765.25", "-98765.75"),
)
_CLASS_VALUE, _INSTANCE_VALUE = uid_value(_CLASS_MARK), uid_value(_INSTANCE_MARK)
_POSITION_VALUE = "\\".join(_POSITION_MARK).encode()


@dataclass(frozen=True, eq=False)
class SegmentFrames:
    """The frames of one segment that hold any of its voxels.

    Attributes:
        number: Segment Number.
        slices: the slices, ascending.
        bits: uint8 [frame, row of the box, byte of the box]; the first pixel is the lowest bit (PS3.5 8.1.1).
        rows: rows of the box.
        bytes_: bytes of a row that the box covers.
    """

    number: int
    slices: NDArray[np.int64]
    bits: NDArray[np.uint8]
    rows: slice
    bytes_: slice


@dataclass(frozen=True)
class FrameTemplate:
    """One slice's item of the Per-frame Functional Groups Sequence, encoded, with the places of its two numbers."""

    encoded: bytes
    index_at: int
    number_at: int

    def patched(self, segment_number: int, rank: int) -> bytes:
        """The item of one frame: its segment, and the rank of its slice from 1."""
        item = bytearray(self.encoded)
        pack_into("<2I", item, self.index_at, segment_number, rank)
        pack_into("<H", item, self.number_at, segment_number)
        return bytes(item)


def pack_segments(labels: NDArray[np.uint8], boxes: LabelBoxes) -> tuple[SegmentFrames, ...]:
    """Every segment that has voxels, in the order of the segment numbers.

    Args:
        labels: [slice, row, column]; the number of columns is a multiple of 8.
        boxes: of these labels.
    """
    return tuple(_pack(labels, number, box) for number, box in enumerate(boxes, start=1) if box is not None)


def frame_templates(group: Dataset, headers: Sequence[Dataset]) -> tuple[FrameTemplate, ...]:
    """One template for each slice, made from the functional groups that highdicom wrote for one of them.

    Args:
        group: an item of the Per-frame Functional Groups Sequence; it is changed.
        headers: the source images or frames, slice by slice.

    Raises:
        DicomIoError: the item is not of the form that this module was made for.
    """
    group.FrameContentSequence[0].DimensionIndexValues = [_SEGMENT_MARK, _RANK_MARK]
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = _NUMBER_MARK
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = _CLASS_MARK, _INSTANCE_MARK
    if isinstance(headers[0], FrameHeader):
        source.ReferencedFrameNumber = _FRAME_MARK  # type 1C: the reference is to this frame alone (PS3.3 table 10-3)
    group.PlanePositionSequence[0].ImagePositionPatient = list(_POSITION_MARK)
    prototype = encoded(group)
    return tuple(_template(prototype, header) for header in headers)


def write_frames(
    out: BinaryIO, segments: Sequence[SegmentFrames], templates: Sequence[FrameTemplate], size: tuple[int, int]
) -> None:
    """Write per-frame functional groups and pixel data behind a header that is explicit VR little endian.

    Args:
        out: stands behind the header.
        segments: from `pack_segments`.
        templates: from `frame_templates`.
        size: rows and columns of a frame; columns is a multiple of 8.

    Raises:
        DicomIoError: the pixel data would be longer than a DICOM value may be.
    """
    rows, columns = size
    pixel_bytes = frame_count(segments) * rows * columns // 8
    groups = b"".join(
        templates[k].patched(segment.number, k + 1) for segment in segments for k in segment.slices.tolist()
    )
    if max(pixel_bytes, len(groups)) > _LONGEST_BYTES:
        raise DicomIoError("segmentation", f"its {pixel_bytes} bytes of pixels exceed one value", "Send fewer slices")
    padding = pixel_bytes % 2
    out.write(_element(_PER_FRAME_GROUPS, b"SQ", len(groups)) + groups)
    out.write(_element(_PIXEL_DATA, b"OB", pixel_bytes + padding))
    buffer = np.empty((_FRAMES_AT_ONCE, rows, columns // 8), dtype=np.uint8)
    for segment in segments:
        buffer[:] = 0
        for start in range(0, len(segment.bits), _FRAMES_AT_ONCE):
            bits = segment.bits[start : start + _FRAMES_AT_ONCE]
            buffer[: len(bits), segment.rows, segment.bytes_] = bits
            out.write(buffer[: len(bits)].data)
    out.write(bytes(padding))


def frame_count(segments: Sequence[SegmentFrames]) -> int:
    """Number of Frames."""
    return sum(len(segment.slices) for segment in segments)


def _pack(labels: NDArray[np.uint8], number: int, box: tuple[slice, slice, slice]) -> SegmentFrames:
    slices, rows, columns = box
    bytes_ = slice(columns.start // 8, -(-columns.stop // 8))
    mask = labels[slices, rows, 8 * bytes_.start : 8 * bytes_.stop] == number
    bits = np.packbits(mask, axis=-1, bitorder="little")
    kept = np.flatnonzero(bits.any(axis=(1, 2)))
    return SegmentFrames(number, slices.start + kept, bits[kept], rows, bytes_)


def _template(prototype: bytes, header: Dataset) -> FrameTemplate:
    values = {
        _CLASS_VALUE: (uid_value(str(header.SOPClassUID)),),
        _INSTANCE_VALUE: (uid_value(str(header.SOPInstanceUID)),),
        _POSITION_VALUE: (encoded_value("ImagePositionPatient", header.ImagePositionPatient),),
    }
    if isinstance(header, FrameHeader):
        values[_FRAME_VALUE] = (encoded_value("ReferencedFrameNumber", header.frame_number),)
    content = item(filled(prototype, values, Counter(list(values))))
    index, number = pack("<2I", _SEGMENT_MARK, _RANK_MARK), pack("<H", _NUMBER_MARK)
    number = pack("<HH2sH", 0x0062, 0x000B, b"US", 2) + number
    if content.count(index) != 1 or content.count(number) != 1:
        raise DicomIoError("segmentation", "its functional groups have an unknown form", "Report this with the version")
    return FrameTemplate(content, content.index(index), content.index(number) + len(number) - 2)


def _element(tag: int, representation: bytes, length: int) -> bytes:
    return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, representation, 0, length)
