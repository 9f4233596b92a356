"""Pixels of CT slices as Hounsfield units."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from dicom_io.errors import SeriesParked
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault

PADDING_HU = -1024  # air, and less than any tissue: what a scanner's own unsigned 12 bit images hold outside
_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelData",
)
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in _KEYWORDS]
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
# How Pixel Data may begin, and where its length stands; by whether the VR is implicit (PS3.5 7.1).
_PIXEL_HEADS = {
    False: (Struct("<8xL"), (_PIXEL_DATA + b"OW", _PIXEL_DATA + b"OB")),
    True: (Struct("<4xL"), (_PIXEL_DATA,)),
}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_HU_RANGE = np.iinfo(np.int16)

Starts = Mapping[str, int]
"""Of files by their names, where the element Pixel Data begins."""


def read_slices(
    headers: Sequence[FileDataset], shape: tuple[int, int, int], workers: int, starts: Starts = MappingProxyType({})
) -> NDArray[np.int16]:
    """Decode the files of the headers in their order.

    Stored values become Hounsfield units by the slope and intercept of their own slice (PS3.3 C.11.1.1.2). Padding
    (PixelPaddingValue and its range limit, PS3.3 C.7.5.1.1.2) becomes `PADDING_HU`. Values outside int16 are clipped.

    Args:
        headers: one for each slice, with its `filename`.
        shape: slices, rows, columns of the result.
        workers: threads that decode side by side.
        starts: where the pixel data begin, of those files of which it is known.

    Returns:
        int16 Hounsfield units, axes [slice, row, column].

    Raises:
        SeriesParked: `undecodable`; the reason names the SOP Instance UID.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    hu = np.empty(shape, dtype=np.int16)

    def read(index: int) -> None:
        _read_slice(headers[index], starts, hu[index])

    _for_each_slice(headers, read, workers)
    return hu


def write_slices(
    headers: Sequence[FileDataset], shape: tuple[int, int, int], file: BinaryIO, workers: int, starts: Starts
) -> None:
    """Decode the files as `read_slices` does into a file of numpy (`.npy`), holding no more than a slice a thread.

    Args:
        headers: see `read_slices`.
        shape: see `read_slices`.
        file: a new file of the disk, open for writing.
        workers: see `read_slices`.
        starts: see `read_slices`.

    Raises:
        SeriesParked: see `read_slices`.
        DicomIoError: see `read_slices`.
        OSError: the file could not be written.
    """
    header = {"descr": "<i2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.flush()
    begin = file.tell()

    def write(index: int) -> None:
        hu = np.empty(shape[1:], dtype="<i2")
        _read_slice(headers[index], starts, hu)
        left, place = hu.reshape(-1).view(np.uint8).data, begin + index * hu.nbytes
        while left:
            written = os.pwrite(file.fileno(), left, place)
            left, place = left[written:], place + written

    _for_each_slice(headers, write, workers)


def _for_each_slice(headers: Sequence[FileDataset], work: Callable[[int], None], workers: int) -> None:
    with QUIETLY, ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode") as pool:
        tasks = [pool.submit(work, index) for index in range(len(headers))]
        try:
            for task in tasks:
                task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after the first error the rest need not be read


def _read_slice(header: FileDataset, starts: Starts, out: NDArray[np.int16]) -> None:
    try:
        dataset, stored = header, _native_values(header, starts)
        if stored is None:
            dataset = dcmread(str(header.filename), specific_tags=_TAGS)
            stored = _stored_values(dataset)
        if stored.shape != out.shape:
            raise ValueError(f"decoded to {stored.shape}, expected {out.shape}")
        _write_hounsfield(dataset, stored, out)
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, str(header.filename)):
            raise fault from error
        raise SeriesParked(
            "undecodable",
            f"series {header.SeriesInstanceUID}",
            f"the pixels of instance {header.SOPInstanceUID} cannot be decoded ({type(error).__name__})",
            "Send this instance again, best uncompressed",
        ) from error


