"""Where the stored values of each slice come from: a file of its own, or one frame of a multi-frame file.

Uncompressed frames are read at their place. The compressed frames of a file are taken one after the other, by the
offset tables or the fragments (PS3.5 A.4, PS3.3 C.7.6.3.1.8), so that a file is never held whole, nor decoded twice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from dicom_io.attributes import FrameHeader, number
from dicom_io.bounded import BoundedFile
from dicom_io.errors import SeriesParked
from dicom_io.guard import PARSER_ERRORS, machine_fault

Starts = Mapping[str, int]
"""Of files by their names, where the element Pixel Data begins."""

Fetch = Callable[[NDArray[np.int16]], tuple[Dataset, NDArray[np.integer]]]
"""Gets the stored values [row, column] of one slice, with the attributes that tell what they mean.

It is given the slice of the volume that they are for, and may read them into it: then they are a view of it.
"""

_DESCRIPTION = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_MEANING = ("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept")
_DESCRIPTION_TAGS = tuple(Tag(keyword) for keyword in _DESCRIPTION)
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in (*_DESCRIPTION, *_MEANING, "NumberOfFrames", "PixelData")]
_PIXEL_DATA = (0x7FE0, 0x0010)
# Tag, VR and length of Pixel Data, by whether the VR is implicit and the order of bytes little endian (PS3.5 7.1).
_HEADS = {
    (False, True): Struct("<HH2s2xL"),
    (True, True): Struct("<HH0sL"),
    (False, False): Struct(">HH2s2xL"),
}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_INFLATED_AT_ONCE = 1 << 20
_META_GROUP = 0x0002


@contextmanager
def blaming(header: FileDataset) -> Iterator[None]:
    """Name the instance, and the frame, whose pixels cannot be read.

    Raises:
        SeriesParked: `undecodable`.
        DicomIoError: it is the machine's fault.
    """
    try:
        yield
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, str(header.filename)):
            raise fault from error
        frame = f"frame {header.frame_number} of " if isinstance(header, FrameHeader) else ""
        raise SeriesParked(
            "undecodable",
            f"series {header.SeriesInstanceUID}",
            f"the pixels of {frame}instance {header.SOPInstanceUID} cannot be decoded ({type(error).__name__})",
            "Send this instance again, best uncompressed",
        ) from error


def fetches(headers: Sequence[FileDataset], starts: Starts, stack: ExitStack) -> Iterator[tuple[int, Fetch]]:
    """The index and the `Fetch` of every slice; those of one multi-frame file follow each other.

    A `Fetch` may run in another thread and at any time until the stack closes; compressed frames lie in its memory.

    Args:
        headers: of the slices.
        starts: of those files of which it is known.
        stack: removes what was written to the disk on the way.

    Raises:
        SeriesParked: `undecodable`; a file does not hold the frames that it tells of. The reason names the frame.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    files: dict[str, list[int]] = {}
    for index, header in enumerate(headers):
        if isinstance(header, FrameHeader):
            files.setdefault(str(header.filename), []).append(index)
        else:
            yield index, partial(_of_image, header, starts)
    for indices in files.values():
        frames = {cast(FrameHeader, headers[index]).frame_number: index for index in indices}
        first = cast(FrameHeader, headers[indices[0]])
        with blaming(first):
            compressed = UID(first.file_meta.TransferSyntaxUID).is_encapsulated
        if compressed:
            yield from _compressed(headers, frames, starts)
        else:
            with blaming(first):
                path, start = _uncompressed(first, starts, stack)
            for index in indices:
                yield index, partial(_of_frame, cast(FrameHeader, headers[index]), path, start)


