"""The header of one received instance, and whether its bytes are all there.

The listener asks this before it answers success, so it must be quick, must not decode pixels, and must survive
anything that a peer can send.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, AllTransferSyntaxes

from dicom_io.bounded import BoundedFile
from dicom_io.errors import DicomIoError, NotUnderstood
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault

MAX_INFLATED_BYTES = 1 << 30  # a deflated dataset of 1 MB can hold 1 GB of zeros; no CT instance comes near it
_UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")  # leading zeros are tolerated: real objects have them
_UID_LENGTH = 64  # PS3.5 clause 9
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _SEQUENCE_DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)  # PS3.5 Annex A.4
_PIXEL_DATA = {Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData")}
_PIXEL_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation")
_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (*_KEYWORDS, *_PIXEL_SIZES, "NumberOfFrames")]
_RESEND = "Send the instance again from its source"


@dataclass(frozen=True)
class InstanceHeader:
    """What names an instance and tells how it is encoded."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str | None
    transfer_syntax_uid: str


def read_header(path: Path) -> InstanceHeader:
    """Read the header of a DICOM file (PS3.10 clause 7) and check that the instance is complete.

    The four UIDs must be present and of digits and dots. Uncompressed pixel data must be as long as the image's size
    demands (PS3.5 clause 8), compressed pixel data must end with its delimiter inside the file (PS3.5 Annex A.4).
    Pixels are not decoded. Objects that are no images (SR, KO, presentation states) need no pixel data.

    Raises:
        NotUnderstood: the bytes are no DICOM, are cut off, or lack a required UID.
        DicomIoError: the file itself cannot be opened or read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        reason = f"it cannot be opened: {error.strerror or error}"
        raise DicomIoError(f"file {path}", reason, "Check that it exists and may be read") from error
    with file, QUIETLY:
        try:
            return _header(BoundedFile(file))
        except _Damaged as damage:
            raise NotUnderstood(f"file {path}", str(damage), _RESEND) from damage
        except EOFError as error:
            raise NotUnderstood(f"file {path}", "it is cut off before its end", _RESEND) from error
        except PARSER_ERRORS as error:
            if fault := machine_fault(error, path):
                raise fault from error
            reason = f"it cannot be parsed as DICOM ({type(error).__name__})"
            raise NotUnderstood(f"file {path}", reason, _RESEND) from error


class _Damaged(Exception):  # noqa: N818 - private; becomes NotUnderstood where the file's name is known
    """What is wrong with the bytes, in words."""


class _Walk:
    """Sees each element of the dataset's top level as the parser meets it; stops it before the pixel data."""

    def __init__(self, reader: BoundedFile) -> None:
        self._reader = reader
        self.element_end: int | None = None  # of the last element met, where it told its length
        self.pixel_length: int | None = None
        self.pixel_start = 0

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        self.element_end = None if length == _UNDEFINED_LENGTH else self._reader.tell() + length
        if tag not in _PIXEL_DATA:
            return False
        self.pixel_length, self.pixel_start = length, self._reader.tell()
        return True


def _header(reader: BoundedFile) -> InstanceHeader:
    read_preamble(cast(BinaryIO, reader), force=False)
    meta = read_dataset(cast(BinaryIO, reader), False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = UID(_uid(meta, "TransferSyntaxUID"))
    if syntax not in AllTransferSyntaxes:
        raise _Damaged(f"its transfer syntax {syntax} is not one of the Standard's")
    if syntax.is_deflated:
        reader = _inflated(reader)
    walk = _Walk(reader)
    dataset = read_dataset(
        cast(BinaryIO, reader), syntax.is_implicit_VR, syntax.is_little_endian, stop_when=walk, specific_tags=_TAGS
    )
    _check_end(dataset, walk, reader)
    header = InstanceHeader(
        sop_class_uid=_uid(dataset, "SOPClassUID"),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
        study_uid=_uid(dataset, "StudyInstanceUID"),
        series_uid=_uid(dataset, "SeriesInstanceUID"),
        modality=_modality(dataset),
        transfer_syntax_uid=str(syntax),
    )
    _check_pixels(dataset, header, walk, reader)
    return header


def _inflated(reader: BoundedFile) -> BoundedFile:
    """The dataset of the deflated transfer syntax (PS3.5 Annex A.5), in memory."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflate.decompress(reader.read(), MAX_INFLATED_BYTES)
    if not inflate.eof:
        raise _Damaged(f"its deflated dataset is cut off or larger than {MAX_INFLATED_BYTES} bytes")
    return BoundedFile(io.BytesIO(content))


def _uid(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if not value:
        raise _Damaged(f"it has no {keyword}")
    if not isinstance(value, str) or len(value) > _UID_LENGTH or not _UID_FORM.fullmatch(value):
        raise _Damaged(f"its {keyword} is no UID")
    return str(value)


def _modality(dataset: Dataset) -> str | None:
    value = dataset.get("Modality")
    return value if isinstance(value, str) and value else None


def _check_end(dataset: Dataset, walk: _Walk, reader: BoundedFile) -> None:
    """Without pixel data the last element must end where the file does; what was read must have been all there."""
    for element in dataset.values():
        length = getattr(element, "length", _UNDEFINED_LENGTH)
        if length != _UNDEFINED_LENGTH and len(element.value or b"") < length:
            raise EOFError
    if walk.pixel_length is None and (not reader.ends() or walk.element_end not in (None, reader.tell())):
        raise EOFError


def _check_pixels(dataset: Dataset, header: InstanceHeader, walk: _Walk, reader: BoundedFile) -> None:
    if walk.pixel_length is None:
        if "Rows" in dataset or UID(header.sop_class_uid).name.endswith("Image Storage"):
            raise _Damaged("it is an image without pixel data")
        return
    missing = [keyword for keyword in _PIXEL_SIZES if not dataset.get(keyword)]
    if missing:
        raise _Damaged(f"it has pixel data, but no {', '.join(missing)}")
    encapsulated = UID(header.transfer_syntax_uid).is_encapsulated
    if encapsulated != (walk.pixel_length == _UNDEFINED_LENGTH):
        raise _Damaged("its transfer syntax and its pixel data disagree on whether they are compressed")
    if encapsulated:
        reader.seek(walk.pixel_start)
        _check_fragments(reader, int(dataset.get("NumberOfFrames") or 1))
        return
    expected = get_expected_length(dataset)
    if walk.pixel_length < expected:
        raise _Damaged(f"its pixel data has {walk.pixel_length} bytes where the image needs {expected}")
    reader.seek(walk.pixel_start + walk.pixel_length)


def _check_fragments(reader: BoundedFile, frames: int) -> None:
    """Walk over the items of encapsulated pixel data: an offset table, the fragments, the delimiter."""
    items = 0
    while True:
        head = reader.read(8)
        if len(head) < 8:
            raise EOFError
        group, element, length = struct.unpack("<HHL", head)
        if (group, element) == _SEQUENCE_DELIMITER:
            break
        if (group, element) != _ITEM or length == _UNDEFINED_LENGTH:
            raise _Damaged("its compressed pixel data is broken")
        reader.seek(length, os.SEEK_CUR)
        items += 1
    if items - 1 < frames:
        raise _Damaged(f"its compressed pixel data has {max(items - 1, 0)} fragments for {frames} frames")
