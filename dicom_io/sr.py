"""The report: Comprehensive 3D SR with the template TID 1500, one group of measurements (TID 1411) for each segment.

Only structures that were found have a group. A group refers to its segment of the SEG and to the source series, and
carries the segment's tracking UID. What the results are for, what the model was trained on and whose work that stands
on are told under Qualitative Evaluations at the end, and there, too, what makes the scan less fit for measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.charset import default_encoding
from pydicom.dataset import Dataset

from dicom_io.attributes import instances_of
from dicom_io.codes import (
    ATTRIBUTION,
    CT_UNSPECIFIED_REGION,
    DEVICE,
    INTENDED_USE,
    PRIVATE_SCHEME,
    QUALITATIVE_EVALUATIONS,
    TRAINING,
)
from dicom_io.encoding import CharacterSet, encoded, filled, reference, sequence
from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest
from dicom_io.heading import MAKER, RESULT_KINDS, adopt, maker_attributes, neutral_source, save
from dicom_io.sr_flags import flag_items
from dicom_io.sr_groups import Group, Told, fill_groups, group_of, prototypes, told_of
from dicom_io.uids import CODING_SCHEME_UID, DEVICE_UID

_CONTENT, _EVIDENCE = 0x0040A730, 0x0040A375
_IMAGING_MEASUREMENTS = "126010"  # TID 1500, the container of all groups


def write_sr(request: ResultRequest, out: BinaryIO) -> None:
    """Write the report.

    highdicom makes the document with one group of each form and one source image; the groups of all structures
    (`dicom_io.sr_groups`) and the references to all source images are made from these.

    Raises:
        DicomIoError: a structure has no code.
    """
    groups = [told_of(row, request) for row in request.findings.measurements.segments if row.voxels > 0]
    result = _document(request, prototypes(groups), request.source.headers[:1])
    character_set = result.get("SpecificCharacterSet", default_encoding)
    ready = {
        _EVIDENCE: _evidence(result.CurrentRequestedProcedureEvidenceSequence, request),
        _CONTENT: sequence(_CONTENT, [_content(each, groups, character_set) for each in result.ContentSequence]),
    }
    del result.CurrentRequestedProcedureEvidenceSequence, result.ContentSequence
    save(result, out, ready)


def _content(content: Dataset, groups: Sequence[Told], character_set: CharacterSet) -> bytes:
    """One item of the document's content; the container of the measurements gets the groups of all structures."""
    if content.ConceptNameCodeSequence[0].CodeValue != _IMAGING_MEASUREMENTS:
        return encoded(content, character_set)
    if max(content.keys()) != _CONTENT:
        raise DicomIoError("report", "its measurements have an unknown form", "Report this with the version")
    made = [encoded(each, character_set) for each in content.ContentSequence]
    del content.ContentSequence
    return encoded(content, character_set) + sequence(_CONTENT, fill_groups(groups, made, character_set))


def _evidence(studies: Sequence[Dataset], request: ResultRequest) -> bytes:
    """Current Requested Procedure Evidence Sequence: where it refers to the first source image, it refers to all."""
    instances = instances_of(request.source.headers)
    contents = [reference(str(each.SOPClassUID), str(each.SOPInstanceUID)) for each in instances]
    marks = {contents[0]: contents}
    return sequence(_EVIDENCE, [filled(encoded(study), marks, Counter(contents[:1])) for study in studies])


def _document(request: ResultRequest, groups: Sequence[Told], headers: Sequence[Dataset]) -> hd.sr.Comprehensive3DSR:
    """highdicom's document of these groups, with these source images as evidence."""
    scheme = CodingSchemeIdentificationItem(designator=PRIVATE_SCHEME, name=MAKER, responsible_organization=MAKER)
    scheme.CodingSchemeUID = CODING_SCHEME_UID  # highdicom writes it for registered schemes only
    result = hd.sr.Comprehensive3DSR(
        evidence=[*map(neutral_source, headers), _segmentation_evidence(request)],
        content=_report(request, [group_of(told, request) for told in groups]),
        is_complete=True,
        coding_schemes=[scheme],
        **maker_attributes(request, "sr"),
    )
    adopt(result, request)
    return result


def _segmentation_evidence(request: ResultRequest) -> Dataset:
    evidence = Dataset()
    evidence.SOPClassUID = RESULT_KINDS["seg"].sop_class_uid
    evidence.SOPInstanceUID = request.uids.seg_instance
    evidence.StudyInstanceUID = request.source.headers[0].StudyInstanceUID
    evidence.SeriesInstanceUID = request.uids.seg_series
    return evidence


def _report(request: ResultRequest, groups: Sequence[Group]) -> hd.sr.MeasurementReport:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=MAKER, manufacturer_name=MAKER, model_name=MAKER
    )
    observer = hd.sr.ObserverContext(observer_type=DEVICE, observer_identifying_attributes=device)
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CT_UNSPECIFIED_REGION,
        imaging_measurements=groups,
    )
    report[0].ContentSequence.append(_qualitative_evaluations(request))
    return report


def _qualitative_evaluations(request: ResultRequest) -> hd.sr.ContainerContentItem:
    told = request.provenance
    texts = ((INTENDED_USE, told.intended_use), (TRAINING, told.training_statement), (ATTRIBUTION, told.attribution))
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    container = hd.sr.ContainerContentItem(name=QUALITATIVE_EVALUATIONS, relationship_type=contains)
    items = [hd.sr.TextContentItem(name=name, value=text, relationship_type=contains) for name, text in texts if text]
    container.ContentSequence = hd.sr.ContentSequence([*items, *flag_items(request.findings.flags)])
    return container