def _of_image(header: FileDataset, starts: Starts, out: NDArray[np.int16]) -> tuple[Dataset, NDArray[np.integer]]:
    start = starts.get(str(header.filename))
    if start is not None and _is_plain(header):
        with Path(str(header.filename)).open("rb", buffering=0) as file:
            file.seek(start)
            stored = _plain_values(file, header, out)
        if stored is not None:
            return header, stored
    dataset = dcmread(str(header.filename), specific_tags=_TAGS)
    if not _is_plain(dataset):
        return dataset, _decoded(dataset)
    # pydicom's decoder takes five times as long for the usual case.
    rows, columns = int(number(dataset, "Rows")), int(number(dataset, "Columns"))
    stored = np.frombuffer(dataset.PixelData, _dtype(dataset), count=rows * columns).reshape(rows, columns)
    return dataset, _without_unused_bits(stored, dataset)


def _of_frame(
    header: FrameHeader, path: Path, start: int, out: NDArray[np.int16]
) -> tuple[Dataset, NDArray[np.integer]]:
    rows, columns, bits = (
        int(number(header, "Rows")),
        int(number(header, "Columns")),
        int(number(header, "BitsAllocated")),
    )
    if bits % 8 or int(number(header, "SamplesPerPixel")) != 1:
        raise ValueError(f"{bits} bits a pixel")
    length = rows * columns * (bits // 8)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        found = _pixel_element(file, header)
        if found is None or found[1] == _UNDEFINED_LENGTH or found[1] < length * header.frame_count:
            raise ValueError(f"its pixel data do not hold {header.frame_count} frames of {length} bytes")
        file.seek(length * (header.frame_number - 1), 1)
        if _is_plain(header):
            return header, _read_into(file, header, out)
        content = file.read(length)
    if len(content) != length:
        raise EOFError
    return header, _decoded(_alone(header, content, found[0] or "OW"))


def _of_bytes(header: FrameHeader, content: bytes, out: NDArray[np.int16]) -> tuple[Dataset, NDArray[np.integer]]:
    return header, _decoded(_alone(header, encapsulate([content]), "OB"))


def _compressed(
    headers: Sequence[FileDataset], frames: Mapping[int, int], starts: Starts
) -> Iterator[tuple[int, Fetch]]:
    """The compressed frames of one file; `frames` are the indices of the slices by their frame numbers."""
    first = cast(FrameHeader, headers[frames[min(frames)]])
    contents = _frame_bytes(first, starts)
    for place in range(1, first.frame_count + 1):
        header = cast(FrameHeader, headers[frames.get(place, frames[min(frames)])])
        with blaming(header):
            content = next(contents, None)
            if content is None:
                raise EOFError
        if place in frames:
            yield frames[place], partial(_of_bytes, header, content)
    with blaming(first):
        if next(contents, None) is not None:
            raise ValueError(f"more than {first.frame_count} frames")


def _frame_bytes(header: FrameHeader, starts: Starts) -> Iterator[bytes]:
    offsets, lengths = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    with Path(str(header.filename)).open("rb") as file:
        file.seek(_start(header, starts))
        found = _pixel_element(file, header)
        if found is None or found[1] != _UNDEFINED_LENGTH:
            raise ValueError("no compressed pixel data")
        yield from generate_frames(
            BoundedFile(file),
            number_of_frames=header.frame_count,
            extended_offsets=(offsets, lengths) if offsets and lengths else None,
        )


def _uncompressed(header: FrameHeader, starts: Starts, stack: ExitStack) -> tuple[Path, int]:
    """The file in which the frames lie one behind the other, and where its Pixel Data begins."""
    path = Path(str(header.filename))
    if not UID(header.file_meta.TransferSyntaxUID).is_deflated:
        return path, _start(header, starts)
    inflated = Path(stack.enter_context(TemporaryDirectory(prefix="vastus-"))) / "inflated"
    with path.open("rb") as source, inflated.open("w+b") as out:
        read_preamble(source, force=False)
        read_dataset(source, False, True, stop_when=lambda tag, vr, length: tag >> 16 != _META_GROUP)
        _inflate(source, out)
        out.seek(0)
        read_dataset(out, False, True, stop_when=lambda tag, vr, length: tag == Tag(_PIXEL_DATA))
        return inflated, out.tell()


def _start(header: FrameHeader, starts: Starts) -> int:
    known = starts.get(str(header.filename))
    if known is not None:
        return known
    with Path(str(header.filename)).open("rb") as file:
        dcmread(file, stop_before_pixels=True)
        return file.tell()


def _inflate(source: BinaryIO, out: BinaryIO) -> None:
    """The dataset of the deflated transfer syntax (PS3.5 A.5), piece by piece."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while content := inflate.unconsumed_tail or source.read(_INFLATED_AT_ONCE):
        out.write(inflate.decompress(content, _INFLATED_AT_ONCE))
        if inflate.eof:
            return
    raise EOFError


def _pixel_element(file: BinaryIO, header: FileDataset) -> tuple[str, int] | None:
    """VR, empty where it is implicit, and length of the element Pixel Data, which begins here; None where none does."""
    head = _HEADS[header.original_encoding]  # type: ignore[index]  # as it was read, whatever the syntax says
    found = file.read(head.size)
    if len(found) < head.size:
        return None
    group, element, kind, length = head.unpack(found)
    return (kind.decode("ascii", "replace"), length) if (group, element) == _PIXEL_DATA else None


def _plain_values(file: BinaryIO, header: FileDataset, out: NDArray[np.int16]) -> NDArray[np.integer] | None:
    """The stored values of an uncompressed image, of which the header need not be read again; None where it must."""
    found = _pixel_element(file, header)
    if found is None or found[1] == _UNDEFINED_LENGTH or found[0] not in ("", "OB", "OW"):
        return None
    if found[1] < 2 * int(number(header, "Rows")) * int(number(header, "Columns")):
        raise ValueError(f"its pixel data are only {found[1]} bytes")
    return _read_into(file, header, out)


def _read_into(file: BinaryIO, header: FileDataset, out: NDArray[np.int16]) -> NDArray[np.integer]:
    """Read plain values from here, into the slice of the volume if it is of their size."""
    shape = (int(number(header, "Rows")), int(number(header, "Columns")))
    fits = out.shape == shape and out.flags.c_contiguous and out.dtype == np.dtype("<i2")
    stored = out.view(_dtype(header)) if fits else np.empty(shape, _dtype(header))
    if file.readinto(stored.reshape(-1).view(np.uint8).data) != stored.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    return _without_unused_bits(stored, header)


def _dtype(dataset: Dataset) -> np.dtype[np.integer]:
    return np.dtype("<i2" if number(dataset, "PixelRepresentation") else "<u2")


def _is_plain(dataset: FileDataset) -> bool:
    """Whether the pixels are two bytes each, little endian, not compressed."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    return not syntax.is_encapsulated and syntax.is_little_endian and number(dataset, "BitsAllocated") == 16


def _without_unused_bits(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.integer]:
    unused = 16 - int(number(dataset, "BitsStored"))
    if not unused:
        return stored
    # Old scanners keep overlays in the unused bits; the shift back repeats the sign of a signed value (PS3.5 8.1.1).
    return np.asarray(np.right_shift(np.left_shift(stored, unused), unused))


def _alone(header: FrameHeader, content: bytes, kind: str) -> FileDataset:
    """A frame as an image of its own, for pydicom's decoders."""
    elements = {tag: header.get_item(tag) for tag in _DESCRIPTION_TAGS if tag in header}
    image = FileDataset("", elements, file_meta=header.file_meta)  # type: ignore[arg-type]  # as pydicom's reader does
    implicit, little_endian = header.original_encoding
    image.set_original_encoding(bool(implicit), bool(little_endian))
    image.add_new(Tag(_PIXEL_DATA), kind, content)
    return image


def _decoded(dataset: Dataset) -> NDArray[np.integer]:
    try:
        return np.asarray(pixel_array(dataset))
    except BaseException as error:
        # The RLE decoder is written in Rust; its panic on broken data is no Exception, and would end the process.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise RuntimeError("the decoder panicked") from error
