"""How long a window takes and how large a network is, by its sizes: `python benchmarks/network_sizes.py`.

UNETRs with random weights on windows of 96 x 96 x 96 voxels, through the CPU engine of the service, in bf16 where the
CPU computes that and in fp32. The weights do not matter for the time. The shortest of some runs is told: what is longer
is another program's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from engine.backends import Session, SessionOptions, cores, cpu_has_bf16, open_session
from engine.bundle import ModelCard, write_package
from engine.export import export_models
from engine.labels import thigh29
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelPackage
from engine.preprocessing import PAPER
from engine.trials import seconds_a_window

HEADS = {192: 6, 256: 8, 384: 6, 768: 12}
"""Attention heads by hidden size."""


def shapes(features: list[int], hidden: list[int]) -> Iterator[UnetrShape]:
    for feature, width in product(features, hidden):
        yield UnetrShape(feature, width, 4 * width, HEADS[width])


def package_of(shape: UnetrShape, folder: Path) -> tuple[ModelPackage, int]:
    """The package of a network with random weights, and the number of those."""
    torch.manual_seed(1)
    network = build_unetr(thigh29().class_count, shape, PAPER.window)
    export_models(network, folder / "models", PAPER.window)
    words = ("For benchmarks only", "Random weights.", "untrained", "")
    card = ModelCard("untrained", "0", thigh29(), PAPER, *words, network=shape)
    count = sum(weight.numel() for weight in network.parameters())
    return write_package(folder / "package", folder / "models", card), count


def in_precision(package: ModelPackage, threads: int, bf16: bool) -> Session:
    return open_session("openvino", package, SessionOptions(threads or cores(), "bf16" if bf16 else "fp32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--hidden", type=int, nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--runs", type=int, default=8)
    given = parser.parse_args()
    bf16 = cpu_has_bf16()
    window = torch.rand((1, 1, *PAPER.window), generator=torch.Generator().manual_seed(1))
    table = Table("feature", "hidden", "million weights", "package MB", "bf16 s", "fp32 s", title="seconds a window")
    for shape in shapes(given.features, given.hidden):
        with tempfile.TemporaryDirectory() as name:
            package, count = package_of(shape, Path(name))
            size = sum(path.stat().st_size for path in package.folder.rglob("*") if path.is_file())
            times = [
                f"{seconds_a_window(in_precision(package, given.threads, each), window, given.runs):.3f}"
                if each <= bf16
                else "-"
                for each in (True, False)
            ]
        row = (str(shape.feature_size), str(shape.hidden_size), f"{count / 1e6:.1f}", f"{size / 1e6:.1f}", *times)
        table.add_row(*row)
        print(*row, flush=True)  # told at once, for the whole takes minutes
    Console().print(table)


if __name__ == "__main__":
    main()
