"""What every result says alike of its patient, study, series and maker.

Patient and study are taken from the source as they are, wrong or odd values included: a result that corrects its
patient's attributes would be filed elsewhere. What the source does not state stays empty. What identifies the study
or the geometry must be there, or nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta, timezone
from itertools import product
from types import MappingProxyType
from typing import Any, BinaryIO

import highdicom as hd
import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from dicom_io.attributes import instances_of
from dicom_io.codes import PROCESSING_EQUIPMENT
from dicom_io.encoding import element, sequence, uid_value, write_elements
from dicom_io.encoding import references as references_to
from dicom_io.errors import DicomIoError
from dicom_io.findings import Provenance, ResultRequest
from dicom_io.guard import QUIETLY
from dicom_io.kinds import RESULT_KINDS as RESULT_KINDS
from dicom_io.kinds import ResultKind as ResultKind
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.verbatim import verbatim, verbatim_items
from engine.plugins import Credit

MAKER = "Vastus"
LONG_STRING_CHARACTERS = 64  # value representation LO, PS3.5 6.2
SHORT_TEXT_CHARACTERS = 1024  # value representation ST, PS3.5 6.2


# Type 1 in CT Image Storage (PS3.3 A.3); without one of them a result would have no study or no place.
_NEEDED_OF_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
_NEEDED_OF_SLICE = ("SOPClassUID", "SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_SOURCE_IMAGES, _REFERENCED_SERIES, _REFERENCED_INSTANCES = 0x00082112, 0x00081115, 0x0008114A
_SERIES_INSTANCE_UID = 0x0020000E
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_CORNER_TOLERANCE_MM = 0.01  # two grids of one series are the same numbers, but for rounding
# What highdicom copies from a source by itself.
_GEOMETRY = (
    *_NEEDED_OF_SERIES,
    *_NEEDED_OF_SLICE,
    "Modality",
    "PositionReferenceIndicator",
    "SliceThickness",
    *_LOSSY,
)
_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def check_request(request: ResultRequest) -> None:
    """Refuse what no result should be written for.

    Raises:
        DicomIoError: an attribute of study, series or geometry is absent or differs between the slices; the slices are
            not those of the grid; no voxel is labelled; or a text does not fit its attribute.
    """
    headers, segmentation = request.source.headers, request.findings.segmentation
    for header in headers:
        _check_header(header, headers[0])
    _check_grid(request)
    if not segmentation.labels.any():
        raise DicomIoError("segmentation", "it holds no voxel of any structure", "Check that the scan shows them")
    check_texts(request.provenance, request.kinds)


def check_texts(provenance: Provenance, kinds: Mapping[str, ResultKind]) -> None:
    """Refuse texts that would fit no result; known before the first job, for they are the model's and the plug-ins'.

    Args:
        provenance: whose texts; job and time do not matter.
        kinds: every kind of result that jobs make.

    Raises:
        DicomIoError: a text does not fit its attribute.
    """
    for kind in kinds.values():
        series_description(kind, provenance)
    for part in provenance.strangers:
        for text in (part.distribution, part.version, f"{part.role} {part.name}"):
            long_string(text)
    for text in (
        algorithm_name(provenance),
        provenance.model_version,
        provenance.model_digest,
        provenance.software_version,
        provenance.intended_use,
    ):
        long_string(text)
    content_description(provenance)
    _check_words(provenance.words)


def series_description(kind: ResultKind, provenance: Provenance) -> str:
    """Series Description (0008,103E) of a kind of result, as `Vastus segments, model compact, trained on synthetic CT`.

    Raises:
        DicomIoError: it is no LO of at most 64 characters; it is never cut, for its end is what the reader needs.
    """
    words = f"{MAKER} {kind.word}, model {provenance.model_name}, {provenance.training_phrase}"
    return long_string(words)


def content_description(provenance: Provenance) -> str:
    """Content Description (0070,0081), as `For research, not for diagnosis; trained on synthetic CT`.

    Raises:
        DicomIoError: it is no LO of at most 64 characters; it is never cut.
    """
    return long_string(f"{provenance.intended_use}; {provenance.training_phrase}")


def algorithm_name(provenance: Provenance) -> str:
    """Name of the algorithm in SEG and SR."""
    return f"{MAKER} {provenance.model_name}"


def algorithm_parameters(provenance: Provenance) -> dict[str, str]:
    """What, beside name and version, decides the algorithm's outcome; and whose part that was, if not our own."""
    return {
        "model_sha256": provenance.model_digest,
        "software_version": provenance.software_version,
        "backend": provenance.backend,
        "precision": provenance.precision,
        **{f"{part.role}_from": f"{part.distribution} {part.version}" for part in provenance.strangers},
    }


