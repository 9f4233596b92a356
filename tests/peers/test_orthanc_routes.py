"""Orthanc is the PACS: it routes a CT series to the node by itself and gets the results back."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest

from config.settings import DEFAULT_MODEL
from db.queries import list_jobs, measurements_of, results_of
from db.status import DeliveryStatus, JobStatus
from dicom_io.report import read_figures
from dicom_io.synthetic import SyntheticStudy, write_series
from engine.labels import side_word, thigh29
from engine.synthesis import ScanRecipe, synthesise, thigh_grid
from node.demonstration import NODE_AE
from peers.orthanc import NodeAddress, orthanc_server, wait_until
from peers.ports import free_port
from peers.whole_node import whole_node

MODALITIES = ("SEG", "SR", "OT")


@pytest.mark.slow
def test_orthanc_routes_a_series_and_gets_seg_report_and_picture(tmp_path: Path) -> None:
    scan = synthesise(ScanRecipe(31, thigh_grid((100, 208, 256), (6.0, 1.8, 1.8))))
    series = write_series(scan.volume, tmp_path / "scan", SyntheticStudy(seed=31))
    address = NodeAddress(NODE_AE, free_port())
    with (
        orthanc_server(tmp_path / "orthanc", address) as orthanc,
        whole_node(tmp_path / "node", address.port, orthanc.ae_title, orthanc.dicom_port) as node,
    ):
        orthanc.echo_node()
        for path in series.files:
            orthanc.upload(path)
        assert wait_until(
            lambda: bool(node.events("job.failed")) or all(orthanc.find("Series", Modality=m) for m in MODALITIES), 240
        ), node.folder.log.read_text()
        assert not node.events("job.failed")
        received = {m: orthanc.instances(Modality=m) for m in MODALITIES}
        assert {m: len(ids) for m, ids in received.items()} == dict.fromkeys(MODALITIES, 1)
        files = {m: orthanc.get_bytes(f"/instances/{ids[0]}/file") for m, ids in received.items()}
        assert wait_until(lambda: len(node.events("delivery.sent")) == len(MODALITIES), 20)
        with node.sql() as session:
            (job,) = list_jobs(session, 10)
            rows = measurements_of(session, job.job_id)
            results = results_of(session, job.job_id)
    assert job.status is JobStatus.DONE
    assert job.deliveries == {DeliveryStatus.ACCEPTED: 3}
    headers = {m: pydicom.dcmread(io.BytesIO(content)) for m, content in files.items()}
    assert {header.StudyInstanceUID for header in headers.values()} == {series.study_uid}
    assert {str(header.SOPInstanceUID) for header in headers.values()} == {row.sop_instance_uid for row in results}
    assert all(
        DEFAULT_MODEL in header.SeriesDescription and "synthetic" in header.SeriesDescription
        for header in headers.values()
    )
    report = tmp_path / "report.dcm"
    report.write_bytes(files["SR"])
    stated = {(f.structure, side_word(f.side), f.quantity): (f.value, f.unit) for f in read_figures(report, thigh29())}
    assert stated and stated == {(r.structure, r.side, r.quantity): (r.value, r.unit) for r in rows}
