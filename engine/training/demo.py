"""Trains the bundled demo network on synthetic scans: `python -m engine.training.demo --minutes 90`.

Subjects are made first and kept as files; then the transformer learns by itself, then the whole network.

The run can be stopped and started again: it goes on from its last checkpoint. The learning rate follows the share of
the planned minutes that has passed, so that a slow machine ends as calmly as a fast one, only earlier in steps.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from monai.losses.dice import DiceCELoss
from monai.networks.utils import one_hot
from torch.utils.data import DataLoader, IterableDataset

from engine.labels import thigh29
from engine.networks import UnetrShape, build_unetr
from engine.preprocessing import PAPER, normalise
from engine.training.patches import PatchSource, make_subjects
from engine.training.tokens import composition, train_tokens

SHAPE = UnetrShape(feature_size=16, hidden_size=192, mlp_dim=768, num_heads=6)
PEAK_RATE = 8e-4
TRANSFORMER_SCALE = 0.25
"""The transformer goes on at this share of the rate: it knows its place already."""
WARM_UP_STEPS = 150
EMA_DECAY = 0.995
CHECKPOINT_S = 180.0
SUBJECTS = 60
TOKEN_BATCH = 8

Sample = tuple[torch.Tensor, torch.Tensor]


class Samples(IterableDataset[Sample]):
    """Patches for a loader's process: the network's input [1, z, y, x], and classes or compositions.

    Args:
        files: subjects.
        seed: of the draws.
        compose: whether the target is the composition of blocks, for the transformer, or the class of each voxel.
    """

    def __init__(self, files: list[Path], seed: int, compose: bool) -> None:
        super().__init__()
        self._files, self._seed, self._compose = files, seed, compose

    def __iter__(self) -> Iterator[Sample]:
        for patch in PatchSource(self._files, self._seed, PAPER.window):
            image = normalise(torch.from_numpy(patch.hu), PAPER)[None]
            if self._compose:
                yield image, torch.from_numpy(composition(patch.classes, thigh29().class_count))
            else:
                yield image, torch.from_numpy(patch.classes)[None]


def _stream(files: list[Path], seed: int, compose: bool) -> Iterator[Sample]:
    batch = TOKEN_BATCH if compose else 1
    return iter(DataLoader(Samples(files, seed, compose), batch_size=batch, num_workers=1, prefetch_factor=3))


@dataclass(frozen=True)
class RunPlan:
    """Where to keep the run; minutes for the transformer alone and for the whole network; seed; threads."""

    folder: Path
    minutes: float
    token_minutes: float
    seed: int
    threads: int


class Trainer:
    """One training run."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        torch.set_flush_denormal(True)  # denormals make a step many times slower
        self._network = build_unetr(thigh29().class_count, **asdict(SHAPE))
        self._averaged = copy.deepcopy(self._network)
        groups = [
            {
                "params": [p for name, p in self._network.named_parameters() if name.startswith("vit.") is inside],
                "scale": scale,
            }
            for inside, scale in ((True, TRANSFORMER_SCALE), (False, 1.0))
        ]
        self._optimiser = torch.optim.AdamW(groups, PEAK_RATE, weight_decay=1e-5)
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=True)
        self._step = 0
        self._trained_s = 0.0
        self._checkpoint = plan.folder / "checkpoint.pt"
        plan.folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._restore()

    def run(self) -> None:
        """Train until the planned minutes have passed."""
        seeds = range(self._plan.seed * 1_000_000, self._plan.seed * 1_000_000 + SUBJECTS)
        files = []
        for path in make_subjects(self._plan.folder / "subjects", seeds, PAPER, self._plan.threads):
            files.append(path)
            print(f"subject {len(files)} of {SUBJECTS}", flush=True)
        if self._step == 0:
            self._learn_places(files)
        saved = time.monotonic()
        source = _stream(files, self._plan.seed + self._step, compose=False)
        with (self._plan.folder / "metrics.csv").open("a", newline="", encoding="utf-8") as file:
            metrics = csv.writer(file)
            while self._trained_s < self._plan.minutes * 60:
                began = time.monotonic()
                loss, dice = self._learn(next(source))
                self._trained_s += time.monotonic() - began
                metrics.writerow([self._step, round(self._trained_s, 1), round(loss, 4), round(dice, 4)])
                if self._step % 20 == 0:
                    file.flush()
                    left_min = self._plan.minutes - self._trained_s / 60
                    print(f"step {self._step}  loss {loss:.3f}  dice {dice:.3f}  {left_min:.1f} min left", flush=True)
                if time.monotonic() - saved > CHECKPOINT_S:
                    self._save()
                    saved = time.monotonic()
        self._save()

    def _learn_places(self, files: list[Path]) -> None:
        stream = _stream(files, self._plan.seed, compose=True)
        transformer = self._network.get_submodule("vit")

        def report(step: int, loss: float) -> None:
            print(f"transformer step {step}  loss {loss:.3f}", flush=True)

        train_tokens(transformer, stream, self._plan.token_minutes, report)
        self._averaged.load_state_dict(self._network.state_dict())

    def _rate(self) -> float:
        warm = min(1.0, (self._step + 1) / WARM_UP_STEPS)
        share = min(1.0, self._trained_s / (self._plan.minutes * 60))
        return PEAK_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def _learn(self, sample: Sample) -> tuple[float, float]:
        """One step; its loss, and now and then the mean Dice over the classes present."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate() * group["scale"]
        image, target = sample[0], sample[1].long()
        self._network.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._network(image)
        loss = self._loss(logits.float(), target)
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        self._step += 1
        self._average()
        return float(loss.detach()), _present_dice(logits.detach(), target) if self._step % 20 == 0 else math.nan

    def _average(self) -> None:
        decay = min(EMA_DECAY, self._step / (self._step + 20))
        with torch.no_grad():
            for slow, fast in zip(self._averaged.parameters(), self._network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)

    def _save(self) -> None:
        state = {
            "network": self._network.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
            "trained_s": self._trained_s,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)

    def _restore(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self._network.load_state_dict(state["network"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._step, self._trained_s = int(state["step"]), float(state["trained_s"])


def _present_dice(logits: torch.Tensor, target: torch.Tensor) -> float:
    """Mean Dice over the structures that the patch holds."""
    count = logits.shape[1]
    predicted = one_hot(logits.argmax(1, keepdim=True), count).flatten(2).bool()
    truth = one_hot(target, count).flatten(2).bool()
    sizes = truth.sum(-1)[0, 1:]
    both = (predicted & truth).sum(-1)[0, 1:]
    dice = 2 * both / (sizes + predicted.sum(-1)[0, 1:]).clamp(min=1)
    return float(dice[sizes > 0].mean()) if bool((sizes > 0).any()) else math.nan


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("training-runs/demo"))
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--token-minutes", type=float, default=12, help="for the transformer alone, at the start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    Trainer(RunPlan(given.folder, given.minutes, given.token_minutes, given.seed, given.threads)).run()


if __name__ == "__main__":
    main()
