"""How long a scan takes, stage by stage: `python benchmarks/scan.py`.

A synthetic scan of 512 x 512 x 450 voxels goes the whole way from files to files. The time of the network is set
against a floor measured in the same run: the same number of windows through the bare session, nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dicom_io.findings import Findings, Provenance
from dicom_io.results import write_results
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, write_series
from dicom_io.uids import derive_uids
from engine.backends import Session, open_session
from engine.export import export_onnx
from engine.fitness import find_thighs
from engine.labels import thigh29
from engine.measure import measure
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelCard, ModelPackage, bundled_package, load_package, write_package
from engine.preprocessing import PAPER
from engine.segment import Segmenter
from engine.synthesis import ScanRecipe, synthesise, thigh_grid

Result = TypeVar("Result")
UNTRAINED_SHAPE = UnetrShape(feature_size=16, hidden_size=192, mlp_dim=768, num_heads=6)
JOB = "00000000-0000-4000-8000-000000000001"


@dataclass
class Stages:
    """Seconds and peak resident memory of each stage."""

    rows: list[tuple[str, float, float]] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Do the work of a stage."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew, see man 5 proc
        began = time.perf_counter()
        result = work()
        self.rows.append((name, time.perf_counter() - began, peak_rss_mib()))
        return result


class TimedSession:
    """A session that keeps the time, and lets an untrained network find bone and muscle by their brightness."""

    def __init__(self, session: Session, untrained: bool) -> None:
        self.name, self.precision = session.name, session.precision
        self._session = session
        self._untrained = untrained
        self.windows = 0
        self.network_s = 0.0
        self.instead_s = 0.0

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `engine.backends.Session`."""
        began = time.perf_counter()
        logits = self._session.run(windows)
        done = time.perf_counter()
        self.windows += len(windows)
        self.network_s += done - began
        if self._untrained:
            labels = thigh29()
            image = windows[:, 0]
            logits[:] = 0.0
            logits[:, labels.structure("femur").value] = 3 * image - 1.8
            logits[:, labels.structure("vastus_lateralis").value] = image - 0.1
            self.instead_s += time.perf_counter() - done
        return logits


def peak_rss_mib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def untrained_package(folder: Path) -> ModelPackage:
    export_onnx(build_unetr(thigh29().class_count, **asdict(UNTRAINED_SHAPE)), folder / "network.onnx", PAPER.window)
    phrase = "untrained"
    card = ModelCard("untrained", "0", thigh29(), PAPER, phrase, phrase, True, asdict(UNTRAINED_SHAPE))
    return write_package(folder / "package", folder / "network.onnx", card)


def provenance(package: ModelPackage, session: Session) -> Provenance:
    return Provenance(
        job_id=JOB,
        created_at=datetime.now(UTC),
        software_version=version("vastus"),
        model_name=package.name,
        model_version=package.version,
        model_digest=package.digest,
        training_phrase=package.training_phrase,
        training_statement=package.training_statement,
        demonstration=package.demonstration,
        backend=session.name,
        precision=session.precision,
    )


def make_series(slices: int, folder: Path) -> SeriesRef:
    scan = synthesise(ScanRecipe(7, thigh_grid((slices, 512, 512), (450 / slices, 0.8, 0.8))))
    return write_series(scan.volume, folder, SyntheticStudy(seed=7))


def floor_s(session: Session, windows: int) -> float:
    window = np.random.default_rng(1).random((1, 1, *PAPER.window), dtype=np.float32)
    session.run(window)
    began = time.perf_counter()
    for _ in range(windows):
        session.run(window)
    return time.perf_counter() - began


def run(ref: SeriesRef, package: ModelPackage, given: argparse.Namespace, folder: Path) -> None:
    stages = Stages()
    bare = stages.run("open the session", lambda: open_session(given.backend, package, given.threads))
    session = TimedSession(bare, given.untrained)
    source = stages.run("open the series", lambda: open_series(ref, SeriesRules(50, 200.0)))
    volume = stages.run("read the volume", lambda: read_volume(source))
    stages.run("find thighs", lambda: find_thighs(volume))
    segmenter = Segmenter(package, session, given.overlap)
    segmentation = stages.run("segment", lambda: segmenter.segment(volume, lambda done, total: None))
    measurements = stages.run("measure", lambda: measure(volume, segmentation))
    findings = Findings(volume, segmentation, measurements)
    said = provenance(package, session)
    stages.run("write results", lambda: write_results(source, findings, said, derive_uids(JOB), folder))
    report(stages, session, floor_s(bare, session.windows))


def report(stages: Stages, session: TimedSession, floor: float) -> None:
    table = Table("stage", "seconds", "peak RSS, MiB", title=f"{session.name}, {session.precision}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds, peak_mib in stages.rows:
        table.add_row(name, f"{seconds:.2f}", f"{peak_mib:.0f}")
        if name == "segment":
            rest = seconds - session.network_s - session.instead_s
            table.add_row(f"  network, {session.windows} windows", f"{session.network_s:.2f}", "")
            table.add_row("  the rest of segment", f"{rest:.2f}", "")
    total = sum(seconds for _, seconds, _ in stages.rows[1:]) - session.instead_s
    table.add_row("whole scan, session open", f"{total:.2f}", "", style="bold")
    table.add_row(f"floor: {session.windows} bare windows", f"{floor:.2f}", "")
    table.add_row("network / floor", f"{session.network_s / floor:.2f}", "")
    table.add_row("whole scan / floor", f"{total / floor:.2f}", "")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=450)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--package", type=Path, help="folder of a model package; default: the bundled demo")
    parser.add_argument("--untrained", action="store_true", help="a network of the demo's size with random weights")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.untrained:
            package = untrained_package(folder)
        else:
            package = load_package(given.package) if given.package else bundled_package("demo")
        run(make_series(given.slices, folder / "series"), package, given, folder)


if __name__ == "__main__":
    main()
