"""Datasets as bytes, and bytes with other values: for what a result says thousands of times over.

highdicom and pydicom make one object for each item and each of its elements. Where many items are alike, one of them
is made by highdicom with marks in place of what differs, encoded once, and `filled` puts the values in. All of it is
explicit VR little endian with defined lengths (PS3.5 7.1.2, 7.5), as pydicom writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from struct import pack, unpack_from
from typing import BinaryIO

from pydicom.charset import default_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element, write_dataset

from dicom_io.attributes import instances_of
from dicom_io.errors import DicomIoError
from dicom_io.guard import QUIETLY

CharacterSet = str | list[str]
"""Specific Character Set (0008,0005), or the default of PS3.5 6.1.2.1."""

Values = Mapping[bytes, Sequence[bytes]]
"""By each mark, what takes its place: one value, or the contents of any number of items."""

_ITEM = pack("<HH", 0xFFFE, 0xE000)
_SEQUENCE = b"SQ"
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_REFERENCED_CLASS, _REFERENCED_INSTANCE = 0x00081150, 0x00081155


def encoded(dataset: Dataset, character_set: CharacterSet = default_encoding) -> bytes:
    """The elements of a dataset; the character set is that of the object it stands in."""
    buffer = BytesIO()
    with QUIETLY:  # a character set that pydicom does not know is the source's, and carried as it is
        write_dataset(_stream(buffer), dataset, character_set)
    return buffer.getvalue()


def encoded_value(keyword: str, value: object, character_set: CharacterSet = default_encoding) -> bytes:
    """The value of one element as bytes."""
    alone = Dataset()
    setattr(alone, keyword, value)
    whole = encoded(alone, character_set)
    return whole[12 if whole[4:6] in _LONG else 8 :]


def write_elements(out: BinaryIO, dataset: Dataset, ready: Mapping[int, bytes]) -> None:
    """Write a dataset as pydicom's `write_dataset` does, some of its elements as they are given.

    Args:
        out: where to.
        dataset: the other elements.
        ready: whole elements by their tags, as `sequence` gives them; they take the place of those of the dataset.
    """
    stream = _stream(out)
    whole = correct_ambiguous_vr(dataset, True)
    character_set = whole.get("SpecificCharacterSet", default_encoding)
    for tag in sorted({*whole.keys(), *ready}):
        if tag in ready:
            out.write(ready[tag])
        else:
            write_data_element(stream, whole[tag], character_set)


def element(tag: int, representation: bytes, value: bytes) -> bytes:
    """One element; the value is of even length."""
    return _head(pack("<HH", tag >> 16, tag & 0xFFFF), representation, len(value)) + value


def item(content: bytes) -> bytes:
    """One item of a sequence."""
    return _ITEM + pack("<I", len(content)) + content


def sequence(tag: int, contents: Sequence[bytes]) -> bytes:
    """A sequence of items."""
    return element(tag, _SEQUENCE, b"".join(map(item, contents)))


def uid_value(uid: str) -> bytes:
    """A UID as a value: of even length by a zero byte (PS3.5 9.1)."""
    value = uid.encode("ascii")
    return value + bytes(len(value) % 2)


def reference(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The content of an item that refers to an instance (SOP Instance Reference Macro, PS3.3 table 10-11)."""
    sop_class = element(_REFERENCED_CLASS, b"UI", uid_value(sop_class_uid))
    return sop_class + element(_REFERENCED_INSTANCE, b"UI", uid_value(sop_instance_uid))


def references(tag: int, headers: Sequence[Dataset]) -> bytes:
    """A sequence that refers to every one of these images; to an image with several frames once, and to all of them."""
    images = instances_of(headers)
    return sequence(tag, [reference(str(header.SOPClassUID), str(header.SOPInstanceUID)) for header in images])


def filled(content: bytes, values: Values, expected: Counter[bytes]) -> bytes:
    """Encoded elements with other values, all lengths set right.

    Args:
        content: elements, as `encoded` gives them.
        values: a mark that is the whole value of an element gets its one value; one that is the whole content of an
            item gets as many items as there are contents.
        expected: how often each mark must be met.

    Raises:
        DicomIoError: a mark was met more or less often than expected: what was encoded is not of the form that the
            caller was made for.
    """
    met: Counter[bytes] = Counter()
    result = _filled(content, values, met)
    if met != expected:
        raise DicomIoError("result", f"{len(met)} marks in it are not {len(expected)}", "Report this with the version")
    return result


def _filled(content: bytes, values: Values, met: Counter[bytes]) -> bytes:
    parts, place = [], 0
    while place < len(content):
        representation = content[place + 4 : place + 6]
        if representation in _LONG:
            start, (length,) = place + 12, unpack_from("<I", content, place + 8)
        else:
            start, (length,) = place + 8, unpack_from("<H", content, place + 6)
        value = content[start : start + length]
        if representation == _SEQUENCE:
            value = _filled_items(value, values, met)
        elif value in values:
            met[value] += 1
            (value,) = values[value]
        parts += [_head(content[place : place + 4], representation, len(value)), value]
        place = start + length
    return b"".join(parts)


def _filled_items(items: bytes, values: Values, met: Counter[bytes]) -> bytes:
    parts: list[bytes] = []
    place = 0
    while place < len(items):
        (length,) = unpack_from("<I", items, place + 4)
        content = items[place + 8 : place + 8 + length]
        if content in values:
            met[content] += 1
            parts += map(item, values[content])
        else:
            parts.append(item(_filled(content, values, met)))
        place += 8 + length
    return b"".join(parts)


def _head(tag: bytes, representation: bytes, length: int) -> bytes:
    return tag + representation + (pack("<HI", 0, length) if representation in _LONG else pack("<H", length))


def _stream(out: BinaryIO) -> DicomIO:
    stream = DicomIO(out)
    stream.is_little_endian, stream.is_implicit_VR = True, False
    return stream
