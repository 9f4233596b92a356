"""How long a scan takes, step by step: `python benchmarks/scan.py`.

A synthetic scan of 512 x 512 x 450 voxels goes the way of `vastus segment`, from files to files. The time of the
network is set against a floor measured in the same run: the same number of windows through the bare session, nothing
else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from config.settings import DEFAULT_MODEL, Settings
from engine.backends import Session, SessionOptions, cores, open_session
from engine.labels import thigh29
from engine.package import ModelPackage, bundled_package, load_package
from engine.preprocessing import normalise
from engine.segment import Segmenter
from node.by_hand import segment_folder
from node.compose import rules_of, software_version
from node.stages import Workshop

SESSION_START = "session start"
MUSCLE_HU, BONE_HU = 13.0, 146.0  # above these an untrained network sees muscle and bone


@dataclass
class Watch:
    """Seconds and peak resident memory of each step.

    Attributes:
        rows: name, seconds and peak in MiB of the steps that are over.
    """

    rows: list[tuple[str, float, float]] = field(default_factory=list)
    _step: str = ""
    _began: float = 0.0

    def begin(self, step: str) -> None:
        """A step begins, and the one before it is over."""
        self.end()
        self._step = step
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew, see man 5 proc
        self._began = time.perf_counter()

    def end(self) -> None:
        """The last step is over."""
        if self._step:
            self.rows.append((self._step, time.perf_counter() - self._began, peak_rss_mib()))
        self._step = ""

    def say(self, step: str, done: int, of: int) -> None:
        """See `node.by_hand.Say`: a step begins, or windows are done."""
        if of == 0:
            self.begin(step)


class TimedSession:
    """A session that keeps the time, and lets an untrained network find bone and muscle by their brightness."""

    def __init__(self, session: Session, package: ModelPackage, untrained: bool) -> None:
        self.name, self.precision = session.name, session.precision
        self.device, self.batch = session.device, session.batch
        self._session = session
        self._untrained = untrained
        muscle, bone = normalise(torch.tensor([MUSCLE_HU, BONE_HU]), package.preprocessing).tolist()
        self._muscle, self._bone = muscle, bone
        self.windows = 0
        self.network_s = 0.0
        self.instead_s = 0.0

    def run(self, windows: torch.Tensor) -> torch.Tensor:
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
            logits[:, labels.structure("femur").value] = image - self._muscle + 2 * (image - self._bone)
            logits[:, labels.structure("vastus_lateralis").value] = image - self._muscle
            self.instead_s += time.perf_counter() - done
        return logits


def peak_rss_mib() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def prepare(folder: Path, slices: int, untrained: bool) -> None:
    """Write the scan, and the untrained package where one is wanted; in a process whose memory does not count."""
    from dicom_io.synthetic import SyntheticStudy, write_series
    from engine.synthesis import ScanRecipe, synthesise, thigh_grid

    scan = synthesise(ScanRecipe(7, thigh_grid((slices, 512, 512), (450 / slices, 0.8, 0.8))))
    write_series(scan.volume, folder / "series", SyntheticStudy(seed=7))
    if untrained:
        write_untrained(folder)


def write_untrained(folder: Path) -> None:
    from dataclasses import asdict

    from engine.bundle import ModelCard, write_package
    from engine.export import export_models
    from engine.networks import UnetrShape, build_unetr

    package = bundled_package(DEFAULT_MODEL)
    shape = UnetrShape(**package.network)
    export_models(build_unetr(thigh29().class_count, **asdict(shape)), folder / "models", package.preprocessing.window)
    words = ("For benchmarks only", "Random weights.", "untrained", "")
    write_package(
        folder / "package",
        folder / "models",
        ModelCard("untrained", "0", thigh29(), package.preprocessing, *words, network=shape),
    )


def package_of(given: argparse.Namespace, folder: Path) -> ModelPackage:
    if given.untrained:
        return load_package(folder / "package")
    return load_package(given.package) if given.package else bundled_package(DEFAULT_MODEL)


def floor_s(session: Session, package: ModelPackage, windows: int) -> float:
    window = torch.rand((1, 1, *package.preprocessing.window), generator=torch.Generator().manual_seed(1))
    session.run(window)
    began = time.perf_counter()
    for _ in range(windows):
        session.run(window)
    return time.perf_counter() - began


def run(given: argparse.Namespace, folder: Path) -> None:
    watch = Watch()
    watch.begin(SESSION_START)
    package = package_of(given, folder)
    bare = open_session(given.backend, package, SessionOptions(given.threads or cores()))
    session = TimedSession(bare, package, given.untrained)
    segmenter = Segmenter(package, session, given.overlap)
    workshop = Workshop(package, segmenter, bare.name, bare.precision, rules_of(Settings()), software_version())
    watch.begin("find the series")
    (job,) = segment_folder(folder / "series", folder / "results", workshop, watch.say)
    watch.end()
    if job.outcome.parked is not None:
        raise SystemExit(f"parked: {job.outcome.parked.reason}")
    report(watch, session, floor_s(bare, package, session.windows))


def report(watch: Watch, session: TimedSession, floor: float) -> None:
    table = Table("step", "seconds", "peak RSS, MiB", title=f"{session.name}, {session.precision}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, seconds, peak_mib in watch.rows:
        table.add_row(name, f"{seconds:.2f}", f"{peak_mib:.0f}")
        if name == "segment":
            rest = seconds - session.network_s - session.instead_s
            table.add_row(f"  network, {session.windows} windows", f"{session.network_s:.2f}", "")
            table.add_row("  the rest of segment", f"{rest:.2f}", "")
    whole = sum(seconds for _, seconds, _ in watch.rows) - session.instead_s
    scan = whole - sum(seconds for name, seconds, _ in watch.rows if name == SESSION_START)
    peak_mib = max(peak for _, _, peak in watch.rows)
    table.add_row("whole scan, session open", f"{scan:.2f}", "", style="bold")
    table.add_row("whole scan, session start included", f"{whole:.2f}", f"{peak_mib:.0f}", style="bold")
    table.add_row(f"floor: {session.windows} bare windows", f"{floor:.2f}", "")
    table.add_row("network / floor", f"{session.network_s / floor:.2f}", "")
    table.add_row("whole scan / floor", f"{scan / floor:.2f}", "")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=450)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--package", type=Path, help="folder of a model package; default: the product's own")
    parser.add_argument("--untrained", action="store_true", help="a network of its size with random weights")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            child.submit(prepare, folder, given.slices, given.untrained).result()
        run(given, folder)


if __name__ == "__main__":
    main()
