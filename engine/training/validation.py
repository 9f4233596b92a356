"""How well the network does on what it never learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from engine.labels import LabelSet
from engine.training.devices import Machine
from engine.training.draws import Batch
from engine.training.preset import Preset
from engine.windows import classify, plan_windows

MEAN = "mean"


def judge(
    network: torch.nn.Module, held_out: Iterator[Batch], preset: Preset, machine: Machine, label_set: LabelSet
) -> Mapping[str, float]:
    """Dice of each structure over the voxels of all held-out scans together, and their mean under `mean`.

    Windows are placed and blended as the service does it. A structure that no scan holds is NaN and has no part in the
    mean.
    """
    count = label_set.class_count
    confusion = np.zeros((count, count), dtype=np.int64)
    window, overlap = preset.preprocessing.window, preset.validation.overlap

    def run(windows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), machine.autocast():
            logits: torch.Tensor = network(windows.to(machine.device))
        return logits.float().cpu()

    was_training = network.training
    network.eval()
    for batch in held_out:
        for image, truth in zip(batch.image[:, 0], batch.classes[:, 0], strict=True):
            depth, height, width = image.shape
            found = classify(image, run, plan_windows((depth, height, width), window, overlap), lambda _done, _of: None)
            pairs = truth.numpy().astype(np.int64) * count + found
            confusion += np.bincount(pairs.ravel(), minlength=count**2).reshape(count, count)
    network.train(was_training)
    return _dice(confusion, label_set)


def _dice(confusion: NDArray[np.int64], label_set: LabelSet) -> Mapping[str, float]:
    """From voxels counted by [true class, found class]."""
    true, found, both = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    dice = {
        each.key: float(2 * both[each.value] / (true[each.value] + found[each.value])) if true[each.value] else np.nan
        for each in label_set.structures
    }
    known = [value for value in dice.values() if not np.isnan(value)]
    return {MEAN: float(np.mean(known)) if known else np.nan, **dice}
