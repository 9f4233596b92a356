"""A CT series as one volume: find its files, order its slices, check its geometry, read its pixels."""

from __future__ import annotations

import filecmp
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import MediaStorageDirectoryStorage

from dicom_io.checks import HEADER_CHECKS, SeriesRules, text, too_few
from dicom_io.decode import read_slices, write_slices
from dicom_io.errors import DicomIoError, NotUnderstood, Refusal, SeriesParked
from dicom_io.frames import frames_of, is_multi_frame_ct
from dicom_io.geometry import grid_of, refusal_of, stack_of
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault
from dicom_io.header import read_header
from dicom_io.repeats import without_repeats
from engine.volume import Grid, Volume

__all__ = ["SeriesRef", "SeriesRules", "SourceSeries", "find_series", "open_series", "read_volume", "write_volume"]

_log = logging.getLogger(__name__)
_PREFIX_OFFSET, _PREFIX = 128, b"DICM"  # PS3.10 clause 7.1


@dataclass(frozen=True)
class SeriesRef:
    """A series that has arrived: its UIDs and its files, one for each instance."""

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series that is a straight stack of CT slices without gaps.

    Attributes:
        ref: what it was opened from.
        headers: the datasets without pixel data, sorted along the normal; `headers[k]` is slice k, its `filename` is
            the file. A frame of a multi-frame file has a header of its own, a `FrameHeader`. A file that repeats
            another one has no part in them.
        grid: where the voxels lie; slice 0 is the lowest along the normal (row direction x column direction).
        pixel_starts: where the headers end in their files, by file name: there the pixel data begin.
        repeats: slices that were left out because another one with the same pixels lies at the same place.
    """

    ref: SeriesRef
    headers: tuple[FileDataset, ...]
    grid: Grid
    pixel_starts: Mapping[str, int] = field(default_factory=dict)
    repeats: int = 0


def open_series(ref: SeriesRef, rules: SeriesRules) -> SourceSeries:
    """Read the headers of a series and find out whether it is a volume; pixels are not read.

    Raises:
        SeriesParked: it is none that Vastus segments. Codes, in the order in which they are looked for: `unreadable`,
            `conflicting_instances`, `missing_identifiers`, `several_patients`, `secondary_capture`, `not_ct`,
            `multi_frame`, `localizer`, `several_volumes`, `too_few_slices`, `missing_geometry`, `not_a_volume`,
            `not_hounsfield`, `duplicate_positions`, `short_coverage`, `gantry_tilt`, `irregular_spacing`,
            `missing_slices`, `slice_distance`; and `undecodable`, of slices that may be the same one twice.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    thing = f"series {ref.series_uid}"
    with QUIETLY:
        starts: dict[str, int] = {}
        headers = _flat(_distinct([_read(path, thing, starts) for path in ref.files], thing), thing)
        for check in HEADER_CHECKS:
            if refusal := check(headers, rules):
                raise refusal.parked(thing)
        found = {(text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID")) for header in headers}
        if found != {(ref.study_uid, ref.series_uid)}:
            reason = "its files belong to another series"
            raise SeriesParked("not_a_volume", thing, reason, "Send the series again")
        stack = without_repeats(stack_of(headers), starts)
        if repeats := len(headers) - len(stack.headers):
            _log.warning("%d slices of %s repeat another one at the same place and were left out", repeats, thing)
        if refusal := too_few(stack.headers, rules) or refusal_of(stack, rules):
            raise refusal.parked(thing)
        return SourceSeries(ref, tuple(stack.headers), grid_of(stack), starts, repeats)


def read_volume(source: SourceSeries, workers: int = 2) -> Volume:
    """Read and decode the pixels of an opened series as Hounsfield units; needs the memory of the volume, once.

    Args:
        source: the opened series.
        workers: threads that decode slices side by side.

    Raises:
        SeriesParked: `undecodable`; the reason names the instance.
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    return Volume(read_slices(source.headers, source.grid.shape, workers, source.pixel_starts), source.grid)


def write_volume(source: SourceSeries, file: BinaryIO, workers: int = 2) -> None:
    """Do as `read_volume`, but write the Hounsfield units to a new file of numpy; the volume is never in memory.

    Raises:
        SeriesParked: see `read_volume`.
        DicomIoError: see `read_volume`.
        OSError: the file could not be written.
    """
    write_slices(source.headers, source.grid.shape, file, workers, source.pixel_starts)


def find_series(folder: Path, damaged: Callable[[NotUnderstood], None] | None = None) -> tuple[SeriesRef, ...]:
    """Group the DICOM files below a folder by series, sorted by study and series UID, files by path.

    Files that are no DICOM (without the prefix of PS3.10), and the directory of a medium (DICOMDIR, PS3.10 clause 8),
    are left out, and a warning is logged with their number.

    Args:
        folder: is searched with all below it.
        damaged: told of each damaged file, which is then left out; None refuses them.

    Raises:
        NotUnderstood: a file claims to be DICOM, but is damaged; leaving it out would leave a hole in its series.
        DicomIoError: there is no DICOM below the folder, or a file cannot be opened.
    """
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    others = 0
    for path in _files_below(folder):
        if not _claims_dicom(path):
            others += 1
            continue
        try:
            header = read_header(path)
        except NotUnderstood as found:
            if _is_media_directory(path):
                others += 1
            elif damaged is None:
                raise
            else:
                damaged(found)
            continue
        groups[header.study_uid, header.series_uid].append(path)
    if not groups:
        raise DicomIoError(f"folder {folder}", "there is no DICOM file in it", "Give the folder of a CT series")
    if others:
        _log.warning("%d files below %s are no DICOM instances and were left out", others, folder)
    return tuple(SeriesRef(study, series, tuple(files)) for (study, series), files in sorted(groups.items()))


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))


def _claims_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_PREFIX_OFFSET + len(_PREFIX))[_PREFIX_OFFSET:] == _PREFIX
    except OSError as error:
        reason = f"it cannot be opened: {error.strerror or error}"
        raise DicomIoError(f"file {path}", reason, "Check that it may be read") from error


def _is_media_directory(path: Path) -> bool:
    try:
        with QUIETLY:
            return bool(read_file_meta_info(path).get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)
    except PARSER_ERRORS:
        return False


def _read(path: Path, thing: str, starts: dict[str, int]) -> FileDataset:
    try:
        with open(str(path), "rb") as file:  # noqa: PTH123 - the header's filename shall be text, as pydicom's own
            header = dcmread(file, stop_before_pixels=True)
            starts[str(header.filename)] = file.tell()  # of no meaning in a deflated file, where nothing is there
            return header
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, path):
            raise fault from error
        raise _unreadable(path).parked(thing) from error


def _flat(headers: Sequence[FileDataset], thing: str) -> tuple[FileDataset, ...]:
    """One header of each slice: an instance has one, or one a frame."""
    flat: list[FileDataset] = []
    for header in headers:
        try:
            frames = frames_of(header) if is_multi_frame_ct(header) else (header,)
        except PARSER_ERRORS as error:
            raise _unreadable(str(header.filename)).parked(thing) from error
        if isinstance(frames, Refusal):
            raise frames.parked(thing)
        flat += frames
    return tuple(flat)


def _unreadable(path: Path | str) -> Refusal:
    return Refusal("unreadable", f"its file {Path(path).name} cannot be read as DICOM", "Send the series again")


def _distinct(headers: list[FileDataset], thing: str) -> tuple[FileDataset, ...]:
    """One header of each instance; the same file twice is once, but two versions of one instance are a conflict."""
    kept: dict[str, FileDataset] = {}
    for header in headers:
        uid = text(header, "SOPInstanceUID")
        other = kept.setdefault(uid or str(header.filename), header)
        if other is not header and not filecmp.cmp(str(other.filename), str(header.filename), shallow=False):
            reason = f"there are two different versions of the instance {uid}"
            raise SeriesParked("conflicting_instances", thing, reason, "Send the right version alone")
    return tuple(kept.values())
