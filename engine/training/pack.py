"""Turns a training run into the bundled package: `python -m engine.training.pack --folder training-runs/demo`.

Exports the averaged weights, judges them on scans that the training never saw, through the very path that the service
uses, and writes what they were trained on and how they did into the package.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from engine.backends import AUTO, open_session
from engine.export import export_onnx, store_weights_as_fp16
from engine.labels import Segment, thigh29
from engine.networks import build_unetr
from engine.package import ModelCard, ModelPackage, write_package
from engine.preprocessing import PAPER
from engine.segment import Segmenter
from engine.segmentation import Segmentation
from engine.synthesis import ScanRecipe, synthesise, thigh_grid
from engine.training.demo import SHAPE, SUBJECTS

JUDGE_SEEDS = (900_001, 900_002, 900_003)
"""Never drawn by the training, whose seeds are whole millions and what follows them."""
JUDGE_SHAPE, JUDGE_SPACING_MM = (200, 256, 320), (3.0, 1.4, 1.4)
STATEMENT = (
    "Demonstration network, not for clinical use. It was trained on {subjects} synthetic subjects of a built-in "
    "procedural anatomy, in {steps} steps after two phases for its coarser parts, and on no patient. On {scans} "
    "synthetic scans that it had not seen, its mean Dice over {count} structures and sides is {dice:.2f}; on "
    "patients it is unknown."
)
PHRASE = "trained on synthetic CT only"

Row = tuple[str, str, float, float]


def pack(run: Path, folder: Path, version: str) -> ModelPackage:
    """Write the package of a run: network, metadata and the table of its judgement."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    network = build_unetr(thigh29().class_count, **asdict(SHAPE))
    network.load_state_dict(state["averaged"])
    onnx = run / "model.onnx"
    export_onnx(network, onnx, PAPER.window)
    store_weights_as_fp16(onnx)
    rows = _judge(write_package(run / "package", onnx, _card(version, "Not judged yet.")))
    statement = STATEMENT.format(
        subjects=SUBJECTS,
        steps=state["step"],
        scans=len(JUDGE_SEEDS),
        count=len(rows),
        dice=float(np.mean([row[2] for row in rows])),
    )
    _write_table(folder / "docs" / "evaluation.csv", rows)
    return write_package(folder, onnx, _card(version, statement))


def _card(version: str, statement: str) -> ModelCard:
    return ModelCard(
        name="demo",
        version=version,
        label_set=thigh29(),
        preprocessing=PAPER,
        training_statement=statement,
        training_phrase=PHRASE,
        demonstration=True,
        network=asdict(SHAPE),
    )


def _judge(package: ModelPackage) -> list[Row]:
    """Structure, side, Dice and predicted over true volume, each the mean over the scans."""
    segmenter = Segmenter(package, open_session(AUTO, package, 0), 0.25)
    pairs: list[tuple[Segmentation, Segmentation]] = []
    for seed in JUDGE_SEEDS:
        scan = synthesise(ScanRecipe(seed, thigh_grid(JUDGE_SHAPE, JUDGE_SPACING_MM)))
        pairs.append((segmenter.segment(scan.volume, lambda _done, _of: None), scan.truth))
        print(f"judged on scan {len(pairs)} of {len(JUDGE_SEEDS)}", flush=True)
    return [_row(segment, pairs) for segment in thigh29().segments]


def _row(segment: Segment, pairs: list[tuple[Segmentation, Segmentation]]) -> Row:
    dice, ratio = [], []
    for found, truth in pairs:
        ours, true = found.labels == segment.number, truth.labels == segment.number
        dice.append(2 * int((ours & true).sum()) / max(1, int(ours.sum()) + int(true.sum())))
        ratio.append(int(ours.sum()) / max(1, int(true.sum())))
    return segment.structure.key, segment.side.value, float(np.mean(dice)), float(np.mean(ratio))


def _write_table(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("structure", "side", "mean_dice", "mean_predicted_over_true_volume"))
        for key, side, dice, ratio in rows:
            table.writerow((key, side, f"{dice:.3f}", f"{ratio:.3f}"))


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("training-runs/demo"), help="the training run")
    parser.add_argument("--package", type=Path, default=Path("engine/packages/demo"), help="the package to write")
    parser.add_argument("--version", default="0.1.0", help="version of the model")
    given = parser.parse_args()
    package = pack(given.folder, given.package, given.version)
    print(package.training_statement)


if __name__ == "__main__":
    main()
