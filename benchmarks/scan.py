"""How long a scan takes, step by step: `python benchmarks/scan.py [--slices 1600 --length 1000] [--full] [--peer]`.

A synthetic scan of 512 x 512 x 450 voxels goes the way of `vastus segment`, from files to files. The time of the
network is set against a floor measured in the same run: the same number of windows through the bare session, nothing
else. With `--peer` MONAI itself segments the same scan in the same run, with the transforms and the sliding window that
the package's own `configs/inference.json` names, on the same weights; it gets the volume as our reader read it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from config.settings import DEFAULT_MODEL, Settings
from dicom_io.series import find_series, open_series, read_volume
from dicom_io.warm import warm_up
from engine.backends import PRECISIONS, Session, SessionOptions, cores, cpu_has_bf16, open_session
from engine.bundle import INFERENCE
from engine.labels import thigh29
from engine.models import find_model
from engine.package import ModelPackage, load_package
from engine.preprocessing import normalise
from engine.segment import Segmenter
from engine.segmentation import Segmentation
from engine.volume import Volume
from engine.windows import Progress
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

    def __init__(self, session: Session, package: ModelPackage, full: bool) -> None:
        self.name, self.precision = session.name, session.precision
        self.device, self.batch = session.device, session.batch
        self._session = session
        self._full = full
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
        if self._full:
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


@dataclass
class KeepingSegmenter:
    """A segmenter that keeps the last segmentation."""

    segmenter: Segmenter
    kept: Segmentation | None = None

    def segment(self, volume: Volume, progress: Progress) -> Segmentation:
        """See `engine.segment.Segmenter`."""
        self.kept = self.segmenter.segment(volume, progress)
        return self.kept


def prepare(folder: Path, slices: int, length_mm: float, full: bool) -> None:
    """Write the scan, and the full-size package where one is wanted; in a process whose memory does not count."""
    from dicom_io.synthetic import SyntheticStudy, write_series
    from engine.synthesis import ScanRecipe, synthesise, thigh_grid

    scan = synthesise(ScanRecipe(7, thigh_grid((slices, 512, 512), (length_mm / slices, 0.8, 0.8))))
    write_series(scan.volume, folder / "series", SyntheticStudy(seed=7))
    if full:
        write_full(folder)


def write_full(folder: Path) -> None:

    from engine.bundle import ModelCard, write_package
    from engine.export import export_models
    from engine.networks import PAPER_SHAPE, build_unetr
    from engine.preprocessing import PAPER

    torch.manual_seed(1)
    export_models(build_unetr(thigh29().class_count, PAPER_SHAPE), folder / "models", PAPER.window)
    words = ("For benchmarks only", "Random weights.", "untrained", "")
    card = ModelCard("full", "0", thigh29(), PAPER, *words, network=PAPER_SHAPE)
    write_package(folder / "package", folder / "models", card)


def package_of(given: argparse.Namespace, folder: Path) -> ModelPackage:
    if given.full:
        return load_package(folder / "package")
    return load_package(given.package) if given.package else find_model(DEFAULT_MODEL)


def floor_s(session: Session, package: ModelPackage, windows: int) -> float:
    window = torch.rand((1, 1, *package.preprocessing.window), generator=torch.Generator().manual_seed(1))
    session.run(window)
    began = time.perf_counter()
    for _ in range(windows):
        session.run(window)
    return time.perf_counter() - began


def run(given: argparse.Namespace, backend: str, folder: Path) -> NDArray[np.uint8]:
    """Take the scan through one backend; returns the classes, without sides, on the scan's own grid."""
    watch = Watch()
    watch.begin(SESSION_START)
    package = package_of(given, folder)
    options = SessionOptions(given.threads or cores(), given.precision, given.batch, device=given.device)
    bare = open_session(backend, package, options)
    warm_up()
    session = TimedSession(bare, package, given.full)
    segmenter = KeepingSegmenter(Segmenter(package, session, given.overlap))
    workshop = Workshop(package, segmenter, bare.name, bare.precision, rules_of(Settings()), software_version())
    watch.begin("find the series")
    (job,) = segment_folder(folder / "series", folder / f"results-{backend}", workshop, watch.say)
    watch.end()
    if job.outcome.parked is not None or segmenter.kept is None:
        raise SystemExit(f"parked: {job.outcome.parked}")
    report(watch, session, floor_s(bare, package, session.windows))
    classes = np.zeros(1 + len(package.label_set.segments), dtype=np.uint8)
    for segment in package.label_set.segments:
        classes[segment.number] = segment.structure.value
    return classes[segmenter.kept.labels]