def _native_values(header: FileDataset, starts: Starts) -> NDArray[np.integer] | None:
    """The stored values of an uncompressed file, without reading its header again; None where that cannot be done."""
    start = starts.get(str(header.filename))
    if start is None or not _is_plain(header):
        return None
    head, kinds = _PIXEL_HEADS[bool(header.original_encoding[0])]  # as it was read, whatever the syntax says
    count = int(header.Rows) * int(header.Columns)
    with Path(str(header.filename)).open("rb", buffering=0) as file:
        file.seek(start)
        found = file.read(head.size)
        if len(found) < head.size or not found.startswith(kinds):
            return None
        (length,) = head.unpack(found)
        if length == _UNDEFINED_LENGTH:
            return None
        stored = np.empty(count, dtype="<i2" if header.PixelRepresentation else "<u2")
        if length < stored.nbytes or file.readinto(stored.view(np.uint8).data) != stored.nbytes:
            raise ValueError(f"its pixel data are shorter than {stored.nbytes} bytes")
    return _without_unused_bits(stored.reshape(int(header.Rows), int(header.Columns)), header)


def _is_plain(dataset: FileDataset) -> bool:
    """Whether the pixels are two bytes each, little endian, not compressed."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    return not syntax.is_encapsulated and syntax.is_little_endian and dataset.BitsAllocated == 16


def _stored_values(dataset: FileDataset) -> NDArray[np.integer]:
    """The stored values [row, column], their unused high bits corrected.

    The usual uncompressed case is read without pydicom's decoder, which takes five times as long for it.
    """
    if not _is_plain(dataset):
        return _decoded(dataset)
    dtype = np.dtype("<i2" if dataset.PixelRepresentation else "<u2")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    stored = np.frombuffer(dataset.PixelData, dtype, count=rows * columns).reshape(rows, columns)
    return _without_unused_bits(stored, dataset)


def _without_unused_bits(stored: NDArray[np.integer], dataset: FileDataset) -> NDArray[np.integer]:
    unused = 16 - int(dataset.BitsStored)
    if not unused:
        return stored
    # Old scanners keep overlays in the unused bits; the shift back repeats the sign of a signed value (PS3.5 8.1.1).
    return np.asarray(np.right_shift(np.left_shift(stored, unused), unused))


def _decoded(dataset: FileDataset) -> NDArray[np.integer]:
    try:
        return np.asarray(pixel_array(dataset))
    except BaseException as error:
        # The RLE decoder is written in Rust; its panic on broken data is no Exception, and would end the process.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise RuntimeError("the decoder panicked") from error


def _write_hounsfield(dataset: FileDataset, stored: NDArray[np.integer], out: NDArray[np.int16]) -> None:
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    if slope == 1 and intercept.is_integer():
        _write_sum(stored, int(intercept), out)
    else:
        out[...] = np.clip(np.rint(stored * slope + intercept), _HU_RANGE.min, _HU_RANGE.max)
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(value), dataset) for value in (padding, padding if limit is None else limit)]
    out[(stored >= min(ends)) & (stored <= max(ends))] = PADDING_HU


def _write_sum(stored: NDArray[np.integer], intercept: int, out: NDArray[np.int16]) -> None:
    """Stored values and intercept; 16 bit values whose sums fit 16 bits are added without widening them."""
    low, high = int(stored.min()) + intercept, int(stored.max()) + intercept
    fits = _HU_RANGE.min <= low and high <= _HU_RANGE.max and _HU_RANGE.min <= intercept <= _HU_RANGE.max
    if fits and stored.dtype in (np.dtype("<i2"), np.dtype("<u2")):
        np.add(stored.view(np.int16), np.int16(intercept), out=out)  # wraps around, and back into its range
    else:
        out[...] = np.clip(stored.astype(np.int32) + intercept, _HU_RANGE.min, _HU_RANGE.max)


def _as_stored(value: int, dataset: FileDataset) -> int:
    """The padding value with the signedness of the pixels: some writers give -2000 as unsigned 63536, or reverse."""
    span = 1 << int(dataset.BitsAllocated)
    value %= span
    return value - span if dataset.PixelRepresentation and value >= span // 2 else value