def long_string(text: str) -> str:
    """The text, if it can stand in an attribute of value representation LO under any character set.

    Raises:
        DicomIoError: it is empty, longer than 64 characters, or has characters other than printable ASCII.
    """
    if len(text) > LONG_STRING_CHARACTERS or not re.fullmatch(r"[ -\[\]-~]+", text):
        raise DicomIoError(
            f"text {text!r}",
            f"it is empty, longer than {LONG_STRING_CHARACTERS} characters or not printable ASCII",
            "Shorten the name or phrase at its origin: the model's, or the plug-in's",
        )
    return text


def neutral_source(header: Dataset) -> Dataset:
    """The geometry of a source image, and nobody's patient attributes.

    highdicom checks the patient attributes of its sources, fails on odd ones and logs names; so it gets none, and
    `adopt` copies them afterwards as they are.
    """
    source = Dataset()
    for keyword in _GEOMETRY:
        if header.get(keyword) not in (None, ""):
            source.add(copy(header[keyword]))  # the element itself would let a change reach the header
    for keyword in _EMPTY:
        setattr(source, keyword, "")
    if "SliceThickness" not in source:
        source.SliceThickness = "1"  # highdicom insists on one; the SEG states its own measures
    return source


def maker_attributes(request: ResultRequest, kind: str) -> dict[str, Any]:
    """The arguments of highdicom's constructors that are the same for every result; `kind` is its writer's name."""
    moment = _moment(request)
    return {
        "series_instance_uid": request.series_uid(kind),
        "sop_instance_uid": request.instance_uid(kind),
        "series_number": request.kinds[kind].series_number,
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        # Enhanced General Equipment (PS3.3 C.7.5.2) demands one. What makes these results is the network: its SHA-256
        # is the same wherever it runs, another for every other network, and fits the 64 characters of an LO.
        "device_serial_number": request.provenance.model_digest,
        "software_versions": request.provenance.software_version,
        "series_description": series_description(request.kinds[kind], request.provenance),
        "series_date": moment.date(),
        "series_time": moment.time(),
        "content_date": moment.date(),
        "content_time": moment.time(),
        "transfer_syntax_uid": ExplicitVRLittleEndian,
    }


def adopt(result: hd.SOPClass, request: ResultRequest) -> None:
    """Give a result the patient and study of its source, and remove what depends on the moment of writing.

    Patient and study are copied byte for byte with their character set (`dicom_io.verbatim`): they can be written, and
    are not to be read from the result.

    Raises:
        DicomIoError: the source's file cannot be read again.
    """
    moment = _moment(request)
    with QUIETLY:  # an odd value is copied as it is, and no warning shall quote it
        header = verbatim(request.source.headers[0])
        result.copy_patient_and_study_information(header)
        for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
            if keyword in header:
                result.add(header[keyword])
        for tag in header.keys() & result.keys():
            if result[tag].VR == "SQ" and result[tag] is header[tag]:
                result[tag] = verbatim_items(header[tag])
    result.InstanceCreationDate = DA(moment.date())
    result.InstanceCreationTime = TM(moment.time())
    # highdicom stamps its own item with the current time, which would make a second run another object.
    told = request.provenance
    parts = [_part(part, moment) for part in told.strangers]
    result.ContributingEquipmentSequence = [_equipment(told, moment), *parts]
    result.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def save(result: Dataset, out: BinaryIO, ready: Mapping[int, bytes] = MappingProxyType({})) -> None:
    """Write a dataset as a file of PS3.10.

    Args:
        result: the dataset, with its file meta information; explicit VR little endian.
        out: where to.
        ready: elements that are encoded already (`dicom_io.encoding`), by their tags; they go before those of `result`.
    """
    with QUIETLY:
        meta = Dataset()
        meta.file_meta = result.file_meta
        dcmwrite(out, meta, enforce_file_format=True)  # preamble and file meta information alone
        write_elements(out, result, ready)


def references(headers: Sequence[Dataset]) -> list[Dataset]:
    """Items that refer to every source image (SOP Instance Reference Macro, PS3.3 table 10-11), once to each."""
    items = []
    for header in instances_of(headers):
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        items.append(item)
    return items


def encoded_sources(headers: Sequence[Dataset]) -> dict[int, bytes]:
    """The two sequences of `state_sources`, as `save` takes them: some of our series have a thousand images."""
    instances = references_to(_REFERENCED_INSTANCES, headers)
    series = element(_SERIES_INSTANCE_UID, b"UI", uid_value(headers[0].SeriesInstanceUID))
    return {
        _SOURCE_IMAGES: references_to(_SOURCE_IMAGES, headers),
        _REFERENCED_SERIES: sequence(_REFERENCED_SERIES, [instances + series]),
    }


