"""The state of a run: all that a checkpoint must hold so that going on is as if nothing had happened."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.training.checkpoint import keep, read_state
from engine.training.devices import Machine
from engine.training.draws import seed_of
from engine.training.errors import TrainingError
from engine.training.phases import PHASES, Phase, Trainee, build_trainee
from engine.training.preset import PhasePlan, Preset

KEYS = (
    "pyramid",
    "averaged",
    "extra",
    "optimiser",
    "phase",
    "step",
    "trained_s",
    "total_steps",
    "best_dice",
    "judged_step",
    "rng",
)
FOREIGN_KEYS = ("pyramid", "averaged", "step")
"""What weights from elsewhere must bring."""
AVERAGING_WARM_UP = 20


class State:
    """Networks, optimiser and counters of a run.

    Args:
        preset: what is trained.
        class_count: the label set's classes.
        seed: fresh weights follow from it.
        machine: where it runs.

    Attributes:
        trainee: the network and its heads.
        number: the phase, an index of the preset's.
        step: steps of this phase that are done.
        trained_s: seconds that they took.
        total_steps: steps of all phases that are done.
        best_dice: highest mean Dice so far; NaN before the first validation.
        judged_step: `total_steps` at the last validation.
    """

    def __init__(self, preset: Preset, class_count: int, seed: int, machine: Machine) -> None:
        self._preset, self._class_count, self._seed, self._machine = preset, class_count, seed, machine
        torch.manual_seed(seed)
        self.trainee: Trainee = build_trainee(preset, class_count).to(machine.device)
        self._averaged = copy.deepcopy(self.trainee.network) if preset.optimiser.average_decay else None
        self.number = self.step = self.total_steps = self.judged_step = 0
        self.trained_s, self.best_dice = 0.0, math.nan
        self.begin(0)

    @property
    def plan(self) -> PhasePlan:
        """The present phase's."""
        return self._preset.phases[self.number]

    @property
    def kept(self) -> torch.nn.Module:
        """The network that is judged and kept: the averaged one, or the network itself where none is wanted."""
        return self.trainee.network if self._averaged is None else self._averaged

    def begin(self, number: int) -> None:
        """Begin a phase with a fresh optimiser; the average begins anew at what has been learnt."""
        self.number, self.step, self.trained_s = number, 0, 0.0
        torch.manual_seed(seed_of(self._seed, number))
        self.phase: Phase = PHASES[self.plan.kind](
            self.trainee, self._preset, self._class_count, self._machine.autocast
        )
        if self.phase.extra is not None:
            self.phase.extra.to(self._machine.device)
        groups = [{"params": group.parameters, "scale": group.scale} for group in self.phase.groups]
        self.optimiser = torch.optim.AdamW(groups, self.plan.rate, weight_decay=self.plan.weight_decay)
        if self._averaged is not None:
            self._averaged.load_state_dict(self.trainee.network.state_dict())

    def learn(self, loss: torch.Tensor, rate: float) -> float:
        """One step of the optimiser; returns the norm of the gradient, and does nothing where it is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        weights = [weight for group in self.phase.groups for weight in group.parameters]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, self._preset.optimiser.clip_norm or math.inf))
        if math.isfinite(norm):
            self.optimiser.step()
            self.step += 1
            self.total_steps += 1
            self._average()
        return norm

    def save(self, folder: Path) -> Path:
        """Write the checkpoint; the one before is kept beside it."""
        extra = self.phase.extra
        state = {
            "pyramid": self.trainee.state_dict(),
            "averaged": self.kept.state_dict(),
            "extra": {} if extra is None else extra.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "phase": self.number,
            "step": self.step,
            "trained_s": self.trained_s,
            "total_steps": self.total_steps,
            "best_dice": self.best_dice,
            "judged_step": self.judged_step,
            "rng": self._rng_states(),
        }
        return keep(state, folder)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of this run.

        Raises:
            TrainingError: it is damaged, or of another network.
        """
        state = read_state(path, KEYS)
        self._load(path, state)
        self.total_steps, self.judged_step = int(state["total_steps"]), int(state["judged_step"])
        self.best_dice = float(state["best_dice"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self._machine.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self._machine.device)

    def start_from(self, path: Path) -> None:
        """Take weights, phase, steps and optimiser from another run's checkpoint; without a phase it is the last.

        Raises:
            TrainingError: it is damaged, or of another network.
        """
        state = read_state(path, FOREIGN_KEYS)
        last = len(self._preset.phases) - 1
        self._load(path, {"extra": {}, "optimiser": None, "trained_s": 0.0, "phase": last, **state})
        self.total_steps = self.step

    def _load(self, path: Path, state: Mapping[str, Any]) -> None:
        try:
            self.begin(self._number_of(state["phase"]))
            self.trainee.load_state_dict(state["pyramid"])
            if self._averaged is not None:
                self._averaged.load_state_dict(state["averaged"])
            if self.phase.extra is not None and state["extra"]:
                self.phase.extra.load_state_dict(state["extra"])
            if state["optimiser"] is not None:
                self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            reason = f"it does not fit this preset: {str(error).splitlines()[0]}"
            raise TrainingError(f"checkpoint {path}", reason, "Name the preset that it was trained with") from error
        self.step, self.trained_s = int(state["step"]), float(state["trained_s"])

    def _number_of(self, phase: int | str) -> int:
        if isinstance(phase, int):
            return range(len(self._preset.phases))[phase]
        return [plan.kind for plan in self._preset.phases].index(phase)  # type: ignore[arg-type]

    def _rng_states(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._machine.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._machine.device)
        return states

    def _average(self) -> None:
        if self._averaged is None or self.plan.kind != "whole":
            return
        decay = min(self._preset.optimiser.average_decay, self.step / (self.step + AVERAGING_WARM_UP))
        with torch.no_grad():
            for slow, fast in zip(self._averaged.parameters(), self.trainee.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
            for old, new in zip(self._averaged.buffers(), self.trainee.network.buffers(), strict=True):
                old.copy_(new)
