"""How long a window takes, by backend, precision and batch: `python benchmarks/windows.py [--full] [--markdown]`.

Beside each: its share of the floor that this machine gives torch in the same run (the better of a large matrix product
and a 3-D convolution with channels last, in the same precision), and how far its logits are from torch's in float32.
The shortest of some runs is told: what is longer is another program's. The network is the shipped package's, or with
`--full` the paper's with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from config.settings import DEFAULT_MODEL
from engine.backends import Session, SessionOptions, cores, open_session, usable
from engine.backends.pytorch import network_of
from engine.bundle import ModelCard, write_package
from engine.errors import BackendError
from engine.export import export_models
from engine.gate import StoredWindows, ask, compare, stored
from engine.labels import thigh29
from engine.models import find_model
from engine.networks import PAPER_SHAPE, build_unetr
from engine.package import METADATA, ModelPackage, load_package
from engine.preprocessing import PAPER
from engine.trials import seconds_a_window

TYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MATRIX, CHANNELS, EDGE, KERNEL = 3072, 32, 96, 3
COLUMNS = ("backend", "precision", "batch", "threads", "s a window", "GFLOP/s", "share of floor", "error", "same class")

Figures = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """What was measured of one way to run the network; `words` where it could not be."""

    name: str
    precision: str
    batch: int
    threads: str
    seconds: float = 0.0
    error: float = 0.0
    same_class: float = 0.0
    words: str = ""


def shortest(work: Callable[[], object], runs: int) -> float:
    """Seconds, after one run that does not count."""
    work()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def floors(precision: str, runs: int) -> dict[str, float]:
    """GFLOP/s of the CPU in torch, by the kind of work."""
    kind = TYPES[precision]
    left, right = torch.rand(MATRIX, MATRIX).to(kind), torch.rand(MATRIX, MATRIX).to(kind)
    image = torch.rand(1, CHANNELS, EDGE, EDGE, EDGE).to(kind, memory_format=torch.channels_last_3d)
    weight = torch.rand(CHANNELS, CHANNELS, KERNEL, KERNEL, KERNEL).to(kind, memory_format=torch.channels_last_3d)
    with torch.no_grad():
        product_s = shortest(lambda: torch.mm(left, right), runs)
        convolution_s = shortest(lambda: functional.conv3d(image, weight, padding=KERNEL // 2), runs)
    return {
        "matrix product": 2 * MATRIX**3 / product_s / 1e9,
        "3-D convolution": 2 * CHANNELS**2 * KERNEL**3 * EDGE**3 / convolution_s / 1e9,
    }


def gflop_of(package: ModelPackage) -> float:
    """Work of one window, counted by torch on tensors without values; a multiplication and an addition are two."""
    network = network_of(package).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 1, *package.preprocessing.window, device="meta"))
    return float(counter.get_total_flops()) / 1e9


def full_package(folder: Path) -> ModelPackage:
    """The paper's network with random weights, written where it is not there yet."""
    if (folder / METADATA).is_file():
        return load_package(folder)
    torch.manual_seed(1)
    network = build_unetr(thigh29().class_count, PAPER_SHAPE, PAPER.window)
    words = ("For benchmarks only", "Random weights.", "untrained", "")
    card = ModelCard("full", "0", thigh29(), PAPER, *words, network=PAPER_SHAPE)
    with tempfile.TemporaryDirectory() as models:
        export_models(network, Path(models), PAPER.window)
        return write_package(folder, Path(models), card)


def windows_of(package: ModelPackage, full: bool) -> StoredWindows:
    """A window and torch's answer to it, in float32."""
    shipped = find_model(DEFAULT_MODEL).windows if full else package.windows
    if shipped is None:
        raise SystemExit(f"{package.name} has no windows")
    return ask(network_of(package), stored(shipped).images[:1])


def rows(package: ModelPackage, windows: StoredWindows, given: argparse.Namespace) -> Iterator[Row]:
    for name, backend in usable().items():
        if given.only and name not in given.only:
            continue
        for precision in backend.precisions:
            if given.precisions and precision not in given.precisions:
                continue
            for batch in given.batches:
                for pinned in (False, True) if given.pinning else (False,):
                    threads = given.threads or cores()
                    options = SessionOptions(threads, precision, batch, device=given.device, pinned=pinned)
                    yield row(name, package, options, partial(measured, windows=windows, runs=given.runs))


def row(name: str, package: ModelPackage, options: SessionOptions, measure: Callable[[Session], Figures]) -> Row:
    threads = f"{options.threads}{', pinned' if options.pinned else ''}"
    try:
        session = open_session(name, package, options)
        seconds, error, same_class = measure(session)
        return Row(name, session.precision, session.batch, threads, seconds, error, same_class)
    except BackendError as error:
        return Row(name, options.precision, options.batch, threads, words=error.reason)


def measured(session: Session, windows: StoredWindows, runs: int) -> Figures:
    """Seconds a window, error of the logits, share of the sure voxels with the same class."""
    seconds = seconds_a_window(session, torch.from_numpy(windows.images[:1]).to(session.device), runs)
    found = compare(session, windows)
    return seconds, found.error, found.same_class if found.sure > 0 else float("nan")


def cells(found: Row, gflop: float, floor: Mapping[str, float]) -> tuple[str, ...]:
    front = (found.name, found.precision, str(found.batch), found.threads)
    if found.words:
        return (*front, f"not to be had: {found.words}", "", "", "", "")
    speed = gflop / found.seconds
    share = f"{speed / floor[found.precision]:.0%}" if found.precision in floor else "-"
    return (*front, f"{found.seconds:.4f}", f"{speed:.0f}", share, f"{found.error:.1e}", f"{found.same_class:.3%}")


def tell(title: str, lines: Sequence[tuple[str, ...]], markdown: bool) -> None:
    if markdown:
        print(f"\n{title}\n")
        for line in (COLUMNS, ("---",) * len(COLUMNS), *lines):
            print(f"| {' | '.join(line)} |")
        return
    table = Table(*COLUMNS, title=title)
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def run(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        package = full_package(given.keep or Path(name) / "package") if given.full else find_model(DEFAULT_MODEL)
        gflop = gflop_of(package)
        torch.set_num_threads(given.threads or cores())
        found = {precision: floors(precision, given.runs) for precision in ("fp32", "bf16")}
        for precision, speeds in found.items():
            words = ", ".join(f"{kind} {speed:.0f}" for kind, speed in speeds.items())
            print(f"floor in {precision}, GFLOP/s: {words}", flush=True)
        floor = (
            {precision: max(speeds.values()) for precision, speeds in found.items()} if given.device == "cpu" else {}
        )
        lines = []
        for each in rows(package, windows_of(package, given.full), given):
            lines.append(cells(each, gflop, floor))
            print(*lines[-1], flush=True)  # told at once, for the whole takes minutes
        tell(f"{package.name} {package.version}, {gflop:.1f} GFLOP a window", lines, given.markdown)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the paper's network with random weights")
    parser.add_argument("--keep", type=Path, help="folder of that network's package, made where it is missing")
    parser.add_argument("--only", nargs="+", default=[], help="backends; default: all that can be used here")
    parser.add_argument("--precisions", nargs="+", default=[], choices=list(TYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--pinning", action="store_true", help="each with and without threads bound to cores")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--markdown", action="store_true")
    return parser


if __name__ == "__main__":
    run(parser().parse_args())