def state_sources(result: Dataset, headers: Sequence[Dataset]) -> None:
    """Refer to every source image, and say so if any of them was compressed with loss.

    Source Image Sequence (General Reference, PS3.3 C.12.4), Referenced Series Sequence (Common Instance Reference,
    C.12.2); a loss stays with everything that is derived (C.7.6.1.1.5).
    """
    result.SourceImageSequence = references(headers)
    series = Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = references(headers)
    result.ReferencedSeriesSequence = [series]
    state_loss(result, headers)


def state_loss(result: Dataset, headers: Sequence[Dataset]) -> None:
    """Say so if any source image was compressed with loss; `state_sources` does."""
    lossy = next((header for header in headers if header.get("LossyImageCompression") == "01"), Dataset())
    for keyword in _LOSSY:
        if keyword in lossy:
            result.add(copy(lossy[keyword]))


def _equipment(provenance: Provenance, moment: datetime) -> hd.ContributingEquipment:
    """What made the result, what that was trained on and what the result is for (PS3.3 C.12.1): in every kind alike."""
    return hd.ContributingEquipment(
        MAKER,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=algorithm_name(provenance),
        software_versions=[provenance.software_version, provenance.model_version],
        device_serial_number=provenance.model_digest,
        contribution_datetime=moment,
        contribution_description=provenance.words,
    )


def _part(part: Credit, moment: datetime) -> hd.ContributingEquipment:
    """A part that another distribution brought: who that is, what it did here, and its version."""
    return hd.ContributingEquipment(
        part.distribution,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=f"{part.role} {part.name}",
        software_versions=part.version,
        contribution_datetime=moment,
        contribution_description=f"Plug-in of {MAKER}: {part}",
    )


def _check_words(words: str) -> None:
    if len(words) > SHORT_TEXT_CHARACTERS or not re.fullmatch(r"[ -~]+", words):
        raise DicomIoError(
            "training statement",
            f"with intended use and attribution it has {len(words)} characters, more than {SHORT_TEXT_CHARACTERS}, "
            "or some that are not printable ASCII, which the source's character set may not have",
            "Shorten it, or write it in ASCII",
        )


def _check_header(header: Dataset, first: Dataset) -> None:
    absent = [key for key in (*_NEEDED_OF_SERIES, *_NEEDED_OF_SLICE) if header.get(key) in (None, "")]
    if absent:
        raise DicomIoError(
            f"series {first.get('SeriesInstanceUID', 'without UID')}",
            f"an image of it has no {', '.join(absent)}",
            "Results are written only where their study and place are known; ask for a complete export",
        )
    different = [key for key in _NEEDED_OF_SERIES if header[key].value != first[key].value]
    if different:
        raise DicomIoError(
            f"series {first.SeriesInstanceUID}", f"its images differ in {', '.join(different)}", "Send one series"
        )


def _check_grid(request: ResultRequest) -> None:
    """The labels lie on the source's own grid, at all of its corners, and the images on it in their order.

    Where slices lie unevenly, the corners are those of every slice.
    """
    headers, grid = request.source.headers, request.findings.segmentation.grid
    shape = (len(headers), int(headers[0].Rows), int(headers[0].Columns))
    series = f"series {headers[0].SeriesInstanceUID}"
    if grid.shape != shape:
        raise DicomIoError(series, f"its images span {shape}, the segmentation {grid.shape}", "Segment this series")
    even = grid.uneven is None and request.source.grid.uneven is None
    slices = (0, shape[0] - 1) if even else range(shape[0])
    corners = np.array(list(product(slices, (0, shape[1] - 1), (0, shape[2] - 1))), dtype=np.float64)
    offset_mm = np.abs(grid.to_patient(corners) - request.source.grid.to_patient(corners)).max()
    if offset_mm > _CORNER_TOLERANCE_MM:
        raise DicomIoError(series, f"the segmentation lies {offset_mm:.1f} mm off the grid", "Segment this series")
    reach_mm = grid.spacing_mm[0] / 2
    if grid.uneven is not None:
        reach_mm *= float(np.diff(grid.uneven.places).min())
    for k in slices:
        expected = grid.to_patient(np.array([k, 0, 0], dtype=np.float64))
        offset_mm = np.abs(expected - np.array(headers[k].ImagePositionPatient, dtype=np.float64)).max()
        if offset_mm > reach_mm:
            raise DicomIoError(series, f"slice {k} lies {offset_mm:.1f} mm off the grid", "Sort the slices as the grid")


def _moment(request: ResultRequest) -> datetime:
    """`created_at` in the zone that the source's own dates and times are in (PS3.3 C.12.1.1.8)."""
    stated = str(request.source.headers[0].get("TimezoneOffsetFromUTC") or "").strip()
    match = re.fullmatch(r"([+-])(\d\d)(\d\d)", stated)
    if match is None:
        return request.provenance.created_at
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return request.provenance.created_at.astimezone(timezone(offset if match[1] == "+" else -offset))
