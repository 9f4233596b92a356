"""What must be true of a series' headers before its geometry is looked at.

Each check takes the headers and the rules and answers None or a `Refusal` that a radiographer understands. Their order
in `HEADER_CHECKS` is the order in which a person would ask: is it one patient, is it CT at all, is it a stack of
slices, is it enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import (
    CTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_io.attributes import name_of as name_of
from dicom_io.attributes import numbers as numbers
from dicom_io.attributes import text as text
from dicom_io.errors import Refusal
from dicom_io.frames import is_multi_frame_ct, refusal_of_frames
from dicom_io.verbatim import identity

# Direction cosines are stored with 6 digits or more; 0.001 displaces the far edge of a 500 mm image by half a pixel.
DIRECTION_TOLERANCE = 1e-3
# Of the pixel spacing: displaces the last of 512 pixels by a twentieth of a pixel.
SPACING_TOLERANCE = 1e-4
_SEND_AXIAL = "Send the axial CT series of the thighs"


@dataclass(frozen=True)
class SeriesRules:
    """What a series must have at least.

    Attributes:
        min_slices: fewer are not worth segmenting; two are always needed, because one has no spacing.
        min_coverage_mm: length of the body along the slices' normal.
    """

    min_slices: int
    min_coverage_mm: float


Headers = Sequence[FileDataset]
Check = Callable[[Headers, SeriesRules], Refusal | None]

_CAPTURE = ("secondary_capture", "it holds pictures of a screen or a report, not CT slices")
_MULTI_FRAME = ("multi_frame", "one of its images holds several frames and does not say where each of them lies")
# Kinds of instances that get a sentence of their own; PS3.6 Annex A
_KINDS: dict[str, tuple[str, str]] = {
    SecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameSingleBitSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage: _CAPTURE,
    MultiFrameTrueColorSecondaryCaptureImageStorage: _CAPTURE,
}
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# What tells patients apart; PS3.3 C.7.1.1
_PATIENT = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
# Attribute and number of values; PS3.3 C.7.6.2 (plane), C.7.6.3 (pixels)
_GEOMETRY = (
    ("ImagePositionPatient", 3),
    ("ImageOrientationPatient", 6),
    ("PixelSpacing", 2),
    ("Rows", 1),
    ("Columns", 1),
)
_PIXELS = (("BitsAllocated", 1), ("BitsStored", 1), ("PixelRepresentation", 1), ("SamplesPerPixel", 1))
# Attributes that one volume has once, and the words for them
_SAME_TEXT = {
    "StudyInstanceUID": "studies",
    "SeriesInstanceUID": "series",
    "FrameOfReferenceUID": "frames of reference",
    "Rows": "numbers of rows",
    "Columns": "numbers of columns",
}
# PS3.3 C.11.1.1.2: Hounsfield units, or unspecified, which scanners write for them; anything else is another quantity
_HOUNSFIELD = {"HU", "US", ""}


def _has_identifiers(headers: Headers, rules: SeriesRules) -> Refusal | None:
    for keyword in _IDENTIFIERS:
        if without := sum(not text(header, keyword) for header in headers):
            reason = f"{without} of its {len(headers)} images have no {keyword}, so results could not refer to them"
            return Refusal("missing_identifiers", reason, "Send the original images")
    return None


def _is_one_patient(headers: Headers, rules: SeriesRules) -> Refusal | None:
    """The reason names attributes only: their values identify a patient, and reasons are logged."""
    found = {keyword: {identity(header, keyword, text(header, keyword)) for header in headers} for keyword in _PATIENT}
    different = [keyword for keyword, values in found.items() if len(values) > 1]
    if not different:
        return None
    reason = f"its images may belong to different patients: they differ in {', '.join(different)}"
    return Refusal("several_patients", reason, "Find out whose images they are, and send those of one patient alone")


def _is_ct(headers: Headers, rules: SeriesRules) -> Refusal | None:
    for kind, (code, reason) in _KINDS.items():
        if any(header.get("SOPClassUID") == kind for header in headers):
            return Refusal(code, reason, _SEND_AXIAL)
    for header in headers:
        if text(header, "Modality") != "CT" or not (header.SOPClassUID == CTImageStorage or is_multi_frame_ct(header)):
            kind = getattr(header.SOPClassUID, "name", str(header.SOPClassUID))
            reason = f"it holds {text(header, 'Modality') or 'objects'} of the kind {kind!r}, not CT images"
            return Refusal("not_ct", reason, _SEND_AXIAL)
    if any((numbers(header, "NumberOfFrames", 1) or (1,))[0] > 1 for header in headers):
        return Refusal(*_MULTI_FRAME, _SEND_AXIAL)
    return None


def _is_no_localizer(headers: Headers, rules: SeriesRules) -> Refusal | None:
    count = sum("LOCALIZER" in text(header, "ImageType").upper().split("\\") for header in headers)
    if count:
        reason = f"{count} of its {len(headers)} images are localizers (overview images for planning)"
        return Refusal("localizer", reason, f"{_SEND_AXIAL}, without the localizer")
    return None


def _has_frames_of_one_volume(headers: Headers, rules: SeriesRules) -> Refusal | None:
    return refusal_of_frames(headers)


def too_few(headers: Headers, rules: SeriesRules) -> Refusal | None:
    """Whether there are fewer slices than wanted."""
    needed = max(rules.min_slices, 2)
    if len(headers) >= needed:
        return None
    reason = f"it has {len(headers)} slices, and at least {needed} are needed"
    return Refusal("too_few_slices", reason, "If slices are still to come, send the whole series again")


def _has_geometry(headers: Headers, rules: SeriesRules) -> Refusal | None:
    for keyword, count in _GEOMETRY + _PIXELS:
        without = [header for header in headers if numbers(header, keyword, count) is None]
        if without:
            return _lacks(keyword, without, headers)
    without = [header for header in headers if not text(header, "FrameOfReferenceUID")]
    return _lacks("FrameOfReferenceUID", without, headers) if without else None


def _lacks(keyword: str, without: Sequence[FileDataset], headers: Headers) -> Refusal:
    reason = (
        f"{keyword} is missing or unusable in {len(without)} of its {len(headers)} images, first in "
        f"{name_of(without[0])}; without it nobody knows where the slices lie in the patient"
    )
    return Refusal("missing_geometry", reason, "Send the original images; Vastus never guesses a geometry")


def _has_hounsfield_units(headers: Headers, rules: SeriesRules) -> Refusal | None:
    for header in headers:
        slope, intercept = numbers(header, "RescaleSlope", 1), numbers(header, "RescaleIntercept", 1)
        if slope is None or slope[0] == 0 or intercept is None:
            reason = f"{name_of(header)} does not say how its values become Hounsfield units"
            return Refusal("not_hounsfield", reason, "Send the original images")
        if text(header, "RescaleType") not in _HOUNSFIELD:
            reason = f"its values are {text(header, 'RescaleType')}, not Hounsfield units"
            return Refusal("not_hounsfield", reason, _SEND_AXIAL)
    return None


def _is_one_volume(headers: Headers, rules: SeriesRules) -> Refusal | None:
    for keyword, words in _SAME_TEXT.items():
        found = Counter(text(header, keyword) for header in headers)
        if len(found) > 1:
            return _mixed(f"its images belong to {len(found)} different {words}")
    if any(numbers(header, "SamplesPerPixel", 1) != (1.0,) for header in headers):
        return _mixed("its images are in colour")
    spacing = np.array([numbers(header, "PixelSpacing", 2) for header in headers])
    if spacing.min() <= 0:
        return _mixed("its pixel spacing is not positive")
    if np.ptp(spacing, axis=0).max() > SPACING_TOLERANCE * spacing.max():
        return _mixed("its images have different pixel spacings")
    return None


def _mixed(reason: str) -> Refusal:
    return Refusal("not_a_volume", reason, "Send the slices of one reconstruction as one series")


def _has_one_orientation(headers: Headers, rules: SeriesRules) -> Refusal | None:
    orientation = np.array([numbers(header, "ImageOrientationPatient", 6) for header in headers]).reshape(-1, 2, 3)
    row, column = orientation[:, 0], orientation[:, 1]
    lengths = np.linalg.norm(orientation, axis=2)
    skew = np.abs((row * column).sum(axis=1))
    if max(np.abs(lengths - 1).max(), skew.max()) > DIRECTION_TOLERANCE:
        return _mixed("the directions of its rows and columns are not perpendicular unit vectors")
    if np.ptp(orientation, axis=0).max() > DIRECTION_TOLERANCE:
        reason = "its images lie in different directions in the patient, as localizers and mixed reformats do"
        return Refusal("localizer", reason, _SEND_AXIAL)
    return None


HEADER_CHECKS: tuple[Check, ...] = (
    _has_identifiers,
    _is_one_patient,
    _is_ct,
    _is_no_localizer,
    _has_frames_of_one_volume,
    too_few,
    _has_geometry,
    _is_one_volume,
    _has_one_orientation,
    _has_hounsfield_units,
)