def peer(folder: Path, package: Path, threads: int) -> tuple[list[tuple[str, float, float]], str]:
    """MONAI on the same scan, as the package tells it to; keeps its classes as `peer.npy`."""
    from monai.bundle.config_parser import ConfigParser
    from monai.data.meta_tensor import MetaTensor
    from monai.inferers.inferer import SlidingWindowInferer

    torch.set_num_threads(threads)
    watch = Watch()
    watch.begin("read, by our reader")
    volume = read_volume(open_series(next(iter(find_series(folder / "series"))), rules_of(Settings())))
    watch.begin("load the network")
    config = json.loads((package / INFERENCE).read_text(encoding="utf-8"))
    config["preprocessing"]["transforms"] = config["preprocessing"]["transforms"][1:]  # the scan is read already
    config["postprocessing"]["transforms"] = config["postprocessing"]["transforms"][:-1]  # and need not be saved
    parser = ConfigParser({**config, "bundle_root": str(package)})
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    before, after = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("postprocessing")
    if not isinstance(inferer, SlidingWindowInferer):
        raise SystemExit(f"{package / INFERENCE} names another inferer")
    bf16 = cpu_has_bf16()
    watch.begin("transforms")
    affine = torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine)  # MONAI's axes; ours are DICOM's
    meta = {"original_channel_dim": "no_channel"}
    scan: dict[str, Any] = {"image": MetaTensor(volume.hu.astype(np.float32), affine, meta)}
    data = before(scan)
    watch.begin("sliding window")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        data["pred"] = inferer(data["image"][None], network)[0].float()
    watch.begin("classes on the scan's own grid")
    labels = after(data)["pred"][0]
    watch.end()
    np.save(folder / "peer.npy", np.asarray(labels, dtype=np.uint8))
    return watch.rows, "bf16 (autocast)" if bf16 else "fp32"


def report_peer(rows: list[tuple[str, float, float]], precision: str) -> None:
    from importlib.metadata import version

    table = Table("step", "seconds", "peak RSS, MiB", title=f"the peer: MONAI {version('monai')}, torch, {precision}")
    for name, seconds, peak_mib in rows:
        table.add_row(name, f"{seconds:.2f}", f"{peak_mib:.0f}")
    whole = sum(seconds for name, seconds, _ in rows if name != "load the network")
    table.add_row("whole, network loaded", f"{whole:.2f}", f"{max(peak for *_, peak in rows):.0f}", style="bold")
    Console().print(table)


def report_overlap(name: str, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    """Dice of the classes that either found, and the mean of them."""
    found: list[tuple[float, str]] = []
    for each in thigh29().structures:
        mine, other = ours == each.value, theirs == each.value
        whole = int(mine.sum()) + int(other.sum())
        if whole:
            found.append((2 * int((mine & other).sum()) / whole, each.display))
    values = [dice for dice, _ in found]
    worst = ", ".join(f"{words} {dice:.3f}" for dice, words in sorted(found)[:3])
    print(f"Dice of {name} with the peer: mean {np.mean(values):.4f} of {len(values)} classes; lowest: {worst}")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=450)
    parser.add_argument("--length", type=float, default=450.0, help="of the scan, mm")
    parser.add_argument("--backends", nargs="+", default=["auto"], help="one after the other")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--package", type=Path, help="folder of a model package; default: the product's own")
    parser.add_argument("--full", action="store_true", help="the paper's network with random weights")
    parser.add_argument("--peer", action="store_true", help="MONAI on the same scan, too")
    given = parser.parse_args()
    spawned = get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, mp_context=spawned) as child:
            child.submit(prepare, folder, given.slices, given.length, given.full).result()
        ours = {backend: run(given, backend, folder) for backend in given.backends}
        if not given.peer:
            return
        with ProcessPoolExecutor(1, mp_context=spawned) as child:  # so that our memory is not the peer's
            package = package_of(given, folder).folder
            report_peer(*child.submit(peer, folder, package, given.threads or cores()).result())
        if not given.full:  # a network with random weights is sure of nothing
            theirs = np.load(folder / "peer.npy")
            for backend, classes in ours.items():
                report_overlap(backend, classes, theirs)


if __name__ == "__main__":
    main()
