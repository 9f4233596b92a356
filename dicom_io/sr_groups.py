"""The report's groups of measurements (TID 1411), one for each structure that was found.

highdicom makes some seventy objects for a group, so it makes one group for each form that occurs, with marks for what
differs; the groups of the structures are these with their values (`dicom_io.encoding.filled`). Two groups are of one
form if they have the same quantities, and both a side or neither, and are both truncated or neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import highdicom as hd
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from dicom_io.codes import (
    ARTIFICIAL_INTELLIGENCE,
    ATTENUATION,
    CUBIC_CENTIMETRE,
    HOUNSFIELD_UNIT,
    MEAN,
    NO,
    STANDARD_DEVIATION,
    TRUNCATED,
    VOLUME,
    YES,
    laterality,
    structure_codes,
)
from dicom_io.encoding import CharacterSet, encoded, encoded_value, filled
from dicom_io.findings import ResultRequest, segment_figures, tracking_id
from dicom_io.heading import MAKER, RESULT_KINDS, algorithm_name, algorithm_parameters
from dicom_io.uids import tracking_uid
from engine.measure import SegmentMeasurement

Group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations

# Concept name, derivation and unit of each quantity of `Figure`.
_QUANTITIES: Mapping[str, tuple[Code, Code | None, Code]] = MappingProxyType(
    {
        "volume": (VOLUME, None, CUBIC_CENTIMETRE),
        "mean_hu": (ATTENUATION, MEAN, HOUNSFIELD_UNIT),
        "sd_hu": (ATTENUATION, STANDARD_DEVIATION, HOUNSFIELD_UNIT),
    }
)
# Marks that no value can be: no figure is so large, no scheme of codes has such a name.
_UID_MARK, _NAME_MARK, _NUMBER_MARK, _FIGURE_MARK = "2.25.1.2.3.4.5", "vastus mark", 0xBEEF, 98765432.125
_STRUCTURE_MARK, _SIDE_MARK = Code("structure", "99MARK", "structure mark"), Code("side", "99MARK", "side mark")
_STRUCTURE_PLACES = 2  # the finding, and its site


@dataclass(frozen=True, eq=False)
class Told:
    """What a group tells.

    Attributes:
        tracking_uid: joins it with the segment.
        tracking_id: name of the segment.
        number: Segment Number.
        structure: what it is about.
        side: of the patient; None for a structure that has none.
        figures: quantity and value.
        truncated: whether the scan cuts it.
    """

    tracking_uid: str
    tracking_id: str
    number: int
    structure: hd.sr.CodedConcept
    side: Code | None
    figures: tuple[tuple[str, float], ...]
    truncated: bool

    @property
    def form(self) -> tuple[object, ...]:
        """What its marks cannot stand for."""
        return tuple(quantity for quantity, _ in self.figures), self.side is None, self.truncated

    def marked(self) -> Told:
        """A group of the same form, with marks."""
        figures = tuple((quantity, _FIGURE_MARK + place) for place, (quantity, _) in enumerate(self.figures))
        structure, side = hd.sr.CodedConcept.from_code(_STRUCTURE_MARK), None if self.side is None else _SIDE_MARK
        return Told(_UID_MARK, _NAME_MARK, _NUMBER_MARK, structure, side, figures, self.truncated)

    def values(self, character_set: CharacterSet) -> list[bytes]:
        """Everything that marks stand for, encoded, always in the same order."""
        structure = encoded(self.structure, character_set)
        side = [] if self.side is None else [encoded(hd.sr.CodedConcept.from_code(self.side), character_set)]
        name = encoded_value("TextValue", self.tracking_id, character_set)
        number = encoded_value("ReferencedSegmentNumber", self.number)
        figures = [
            value
            for _, figure in self.figures
            for value in (
                encoded_value("NumericValue", DSfloat(figure, auto_format=True)),
                encoded_value("FloatingPointValue", figure),
            )
        ]
        return [structure, encoded_value("UID", self.tracking_uid), name, number, *side, *figures]


def told_of(row: SegmentMeasurement, request: ResultRequest) -> Told:
    """What the group of a segment tells.

    Raises:
        DicomIoError: its structure has no code.
    """
    segment = row.segment
    return Told(
        tracking_uid(request.provenance.job_id, segment.number),
        tracking_id(segment),
        segment.number,
        structure_codes(segment.structure).concept(),
        laterality(segment.side),
        tuple((figure.quantity, figure.value) for figure in segment_figures(row)),
        row.truncated,
    )


def prototypes(groups: Sequence[Told]) -> tuple[Told, ...]:
    """One group with marks for each form, in the order in which the forms occur."""
    return tuple(told.marked() for told in {told.form: told for told in groups}.values())


def fill_groups(groups: Sequence[Told], made: Sequence[bytes], character_set: CharacterSet) -> list[bytes]:
    """The content of every group's item.

    Args:
        groups: what they tell.
        made: the encoded groups that highdicom made of `prototypes(groups)`.
        character_set: of the document.

    Raises:
        DicomIoError: the prototypes are not of the form that this module was made for.
    """
    of_form = {told.form: group for told, group in zip(prototypes(groups), made, strict=True)}
    return [_filled(told, of_form[told.form], character_set) for told in groups]


def _filled(told: Told, prototype: bytes, character_set: CharacterSet) -> bytes:
    marks = told.marked().values(character_set)
    values = {mark: (value,) for mark, value in zip(marks, told.values(character_set), strict=True)}
    return filled(prototype, values, Counter(marks) + Counter(marks[:1] * (_STRUCTURE_PLACES - 1)))


def group_of(told: Told, request: ResultRequest) -> Group:
    """highdicom's group."""
    provenance = request.provenance
    return Group(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=told.tracking_uid, identifier=told.tracking_id),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=RESULT_KINDS["seg"].sop_class_uid,
            sop_instance_uid=request.uids.seg_instance,
            segment_number=told.number,
            source_series=hd.sr.SourceSeriesForSegmentation(request.source.headers[0].SeriesInstanceUID),
        ),
        finding_type=told.structure,
        finding_sites=[hd.sr.FindingSite(anatomic_location=told.structure, laterality=told.side)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=algorithm_name(provenance),
            version=provenance.model_version,
            parameters=[f"{name}={value}" for name, value in algorithm_parameters(provenance).items()],
            manufacturer=MAKER,
            family=ARTIFICIAL_INTELLIGENCE,
        ),
        measurements=[_measurement(quantity, value) for quantity, value in told.figures],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=TRUNCATED, value=YES if told.truncated else NO)],
    )


def _measurement(quantity: str, value: float) -> hd.sr.Measurement:
    name, derivation, unit = _QUANTITIES[quantity]
    return hd.sr.Measurement(name=name, value=value, unit=unit, derivation=derivation)
