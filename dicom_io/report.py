"""Read the figures of a report back: what a receiver finds in a TID 1500 document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import highdicom as hd
from pydicom.sr.coding import Code

from dicom_io.codes import (
    CUBIC_CENTIMETRE,
    HOUNSFIELD_UNIT,
    LATERALITY,
    MEAN,
    STANDARD_DEVIATION,
    TRUNCATED,
    YES,
    structure_codes,
)
from dicom_io.errors import NotUnderstood
from dicom_io.findings import Figure
from engine.labels import LabelSet, Side, Structure

_QUANTITY_OF: Mapping[Code | None, str] = MappingProxyType(
    {None: "volume", MEAN: "mean_hu", STANDARD_DEVIATION: "sd_hu"}
)
_UNITS = (CUBIC_CENTIMETRE, HOUNSFIELD_UNIT)


def read_figures(path: Path, label_set: LabelSet) -> tuple[Figure, ...]:
    """The figures of a report written by `dicom_io.sr`, in its order.

    Raises:
        NotUnderstood: the document is no such report, or names a structure or quantity that the label set does not.
    """
    document = hd.sr.srread(path)
    content = document.content
    if not isinstance(content, hd.sr.MeasurementReport):
        raise NotUnderstood(f"report {path.name}", "it is no measurement report of TID 1500", "Give a report of Vastus")
    structures = {structure_codes(each).concept(): each for each in label_set.structures}
    sides = {concept: side for side, concept in LATERALITY.items()}
    found: list[Figure] = []
    for group in content.get_volumetric_roi_measurement_groups():
        found.extend(_group(group, structures, sides, path))
    return tuple(found)


def _group(
    group: hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations,
    structures: Mapping[hd.sr.CodedConcept, Structure],
    sides: Mapping[Code, Side],
    path: Path,
) -> list[Figure]:
    site = group.finding_sites[0]
    structure = next((each for concept, each in structures.items() if concept == group.finding_type), None)
    place = site.laterality
    side = None if place is None else next((side for concept, side in sides.items() if concept == place), None)
    if structure is None or side not in structure.sides or (side is None and place is not None):
        reason = f"it names {group.finding_type}, {place}"
        raise NotUnderstood(f"report {path.name}", reason, "Read it with the label set that it was written with")
    truncated = any(each.name == TRUNCATED and each.value == YES for each in group.get_qualitative_evaluations())
    return [_figure(each, structure.key, side, truncated) for each in group.get_measurements()]


def _figure(measurement: hd.sr.Measurement, key: str, side: Side | None, truncated: bool) -> Figure:
    derivation = measurement.derivation
    quantity = next(name for concept, name in _QUANTITY_OF.items() if derivation == concept)
    unit = next(each.value for each in _UNITS if measurement.unit == each)
    return Figure(key, side, quantity, float(measurement.value), unit, ("truncated",) if truncated else ())
