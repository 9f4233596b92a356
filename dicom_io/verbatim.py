"""A source's own words, byte for byte: what a result says of its patient and study is copied, not translated.

pydicom turns text into Unicode and back. That changes bytes: escape sequences of ISO 2022 take another form, a
character set that it does not know becomes another one, what cannot be decoded becomes U+FFFD, and a decimal string
such as `1,75` stops it. A PACS files a result by these bytes, so they are copied as they stand in the file, beside
the Specific Character Set that they stand under.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, DEFAULT_CHARSET_VR

from dicom_io.errors import DicomIoError
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault

UNREADABLE = "\ufffd"
"""What pydicom puts in the place of bytes that are no character of their character set."""

_LAST_GROUP = 0x0040  # behind it are no attributes of patient or study: pixels, functional groups
_CHARACTER_SET = 0x00080005  # pydicom must read it, to write under it
_UIDS = frozenset({"UI", "UR"})  # of characters that every set has; code compares them as text


def verbatim(header: Dataset) -> Dataset:
    """The elements of a header as its file has them, up to those of the images; none is shared with the header.

    Args:
        header: of a slice; read from a file, which is read once more, or made in memory.

    Returns:
        A dataset of elements whose text is not decoded: to be written, not to be read. Inside its sequences text is
        decoded still, see `verbatim_items`. Those of a header without file are its own.

    Raises:
        DicomIoError: the file is there, but cannot be read again; or a header without file has text that could not be
            decoded, so that its bytes are lost.
    """
    path = str(getattr(header, "filename", None) or "")
    with QUIETLY:
        return _undecoded(_read_again(path)) if path and Path(path).is_file() else _own(header)


def verbatim_items(element: DataElement) -> DataElement:
    """A sequence of `verbatim` with the text of its items not decoded either, at all depths."""
    items = [_undecoded_item(item) for item in element.value or ()]
    return DataElement(element.tag, "SQ", Sequence(items))


def identity(header: Dataset, keyword: str, decoded: str) -> str:
    """What tells one value of an attribute from another: its text, or its bytes where that could not be decoded.

    Two values that differ in unreadable bytes alone look the same once they are decoded.

    Args:
        header: of a slice, read from a file.
        keyword: of an attribute with text.
        decoded: its text.
    """
    if UNREADABLE not in decoded:
        return decoded.strip()
    stored = verbatim(header).get(keyword, decoded)
    values = stored if isinstance(stored, MultiValue) else [stored]
    return repr([getattr(value, "original_string", value) for value in values])


def _read_again(path: str) -> FileDataset:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as where it was read first
            return read_partial(file, stop_when=lambda tag, vr, length: tag.group > _LAST_GROUP)
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, path):
            raise fault from error
        reason = f"it was read as DICOM before, and cannot be any more ({type(error).__name__})"
        raise DicomIoError(f"file {path}", reason, "Look after this machine and its disk; run the job again") from error


def _own(header: Dataset) -> Dataset:
    """A header without file, its elements as they are."""
    result = Dataset()
    for tag in list(header.keys()):
        if tag.group > _LAST_GROUP:
            continue
        element = deepcopy(header.get_item(tag))
        if UNREADABLE in str(element.value):
            reason = f"its bytes in {tag} are no text under its character set, and the file is not there to copy them"
            raise DicomIoError("header", reason, "Put the file back where it was")
        result[tag] = element
    return result


def _undecoded(dataset: Dataset) -> Dataset:
    """The same elements, with text as bytes."""
    result = Dataset()
    for tag in list(dataset.keys()):  # to iterate over the dataset itself would decode it
        raw = dataset.get_item(tag)
        result[tag] = _with_bytes(raw) if isinstance(raw, RawDataElement) else raw
    return result


def _undecoded_item(item: Dataset) -> Dataset:
    """The same, at all depths; numbers are decoded, for they are written in the byte order of the result."""
    result = _undecoded(item)
    for tag in list(result.keys()):
        element = result[tag]
        result[tag] = verbatim_items(element) if element.VR == "SQ" else element
    return result


def _with_bytes(raw: RawDataElement) -> DataElement | RawDataElement:
    vr = _representation(raw)
    if raw.value is None or vr in _UIDS or raw.tag == _CHARACTER_SET:
        return raw
    if vr == "PN":
        return DataElement(raw.tag, vr, raw.value)  # splits at the backslash and joins there again
    if vr in CUSTOMIZABLE_CHARSET_VR:
        return DataElement(raw.tag, vr, raw.value, already_converted=True)
    if vr in DEFAULT_CHARSET_VR:
        # pydicom writes these from text; Latin-1 gives every byte back.
        return DataElement(raw.tag, vr, raw.value.decode("latin-1"), already_converted=True)
    return raw


def _representation(raw: RawDataElement) -> str:
    """The VR as the file states it; where it states none, as the Standard's dictionary has it."""
    if raw.VR not in (None, "UN"):
        return str(raw.VR)
    return dictionary_VR(raw.tag) if dictionary_has_tag(raw.tag) else "UN"
