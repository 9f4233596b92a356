"""What the rules of selection know of a series, read from its headers; pixels and patient are left alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io.agents import NO_AGENT
from dicom_io.attributes import numbers, text
from dicom_io.frames import MULTI_FRAME_CT
from dicom_io.guard import PARSER_ERRORS, QUIETLY, machine_fault
from dicom_io.select import SeriesFacts
from dicom_io.series import SeriesRef

LONGEST_TEXT = 64
_ONCE = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "maker": "Manufacturer",
    "frame_of_reference": "FrameOfReferenceUID",
}
_MANY = {"image_type": "ImageType", "kernels": "ConvolutionKernel", "acquisitions": "AcquisitionNumber"}
_OTHERS = ("SOPClassUID", "ContrastBolusAgent", "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = [*_ONCE.values(), *_MANY.values(), *_OTHERS, "SOPInstanceUID", *_GROUPS]


def facts_of(ref: SeriesRef) -> SeriesFacts:
    """Read the headers of a series as far as the rules need them. A file that cannot be understood tells nothing.

    Raises:
        DicomIoError: a file could not be read; that is the machine's fault, not the series'.
    """
    with QUIETLY:
        read = [header for path in ref.files if (header := _read(path)) is not None]
        told: dict[str, Any] = {name: _first(read, keyword) for name, keyword in _ONCE.items()}
        told |= {name: _values(read, keyword) for name, keyword in _MANY.items()}
        told["image_type"] = tuple(sorted({each.upper() for each in told["image_type"]}))
        agents = {text(header, "ContrastBolusAgent").strip().upper() for header in read}
        return SeriesFacts(
            series_uid=ref.series_uid,
            sop_classes=tuple(sorted({UID(uid).name for header in read if (uid := text(header, "SOPClassUID"))})),
            contrast=bool(agents - NO_AGENT) if read else None,
            **told,
            **_geometry(read),
        )


def stored(facts: SeriesFacts) -> dict[str, Any]:
    """The facts as SQL keeps them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(facts).items()}


def restored(row: Mapping[str, Any]) -> SeriesFacts:
    """The facts as SQL kept them; what an older program did not store is not told."""
    known = {field.name for field in fields(SeriesFacts)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in known
    }
    return SeriesFacts(**values)


def _read(path: Path) -> Dataset | None:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except PARSER_ERRORS as error:
        if fault := machine_fault(error, path):
            raise fault from error
        return None


def _first(headers: Iterable[Dataset], keyword: str) -> str:
    """The value of most images; of those that are as frequent, the first in the alphabet."""
    found = [value for header in headers if (value := text(header, keyword).strip()[:LONGEST_TEXT])]
    return min(set(found), key=lambda value: (-found.count(value), value), default="")


def _values(headers: Iterable[Dataset], keyword: str) -> tuple[str, ...]:
    found = {value.strip()[:LONGEST_TEXT] for header in headers for value in str(text(header, keyword)).split("\\")}
    return tuple(sorted(found - {""}))


def _geometry(headers: Sequence[Dataset]) -> dict[str, Any]:
    """Slices, orientation and places, as far as single images tell them; each place counts once."""
    slices = sum(int((numbers(header, "NumberOfFrames", 1) or (1,))[0]) for header in headers)
    told: dict[str, Any] = {"slices": slices}
    planes = [plane for header in headers for plane in _planes(header)]
    if len(planes) < 2:
        return told
    positions = np.array([position for position, _ in planes])
    normals = np.array([np.cross(axes[:3], axes[3:]) for _, axes in planes])
    lengths = np.linalg.norm(normals, axis=1)
    if not (lengths > 0).all():
        return told
    normal = np.median(normals / lengths[:, None], axis=0)
    told["oblique_deg"] = round(math.degrees(math.acos(min(1.0, abs(float(normal[2]))))), 1)
    along = np.unique(np.round(positions @ normal, 3))
    if len(along) > 1:
        told["spacing_mm"] = round(float(np.median(np.diff(along))), 3)
    told["low_mm"], told["high_mm"] = (round(float(each), 2) for each in (positions[:, 2].min(), positions[:, 2].max()))
    return told


def _planes(header: Dataset) -> Iterable[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Position and orientation of an image, or of each frame of a multi-frame one (PS3.3 C.7.6.16.2)."""
    if text(header, "SOPClassUID") not in MULTI_FRAME_CT:
        planes = [(header, header)]
    else:
        shared = _items(header, _GROUPS[0])
        planes = [
            (_plane(frame, shared, "PlanePositionSequence"), _plane(frame, shared, "PlaneOrientationSequence"))
            for frame in _items(header, _GROUPS[1])
        ]
    for place, turn in planes:
        position, axes = numbers(place, "ImagePositionPatient", 3), numbers(turn, "ImageOrientationPatient", 6)
        if position and axes:
            yield position, axes


def _plane(frame: Dataset, shared: Sequence[Dataset], group: str) -> Dataset:
    return next((item for holder in (frame, *shared) for item in _items(holder, group)), Dataset())


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    try:
        return list(dataset.get(keyword) or ())
    except PARSER_ERRORS:
        return ()
