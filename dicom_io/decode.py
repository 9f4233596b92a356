"""Pixels of CT slices as Hounsfield units."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from dicom_io.attributes import number
from dicom_io.guard import QUIETLY
from dicom_io.pixels import Fetch, Starts, blaming, fetches

PADDING_HU = -1024  # air, and less than any tissue: what a scanner's own unsigned 12 bit images hold outside
_HU_RANGE = np.iinfo(np.int16)
_AHEAD = 4  # slices a thread: compressed frames wait in memory


def read_slices(
    headers: Sequence[FileDataset], shape: tuple[int, int, int], workers: int, starts: Starts = MappingProxyType({})
) -> NDArray[np.int16]:
    """Decode the images or frames of the headers in their order.

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
        SeriesParked: `undecodable`; the reason names the SOP Instance UID, and the frame.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    hu = np.empty(shape, dtype=np.int16)

    def read(index: int, fetch: Fetch) -> None:
        _read_slice(headers[index], fetch, hu[index])

    _for_each_slice(headers, starts, read, workers)
    return hu


def write_slices(
    headers: Sequence[FileDataset], shape: tuple[int, int, int], file: BinaryIO, workers: int, starts: Starts
) -> None:
    """Decode as `read_slices` does into a file of numpy (`.npy`), holding no more than a slice a thread.

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

    def write(index: int, fetch: Fetch) -> None:
        hu = np.empty(shape[1:], dtype="<i2")
        _read_slice(headers[index], fetch, hu)
        left, place = hu.reshape(-1).view(np.uint8).data, begin + index * hu.nbytes
        while left:
            written = os.pwrite(file.fileno(), left, place)
            left, place = left[written:], place + written

    _for_each_slice(headers, starts, write, workers)


def _for_each_slice(
    headers: Sequence[FileDataset], starts: Starts, work: Callable[[int, Fetch], None], workers: int
) -> None:
    pending: deque[Future[None]] = deque()
    with QUIETLY, ExitStack() as stack, ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for index, fetch in fetches(headers, starts, stack):
                pending.append(pool.submit(work, index, fetch))
                if len(pending) > _AHEAD * workers:
                    pending.popleft().result()
            for task in pending:
                task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after the first error the rest need not be read


def _read_slice(header: FileDataset, fetch: Fetch, out: NDArray[np.int16]) -> None:
    with blaming(header):
        dataset, stored = fetch(out)
        if stored.shape != out.shape:
            raise ValueError(f"decoded to {stored.shape}, expected {out.shape}")
        _write_hounsfield(dataset, stored, out)


def _write_hounsfield(dataset: Dataset, stored: NDArray[np.integer], out: NDArray[np.int16]) -> None:
    """Stored values as Hounsfield units; they may lie where the result shall be."""
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    padding = _padding_of(dataset, stored)
    if slope == 1 and intercept.is_integer():
        _write_sum(stored, int(intercept), out)
    else:
        out[...] = np.clip(np.rint(stored * slope + intercept), _HU_RANGE.min, _HU_RANGE.max)
    if padding is not None:
        out[padding] = PADDING_HU


def _padding_of(dataset: Dataset, stored: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    padding = dataset.get("PixelPaddingValue")
    if padding is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(value), dataset) for value in (padding, padding if limit is None else limit)]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _write_sum(stored: NDArray[np.integer], intercept: int, out: NDArray[np.int16]) -> None:
    """Stored values and intercept; 16 bit values whose sums fit 16 bits are added without widening them."""
    low, high = int(stored.min()) + intercept, int(stored.max()) + intercept
    fits = _HU_RANGE.min <= low and high <= _HU_RANGE.max and _HU_RANGE.min <= intercept <= _HU_RANGE.max
    if fits and stored.dtype in (np.dtype("<i2"), np.dtype("<u2")):
        np.add(stored.view(np.int16), np.int16(intercept), out=out)  # wraps around, and back into its range
    else:
        out[...] = np.clip(stored.astype(np.int32) + intercept, _HU_RANGE.min, _HU_RANGE.max)


def _as_stored(value: int, dataset: Dataset) -> int:
    """The padding value with the signedness of the pixels: some writers give -2000 as unsigned 63536, or reverse."""
    span = 1 << int(dataset.BitsAllocated)
    value %= span
    return value - span if dataset.PixelRepresentation and value >= span // 2 else value
