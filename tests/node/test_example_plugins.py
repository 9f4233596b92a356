"""The example, installed as a distribution of its own: found, used and named by the node; and what is refused."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from job_bench import wait_until
from peers.ports import free_port
from plugins.environments import Environment, clean_environ, distribution_in, example_in, make_environment
from pydicom import dcmread
from service_bench import Node, Pacs, pacs_on
from sqlalchemy import select
from stub_workshop import phantom_series

from db.models import Delivery, Job, Result
from db.session import open_database, transaction
from dicom_io.uids import result_uid

SECTIONS = """
[engine]
backend = "example-threshold"
model = "example-tissues"
[results]
writers = ["example-note", "sr", "seg", "sc"]
"""
KINDS = ["example-note", "seg", "sr", "sc"]
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
OURS = [f"writer {name} of vastus 0.1.0" for name in ("sr", "seg", "sc")]
THEIRS = [
    "backend example-threshold of vastus-example 1.2.0",
    "model example-tissues of vastus-example 1.2.0",
    "writer example-note of vastus-example 1.2.0",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("example")
    environment = make_environment(folder / "environment")
    environment.install(example_in(folder))
    return environment


def node_in(folder: Path, pacs_port: int) -> Node:
    """A node whose settings name the parts of the example."""
    node = Node(folder, pacs_port)
    with node.settings_path.open("a") as file:
        file.write(SECTIONS)
    return node


def start(node: Node, environment: Environment) -> None:
    """`vastus serve` in the environment."""
    command = [str(environment.python), "-m", "node.cli.main", "serve", "--settings", str(node.settings_path)]
    with node.log_path.open("ab") as log:
        node.process = subprocess.Popen(
            command, cwd=node.folder, stdout=log, stderr=log, env=clean_environ(), start_new_session=True
        )


def test_doctor_shows_every_part_and_who_brings_it(environment: Environment, tmp_path: Path) -> None:
    node = node_in(tmp_path, free_port())
    shown = environment.vastus("doctor", "--settings", str(node.settings_path), cwd=tmp_path).stdout
    rows = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    for part in ("backend example-threshold", "model example-tissues", "writer example-note"):
        assert f"fine {part} vastus-example 1.2.0: available, chosen" in rows, shown
    assert "fine backend openvino vastus 0.1.0: available" in rows
    assert "fine writers example-note, seg, sr, sc, sent in this order" in rows


def test_segment_uses_and_names_every_part(environment: Environment, tmp_path: Path) -> None:
    node = node_in(tmp_path, free_port())
    phantom_series(tmp_path / "in")
    arguments = ("segment", "in", "--output", "out", "--settings", str(node.settings_path))
    done = environment.vastus(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "series-01"
    assert (folder / "model.txt").read_text().splitlines()[-6:] == [*THEIRS, *OURS]
    assert sorted(path.stem for path in (folder / "results").iterdir()) == sorted(KINDS)
    assert "soft_tissue,,volume," in (folder / "measurements.csv").read_text()
    note = folder / "results" / "example-note.dcm"
    assert dcmread(note).ContentSequence[1].TextValue.startswith("soft_tissue")
    verifier = shutil.which("dciodvfy")
    if verifier is not None:
        told = subprocess.run([verifier, str(note)], capture_output=True, text=True, check=False)
        assert "Error" not in told.stdout + told.stderr


def test_the_service_delivers_it_and_names_it_in_log_sql_and_results(environment: Environment, tmp_path: Path) -> None:
    with pacs_on(free_port()) as pacs:
        node = node_in(tmp_path, pacs.port)
        start(node, environment)
        try:
            wait_until(node.listens, 120.0)
            node.send(phantom_series(tmp_path / "sent"))
            wait_until(lambda: len(node.events("delivery.sent")) == len(KINDS), 240.0)
            assert node.stop() == 0
        finally:
            node.kill_all()
        (chosen,) = node.events("plugins.chosen")
        (done,) = node.events("job.done")
        assert chosen["plugins"] == done["plugins"] == [*THEIRS, *OURS]
        check_sql(node)
        check_objects(pacs, str(done["job_id"]))


def check_sql(node: Node) -> None:
    """The job's row names the parts; a kind that only the plug-in knows has its row and was delivered."""
    database = open_database(node.state_url)
    with transaction(database) as session:
        job = session.scalars(select(Job)).one()
        assert (job.status, job.backend, job.precision, job.model) == (
            "done",
            "example-threshold",
            "fp32",
            "example-tissues",
        )
        told = [f"{row['role']} {row['name']} of {row['distribution']} {row['version']}" for row in job.plugins or ()]
        assert told == [*THEIRS, *OURS]
        results = session.scalars(select(Result).order_by(Result.id)).all()
        assert [row.kind for row in results] == KINDS
        assert results[0].sop_class_uid == ENHANCED_SR
        assert results[0].series_uid == result_uid(job.id, "example-note", "series")
        assert {row.status for row in session.scalars(select(Delivery))} == {"accepted"}
    database.dispose()


def check_objects(pacs: Pacs, job_id: str) -> None:
    """What arrived: in the order of sending, and the report names the parts that made it."""
    assert [uid for _, uid, _ in pacs.arrived] == [result_uid(job_id, kind, "instance") for kind in KINDS]
    assert pacs.arrived[0][0] == ENHANCED_SR
    content = pacs.arrived[KINDS.index("sr")][2]
    report = dcmread(io.BytesIO(content), force=True)  # the data set alone, in Explicit VR Little Endian
    named = [(part.Manufacturer, part.SoftwareVersions) for part in report.ContributingEquipmentSequence[1:]]
    assert named == [("vastus-example", "1.2.0")] * 2
    texts = {str(element.value) for element in report.iterall() if element.keyword == "TextValue"}
    assert {"backend_from=vastus-example 1.2.0", "model_from=vastus-example 1.2.0"} <= texts


def test_rivals_and_strangers_are_refused_with_the_remedy(tmp_path: Path) -> None:
    environment = make_environment(tmp_path / "environment")
    rival = {"vastus.writers": {"seg": "rival:WRITER"}, "vastus.backends": {"mine": "absent:BACKEND"}}
    environment.install(distribution_in(tmp_path, "rival", rival, {"rival": "WRITER = None\n"}))
    node = Node(tmp_path, free_port())
    settings = ("--settings", str(node.settings_path))
    refused = environment.vastus("serve", *settings, cwd=tmp_path)
    assert refused.returncode == 2
    told = " ".join(refused.stderr.split())
    assert "plug-in vastus.writers:seg Reason rival 9.9 and vastus 0.1.0 both offer it Remedy Uninstall one" in told

    environment.install(distribution_in(tmp_path, "stranger", {}, {"engine": ""}))
    refused = environment.vastus("serve", *settings, cwd=tmp_path)
    assert refused.returncode == 2
    told = " ".join(refused.stderr.split())
    assert "package engine Reason the distribution stranger claims its name Remedy Uninstall stranger" in told
    assert not (tmp_path / "state" / "vastus.db").exists()
    shown = " ".join(environment.vastus("doctor", *settings, cwd=tmp_path).stdout.replace("│", " ").split())
    assert "unfit package names package engine: the distribution stranger claims its name Uninstall stranger" in shown
    assert "unfit writer seg rival 9.9 and vastus 0.1.0 both offer it Uninstall one of them" in shown
    assert "fine backend mine rival 9.9: cannot be used: " in shown
