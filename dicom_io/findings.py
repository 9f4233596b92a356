"""What the result objects are made from, and the figures that they state.

One rule rounds every figure, so that the report, the picture and the database say the same: three decimals, which is
1 mm3 for a volume and finer than any attenuation is known. It always fits the 16 characters of a decimal string
(PS3.5 6.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from dicom_io.codes import CUBIC_CENTIMETRE, HOUNSFIELD_UNIT
from dicom_io.errors import DicomIoError
from dicom_io.kinds import RESULT_KINDS, ResultKind
from dicom_io.series import SourceSeries
from dicom_io.uids import ResultUids, result_uid
from engine.flags import RaisedFlag
from engine.labels import Segment, Side, side_word
from engine.measure import Measurements, SegmentMeasurement
from engine.plugins import ROLES, WRITERS, Credit
from engine.segmentation import Segmentation
from engine.volume import Volume

FIGURE_DECIMALS = 3


@dataclass(frozen=True)
class Provenance:
    """Who made a result, when and with what.

    Attributes:
        job_id: the job; tracking UIDs derive from it.
        created_at: aware; every date and time in the results is this one, in the source's own Timezone Offset From
            UTC (0008,0201) where it has one, otherwise in the zone that `created_at` carries.
        software_version: version of Vastus.
        model_name: name of the model package, as `compact`.
        model_version: its version.
        model_digest: SHA-256 of its network, hexadecimal.
        intended_use: what the results are for, and what not, as `For research, not for diagnosis`.
        training_phrase: a few words for series descriptions, as `trained on synthetic CT`.
        training_statement: what the model was trained on, in a sentence or two.
        attribution: whose work the training data stand on; empty where there is none.
        backend: what ran the network, as `openvino`.
        precision: in which precision, as `float32`.
        parts: the plug-ins that took part, ours and others'; the results name those that did not come with Vastus.

    Raises:
        DicomIoError: `created_at` has no time zone.
    """

    job_id: str
    created_at: datetime
    software_version: str
    model_name: str
    model_version: str
    model_digest: str
    intended_use: str
    training_phrase: str
    training_statement: str
    attribution: str
    backend: str
    precision: str
    parts: tuple[Credit, ...] = ()

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            raise DicomIoError("provenance", f"the time {self.created_at} has no zone", "Give an aware time")

    @property
    def words(self) -> str:
        """What must go with every result: intended use, training and attribution, in full sentences."""
        return " ".join(part for part in (f"{self.intended_use}.", self.training_statement, self.attribution) if part)

    @property
    def strangers(self) -> tuple[Credit, ...]:
        """The parts that did not come with Vastus."""
        return tuple(part for part in self.parts if not part.ours)


@dataclass(frozen=True, eq=False)
class Findings:
    """What the engine found: the first three on the same grid.

    Attributes:
        volume: the scan.
        segmentation: its labels.
        measurements: what was measured with them.
        flags: what makes the scan less fit for measurement.
    """

    volume: Volume
    segmentation: Segmentation
    measurements: Measurements
    flags: tuple[RaisedFlag, ...] = ()


@dataclass(frozen=True, eq=False)
class ResultRequest:
    """Everything that a writer needs to write its object.

    Attributes:
        source: the series.
        findings: what was found in it.
        provenance: who made the results.
        uids: the UIDs that the job fixed before its work started.
        kinds: every kind of result that this job makes, by the name of its writer: what an object may refer to.
    """

    source: SourceSeries
    findings: Findings
    provenance: Provenance
    uids: ResultUids
    kinds: Mapping[str, ResultKind] = field(default_factory=lambda: RESULT_KINDS)

    def series_uid(self, kind: str) -> str:
        """Series Instance UID of a kind of result of this job."""
        return self._uid(kind, "series")

    def instance_uid(self, kind: str) -> str:
        """SOP Instance UID of a kind of result of this job."""
        return self._uid(kind, "instance")

    def written_by(self, name: str) -> ResultRequest:
        """The request as one writer gets it: of the writers, its provenance names this one alone."""
        told = self.provenance
        parts = tuple(part for part in told.parts if part.role != ROLES[WRITERS] or part.name == name)
        return replace(self, provenance=replace(told, parts=parts))

    def _uid(self, kind: str, level: str) -> str:
        fixed = self.uids.to_dict().get(f"{kind}_{level}")
        return fixed or result_uid(self.provenance.job_id, kind, level)


@dataclass(frozen=True)
class Figure:
    """One figure, exactly as the report states it.

    Attributes:
        structure: key of the structure.
        side: the patient's side; None for a structure that has none.
        quantity: `volume`, `mean_hu` or `sd_hu`.
        value: rounded to `FIGURE_DECIMALS`.
        unit: UCUM.
        flags: words that limit the figure, as `truncated`.
    """

    structure: str
    side: Side | None
    quantity: str
    value: float
    unit: str
    flags: tuple[str, ...]


def figures(measurements: Measurements) -> tuple[Figure, ...]:
    """The figures of every structure that was found, in the order of the segment numbers."""
    return tuple(figure for row in measurements.segments for figure in segment_figures(row))


def segment_figures(row: SegmentMeasurement) -> tuple[Figure, ...]:
    """The figures of one segment: none where it was not found, for a missing structure has no volume of zero."""
    if row.voxels == 0:
        return ()
    values = (
        ("volume", row.volume_ml, CUBIC_CENTIMETRE.value),
        ("mean_hu", row.mean_hu, HOUNSFIELD_UNIT.value),
        ("sd_hu", row.sd_hu, HOUNSFIELD_UNIT.value),
    )
    flags = ("truncated",) if row.truncated else ()
    return tuple(
        Figure(row.segment.structure.key, row.segment.side, quantity, _rounded(value), unit, flags)
        for quantity, value, unit in values
        if value is not None
    )


def tracking_id(segment: Segment) -> str:
    """The segment's name in SEG and SR (Tracking ID, PS3.3 C.8.20.2), as `sartorius_left`."""
    return "_".join(filter(None, (segment.structure.key, side_word(segment.side))))


def _rounded(value: float) -> float:
    return round(float(value), FIGURE_DECIMALS) + 0.0  # + 0.0 turns a negative zero into zero
