"""The report: its figures, its references, and that other programs read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from dicom_io.codes import TRUNCATED, YES
from dicom_io.encoding import encoded
from dicom_io.errors import DicomIoError
from dicom_io.findings import FIGURE_DECIMALS, Figure, ResultRequest, figures, segment_figures, tracking_id
from dicom_io.sr import _document, write_sr
from dicom_io.sr_groups import fill_groups, group_of, prototypes, told_of
from dicom_io.uids import CODING_SCHEME_UID, tracking_uid
from engine.labels import Side, side_word, thigh29
from engine.measure import Measurements, SegmentMeasurement

MakeRequest = Callable[..., ResultRequest]

_NAMES = {("118565006", None): "volume", ("112031", "373098007"): "mean_hu", ("112031", "386136009"): "sd_hu"}


@pytest.fixture
def request_of_few(make_request: MakeRequest) -> ResultRequest:
    """Five structures; two of them reach no end of the scan."""
    labels = np.random.default_rng(3).choice([0, 1, 2, 40], (6, 16, 24)).astype(np.uint8)
    labels[2:4, 3:6, 3:6], labels[2:4, 8:12, 3:6] = 49, 58
    return make_request(labels=labels)


def written(request: ResultRequest) -> bytes:
    out = BytesIO()
    write_sr(request, out)
    return out.getvalue()


def groups_of(data: bytes) -> list[hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    document = hd.sr.srread(BytesIO(data))
    content = document.content
    assert isinstance(content, hd.sr.MeasurementReport)
    return list(content.get_volumetric_roi_measurement_groups())


def figures_of(group: hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations, truncated: bool) -> list[Figure]:
    structure, _, side = str(group.tracking_identifier).rpartition("_")
    return [
        Figure(
            structure,
            Side(side),
            _NAMES[item.name.value, item.derivation.value if item.derivation else None],
            item.value,
            item.unit.value,
            ("truncated",) if truncated else (),
        )
        for item in group.get_measurements()
    ]


def test_the_report_states_exactly_the_figures(request_of_few: ResultRequest) -> None:
    request = request_of_few
    stated: list[Figure] = []
    for group in groups_of(written(request)):
        (evaluation,) = group.get_qualitative_evaluations(name=TRUNCATED)
        stated += figures_of(group, evaluation.value == YES)
    assert tuple(stated) == figures(request.findings.measurements)
    assert {figure.flags for figure in stated} == {(), ("truncated",)}


def test_decimal_strings_are_the_rounded_figures(request_of_few: ResultRequest) -> None:
    request = request_of_few
    for group in groups_of(written(request)):
        for item in group.get_measurements():
            measured = item[0].MeasuredValueSequence[0]
            assert len(str(measured.NumericValue)) <= 16
            assert float(measured.NumericValue) == measured.FloatingPointValue


def test_only_what_was_found_has_a_group(make_request: MakeRequest) -> None:
    labels = np.zeros((6, 16, 24), dtype=np.uint8)
    labels[2:4, 3:6, 3:6] = 58
    groups = groups_of(written(make_request(labels=labels)))
    assert [group.tracking_identifier for group in groups] == ["ilium_left"]


def test_a_group_points_at_its_segment_and_its_site(request_of_few: ResultRequest) -> None:
    request = request_of_few
    segments = {tracking_id(segment): segment for segment in thigh29().segments}
    for group in groups_of(written(request)):
        segment = segments[str(group.tracking_identifier)]
        assert group.tracking_uid == tracking_uid("job-1", segment.number)
        reference = group.referenced_segment
        assert reference is not None
        item = reference[0].ReferencedSOPSequence[0]
        assert item.ReferencedSOPInstanceUID == request.uids.seg_instance
        assert item.ReferencedSegmentNumber == segment.number
        assert reference[1].value == request.source.headers[0].SeriesInstanceUID
        site = group.finding_sites[0]
        assert site.laterality is not None
        assert site.laterality.meaning.lower() == side_word(segment.side)


def test_evidence_is_the_segmentation_and_every_source_image(make_request: MakeRequest) -> None:
    request = make_request()
    document = hd.sr.srread(BytesIO(written(request)))
    evidence = {str(instance) for _, _, instance, _ in document.get_evidence()}
    images = {header.SOPInstanceUID for header in request.source.headers}
    assert evidence == images | {request.uids.seg_instance}


def test_it_says_who_made_it_and_from_what(make_request: MakeRequest) -> None:
    dataset = dcmread(BytesIO(written(make_request())))
    scheme = dataset.CodingSchemeIdentificationSequence[0]
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeName) == ("99VASTUS", "Vastus")
    assert scheme.CodingSchemeUID == CODING_SCHEME_UID
    last = dataset.ContentSequence[-1]
    assert last.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    assert {item.ConceptNameCodeSequence[0].CodeValue: item.TextValue for item in last.ContentSequence} == {
        "intended_use": "For research, not for diagnosis",
        "training": "Trained on synthetic CT only; no patient's images were used.",
        "attribution": "Anatomy after somebody's atlas.",
    }
    assert (dataset.CompletionFlag, dataset.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_a_model_of_nobody_else_s_data_attributes_nothing(make_request: MakeRequest) -> None:
    request = make_request()
    own = replace(request, provenance=replace(request.provenance, attribution=""))
    last = dcmread(BytesIO(written(own))).ContentSequence[-1]
    names = [item.ConceptNameCodeSequence[0].CodeValue for item in last.ContentSequence]
    assert names == ["intended_use", "training"]


def test_the_same_request_gives_the_same_bytes(request_of_few: ResultRequest) -> None:
    assert written(request_of_few) == written(request_of_few)


def test_dcmtk_reads_it(make_request: MakeRequest, output_of: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(written(make_request()))
    output = output_of("dsrdump", path)
    assert "Imaging Measurement Report" in output
    assert "sartorius_left" in output
    assert not [line for line in output.splitlines() if line[:2] in ("E:", "F:", "W:")]


def test_dciodvfy_finds_no_fault(make_request: MakeRequest, output_of: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(written(make_request()))
    output = output_of("dciodvfy", path)
    assert "Comprehensive3DSR" in output
    assert "Error" not in output


values = st.floats(-1e9, 1e9)


@given(values, values, values)
def test_figures_follow_one_rule(volume: float, mean: float, sd: float) -> None:
    row = SegmentMeasurement(thigh29().segments[0], 3, volume, mean, sd, False)
    found = segment_figures(row)
    assert [figure.value for figure in found] == [round(value, FIGURE_DECIMALS) for value in (volume, mean, sd)]
    assert [figure.unit for figure in found] == ["cm3", "[hnsf'U]", "[hnsf'U]"]
    assert all(np.copysign(1, figure.value) > 0 for figure in found if figure.value == 0)


@pytest.mark.parametrize("flag", [True, False])
def test_a_missing_structure_has_no_figures(flag: bool) -> None:
    assert segment_figures(SegmentMeasurement(thigh29().segments[0], 0, 0.0, None, None, flag)) == ()


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"], None])
def test_our_writer_says_what_highdicom_says(make_request: MakeRequest, character_set: str | list[str] | None) -> None:
    def state(header: Dataset) -> None:
        if character_set is not None:
            header.SpecificCharacterSet = character_set

    request = make_request(change=state)
    rows = [row for row in request.findings.measurements.segments if row.voxels > 0]
    untold = replace(rows[0], mean_hu=None, sd_hu=None, truncated=not rows[0].truncated)
    request = replace(request, findings=replace(request.findings, measurements=Measurements((untold, *rows[1:]))))
    ours, stock = BytesIO(), BytesIO()
    write_sr(request, ours)
    groups = [told_of(row, request) for row in request.findings.measurements.segments]
    assert 1 < len(prototypes(groups)) < len(groups)
    dcmwrite(stock, _document(request, groups, request.source.headers), enforce_file_format=True)
    assert ours.getvalue() == stock.getvalue()


def test_a_group_of_another_form_is_refused(make_request: MakeRequest) -> None:
    request = make_request()
    told = told_of(request.findings.measurements.segments[0], request)
    with pytest.raises(DicomIoError, match="marks"):
        fill_groups([told], [encoded(group_of(told, request)[0])], "ISO_IR 100")
