"""Trains the bundled demo network on synthetic scans: `python -m engine.training.demo`.

Subjects are made first and kept as files. Then the transformer learns by itself, then the coarse levels, then the whole
network: the cheap parts see many windows before the dear one sees any. Each phase leaves its weights in the run's
folder, and the last one a checkpoint, so that a run that was stopped goes on where it was. Learning rates follow the
share of a phase's minutes that has passed: a slow machine ends as calmly as a fast one, only earlier in steps.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterator
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
from engine.training.pyramid import Pyramid, coarse_loss, shares
from engine.training.tokens import composition, train_tokens

SHAPE = UnetrShape(feature_size=16, hidden_size=192, mlp_dim=768, num_heads=6)
WIDTHS = (8 * SHAPE.feature_size, 4 * SHAPE.feature_size, 2 * SHAPE.feature_size)
PEAK_RATE = 1e-3
TRANSFORMER_SCALE = 0.3
"""After its own phase the transformer goes on at this share of the rate."""
COARSE_WEIGHT = 0.5
WARM_UP_STEPS = 60
EMA_DECAY = 0.995
CHECKPOINT_S = 180.0
SUBJECTS = 60
TOKEN_BATCH, COARSE_BATCH = 8, 2

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


def _stream(files: list[Path], seed: int, batch: int, compose: bool) -> Iterator[Sample]:
    return iter(DataLoader(Samples(files, seed, compose), batch_size=batch, num_workers=1, prefetch_factor=3))


@dataclass(frozen=True)
class RunPlan:
    """Where to keep the run; minutes for the transformer, the coarse levels and the whole network; seed; threads."""

    folder: Path
    minutes: tuple[float, float, float]
    seed: int
    threads: int


class Trainer:
    """One training run."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        torch.set_flush_denormal(True)  # denormals make a step many times slower
        class_count = thigh29().class_count
        self._pyramid = Pyramid(build_unetr(class_count, **asdict(SHAPE)), WIDTHS, class_count)
        self._averaged = copy.deepcopy(self._pyramid.network)
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=True)
        self._optimiser = self._fresh_optimiser()
        self._step = 0
        self._trained_s = 0.0
        plan.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Make the subjects, then train phase by phase; a phase that is done is not done again."""
        seeds = range(self._plan.seed * 1_000_000, self._plan.seed * 1_000_000 + SUBJECTS)
        files = []
        for path in make_subjects(self._plan.folder / "subjects", seeds, PAPER, self._plan.threads):
            files.append(path)
            print(f"subject {len(files)} of {SUBJECTS}", flush=True)
        self._once("transformer", self._pyramid.network.vit, lambda: self._learn_places(files))
        self._once("coarse", self._pyramid, lambda: self._learn_coarsely(files))
        self._learn_wholly(files)

    def _once(self, phase: str, module: torch.nn.Module, learn: Callable[[], None]) -> None:
        path = self._plan.folder / f"{phase}.pt"
        if path.exists():
            module.load_state_dict(torch.load(path, weights_only=True))
            return
        learn()
        _keep(module.state_dict(), path)

    def _learn_places(self, files: list[Path]) -> None:
        stream = _stream(files, self._plan.seed, TOKEN_BATCH, compose=True)

        def report(step: int, loss: float) -> None:
            print(f"transformer, step {step}  loss {loss:.3f}", flush=True)

        train_tokens(self._pyramid.network.vit, stream, self._plan.minutes[0], report)

    def _learn_coarsely(self, files: list[Path]) -> None:
        stream = _stream(files, self._plan.seed + 1, COARSE_BATCH, compose=False)
        began, step = time.monotonic(), 0
        while (share := (time.monotonic() - began) / (self._plan.minutes[1] * 60)) < 1:
            self._set_rate(step, share)
            image, target = next(stream)
            with torch.autocast("cpu", torch.bfloat16):
                logits, _ = self._pyramid.coarse(image)
            loss = coarse_loss(logits, shares(target.long(), thigh29().class_count))
            self._descend(loss)
            step += 1
            if step % 20 == 0:
                print(f"coarse levels, step {step}  loss {float(loss.detach()):.3f}", flush=True)
        self._optimiser = self._fresh_optimiser()

    def _learn_wholly(self, files: list[Path]) -> None:
        checkpoint = self._plan.folder / "checkpoint.pt"
        self._averaged.load_state_dict(self._pyramid.network.state_dict())
        if checkpoint.exists():
            self._restore(checkpoint)
        saved = time.monotonic()
        source = _stream(files, self._plan.seed + 2 + self._step, 1, compose=False)
        limit_s = self._plan.minutes[2] * 60
        with (self._plan.folder / "metrics.csv").open("a", newline="", encoding="utf-8") as file:
            metrics = csv.writer(file)
            while self._trained_s < limit_s:
                began = time.monotonic()
                loss, dice = self._learn(next(source), self._trained_s / limit_s)
                self._trained_s += time.monotonic() - began
                metrics.writerow([self._step, round(self._trained_s, 1), round(loss, 4), round(dice, 4)])
                if self._step % 20 == 0:
                    file.flush()
                    left_min = (limit_s - self._trained_s) / 60
                    print(f"step {self._step}  loss {loss:.3f}  dice {dice:.3f}  {left_min:.1f} min left", flush=True)
                if time.monotonic() - saved > CHECKPOINT_S:
                    self._save(checkpoint)
                    saved = time.monotonic()
        self._save(checkpoint)

    def _learn(self, sample: Sample, share: float) -> tuple[float, float]:
        """One step of the whole network; its loss, and now and then the mean Dice over the classes present."""
        self._set_rate(self._step, share)
        image, target = sample[0], sample[1].long()
        with torch.autocast("cpu", torch.bfloat16):
            coarse, logits = self._pyramid(image)
        fine = self._loss(logits.float(), target)
        self._descend(fine + COARSE_WEIGHT * coarse_loss(coarse, shares(target, logits.shape[1])))
        self._step += 1
        self._average()
        return float(fine.detach()), _present_dice(logits.detach(), target) if self._step % 20 == 0 else math.nan

    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        groups = [
            {
                "params": [p for name, p in self._pyramid.named_parameters() if (".vit." in name) is inside],
                "scale": scale,
            }
            for inside, scale in ((True, TRANSFORMER_SCALE), (False, 1.0))
        ]
        return torch.optim.AdamW(groups, PEAK_RATE, weight_decay=1e-5)

    def _set_rate(self, step: int, share: float) -> None:
        rate = PEAK_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["scale"]

    def _descend(self, loss: torch.Tensor) -> None:
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        torch.nn.utils.clip_grad_norm_(self._pyramid.parameters(), 1.0)
        self._optimiser.step()

    def _average(self) -> None:
        decay = min(EMA_DECAY, self._step / (self._step + 20))
        with torch.no_grad():
            for slow, fast in zip(self._averaged.parameters(), self._pyramid.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)

    def _save(self, path: Path) -> None:
        state = {
            "pyramid": self._pyramid.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
            "trained_s": self._trained_s,
        }
        _keep(state, path)

    def _restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self._pyramid.load_state_dict(state["pyramid"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._step, self._trained_s = int(state["step"]), float(state["trained_s"])


def _keep(state: object, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


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
    parser.add_argument("--minutes", type=float, nargs=3, default=(12, 12, 60), help="for each of the three phases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    first, second, third = given.minutes
    Trainer(RunPlan(given.folder, (first, second, third), given.seed, given.threads)).run()


if __name__ == "__main__":
    main()
