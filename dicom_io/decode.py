"""Pixels of CT slices as Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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
_HU_RANGE = np.iinfo(np.int16)


def read_slices(headers: Sequence[FileDataset], shape: tuple[int, int, int], workers: int) -> NDArray[np.int16]:
    """Decode the files of the headers in their order.

    Stored values become Hounsfield units by the slope and intercept of their own slice (PS3.3 C.11.1.1.2). Padding
    (PixelPaddingValue and its range limit, PS3.3 C.7.5.1.1.2) becomes `PADDING_HU`. Values outside int16 are clipped.

    Args:
        headers: one for each slice, with its `filename`.
        shape: slices, rows, columns of the result.
        workers: threads that decode side by side.

    Returns:
        int16 Hounsfield units, axes [slice, row, column].

    Raises:
        SeriesParked: `undecodable`; the reason names the SOP Instance UID.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    hu = np.empty(shape, dtype=np.int16)
    with QUIETLY, ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode") as pool:
        tasks = [pool.submit(_read_slice, header, out) for header, out in zip(headers, hu, strict=True)]
        try:
            for task in tasks:
                task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after the first error the rest need not be read
    return hu


def _read_slice(header: FileDataset, out: NDArray[np.int16]) -> None:
    try:
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


def _stored_values(dataset: FileDataset) -> NDArray[np.integer]:
    """The stored values [row, column], their unused high bits corrected.

    The usual uncompressed case is read without pydicom's decoder, which takes five times as long for it.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_encapsulated or not syntax.is_little_endian or dataset.BitsAllocated != 16:
        return _decoded(dataset)
    dtype = np.dtype("<i2" if dataset.PixelRepresentation else "<u2")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    stored = np.frombuffer(dataset.PixelData, dtype, count=rows * columns).reshape(rows, columns)
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
        hu = stored.astype(np.int32) + int(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    out[...] = np.clip(hu, _HU_RANGE.min, _HU_RANGE.max)
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(value), dataset) for value in (padding, padding if limit is None else limit)]
    out[(stored >= min(ends)) & (stored <= max(ends))] = PADDING_HU


def _as_stored(value: int, dataset: FileDataset) -> int:
    """The padding value with the signedness of the pixels: some writers give -2000 as unsigned 63536, or reverse."""
    span = 1 << int(dataset.BitsAllocated)
    value %= span
    return value - span if dataset.PixelRepresentation and value >= span // 2 else value
