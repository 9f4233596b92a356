"""The report: Comprehensive 3D SR with the template TID 1500, one group of measurements (TID 1411) for each segment.

Only structures that were found have a group. A group refers to its segment of the SEG and to the source series, and
carries the segment's tracking UID. What the results are for, what the model was trained on and whose work that stands
on are told under Qualitative Evaluations at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import BinaryIO

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io.codes import (
    ARTIFICIAL_INTELLIGENCE,
    ATTENUATION,
    ATTRIBUTION,
    CT_UNSPECIFIED_REGION,
    CUBIC_CENTIMETRE,
    DEVICE,
    HOUNSFIELD_UNIT,
    INTENDED_USE,
    LATERALITY,
    MEAN,
    NO,
    PRIVATE_SCHEME,
    QUALITATIVE_EVALUATIONS,
    STANDARD_DEVIATION,
    TRAINING,
    TRUNCATED,
    VOLUME,
    YES,
    structure_codes,
)
from dicom_io.findings import Figure, ResultRequest, segment_figures, tracking_id
from dicom_io.heading import (
    MAKER,
    RESULT_KINDS,
    adopt,
    algorithm_name,
    algorithm_parameters,
    maker_attributes,
    neutral_source,
    save,
)
from dicom_io.uids import CODING_SCHEME_UID, DEVICE_UID, tracking_uid
from engine.measure import SegmentMeasurement

# Concept name, derivation and unit of each quantity of `Figure`.
_QUANTITIES: Mapping[str, tuple[Code, Code | None, Code]] = MappingProxyType(
    {
        "volume": (VOLUME, None, CUBIC_CENTIMETRE),
        "mean_hu": (ATTENUATION, MEAN, HOUNSFIELD_UNIT),
        "sd_hu": (ATTENUATION, STANDARD_DEVIATION, HOUNSFIELD_UNIT),
    }
)


def write_sr(request: ResultRequest, out: BinaryIO) -> None:
    """Write the report.

    Raises:
        DicomIoError: a structure has no code.
    """
    evidence = [neutral_source(header) for header in request.source.headers]
    scheme = CodingSchemeIdentificationItem(designator=PRIVATE_SCHEME, name=MAKER, responsible_organization=MAKER)
    scheme.CodingSchemeUID = CODING_SCHEME_UID  # highdicom writes it for registered schemes only
    result = hd.sr.Comprehensive3DSR(
        evidence=[*evidence, _segmentation_evidence(request)],
        content=_report(request),
        is_complete=True,
        coding_schemes=[scheme],
        **maker_attributes(request, "sr"),
    )
    adopt(result, request)
    save(result, out)


def _segmentation_evidence(request: ResultRequest) -> Dataset:
    evidence = Dataset()
    evidence.SOPClassUID = RESULT_KINDS["seg"].sop_class_uid
    evidence.SOPInstanceUID = request.uids.seg_instance
    evidence.StudyInstanceUID = request.source.headers[0].StudyInstanceUID
    evidence.SeriesInstanceUID = request.uids.seg_series
    return evidence


def _report(request: ResultRequest) -> hd.sr.MeasurementReport:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=DEVICE_UID, name=MAKER, manufacturer_name=MAKER, model_name=MAKER
    )
    observer = hd.sr.ObserverContext(observer_type=DEVICE, observer_identifying_attributes=device)
    found = [row for row in request.findings.measurements.segments if row.voxels > 0]
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CT_UNSPECIFIED_REGION,
        imaging_measurements=[_group(row, request) for row in found],
    )
    report[0].ContentSequence.append(_qualitative_evaluations(request))
    return report


def _group(row: SegmentMeasurement, request: ResultRequest) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    provenance, segment = request.provenance, row.segment
    structure = structure_codes(segment.structure.key).concept()
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=tracking_uid(provenance.job_id, segment.number), identifier=tracking_id(segment)
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=RESULT_KINDS["seg"].sop_class_uid,
            sop_instance_uid=request.uids.seg_instance,
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(request.source.headers[0].SeriesInstanceUID),
        ),
        finding_type=structure,
        finding_sites=[hd.sr.FindingSite(anatomic_location=structure, laterality=LATERALITY[segment.side])],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=algorithm_name(provenance),
            version=provenance.model_version,
            parameters=[f"{name}={value}" for name, value in algorithm_parameters(provenance).items()],
            manufacturer=MAKER,
            family=ARTIFICIAL_INTELLIGENCE,
        ),
        measurements=[_measurement(figure) for figure in segment_figures(row)],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=TRUNCATED, value=YES if row.truncated else NO)],
    )


def _measurement(figure: Figure) -> hd.sr.Measurement:
    name, derivation, unit = _QUANTITIES[figure.quantity]
    return hd.sr.Measurement(name=name, value=figure.value, unit=unit, derivation=derivation)


def _qualitative_evaluations(request: ResultRequest) -> hd.sr.ContainerContentItem:
    told = request.provenance
    texts = ((INTENDED_USE, told.intended_use), (TRAINING, told.training_statement), (ATTRIBUTION, told.attribution))
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    container = hd.sr.ContainerContentItem(name=QUALITATIVE_EVALUATIONS, relationship_type=contains)
    container.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.TextContentItem(name=name, value=text, relationship_type=contains) for name, text in texts if text]
    )
    return container
