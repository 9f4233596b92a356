"""How far a phase is, and which learning rate that means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

from engine.training.draws import Source
from engine.training.preset import Budget, PhasePlan, Preset


@dataclass(frozen=True)
class Pace:
    """What ends a phase: a number of steps, or a time spent in steps.

    Attributes:
        steps: None where it is the time.
        seconds: None where it is the steps.
    """

    steps: int | None
    seconds: float | None

    def share(self, step: int, trained_s: float) -> float:
        """What of the phase is behind, 1 or more where it is over."""
        if self.steps is not None:
            return step / self.steps
        return trained_s / self.seconds if self.seconds else 1.0

    def left_s(self, step: int, trained_s: float, step_s: float) -> float:
        """Seconds that the rest will take, at so many a step."""
        if self.steps is not None:
            return step_s * (self.steps - step)
        return (self.seconds or 0.0) - trained_s


def paces(preset: Preset, budget: Budget, source: Source) -> tuple[Pace, ...]:
    """The pace of each phase of a preset; steps add up to the budget's, as long as each phase has one."""
    ends = [0.0, *accumulate(phase.share for phase in preset.phases)]
    parts = [(start / ends[-1], end / ends[-1]) for start, end in pairwise(ends)]
    return tuple(_pace(budget, phase, part, source) for phase, part in zip(preset.phases, parts, strict=True))


def _pace(budget: Budget, phase: PhasePlan, part: tuple[float, float], source: Source) -> Pace:
    start, end = part
    if budget.unit == "minutes":
        return Pace(None, budget.amount * (end - start) * 60)
    steps = budget.amount * (source.epoch_steps(phase.batch) if budget.unit == "epochs" else 1)
    return Pace(max(1, round(steps * end) - round(steps * start)), None)


def rate_at(phase: PhasePlan, step: int, share: float) -> float:
    """The learning rate of a step (counted from 0) when `share` of the phase is behind."""
    warm = min(1.0, (step + 1) / phase.warm_up_steps) if phase.warm_up_steps else 1.0
    if phase.schedule == "constant":
        return phase.rate * warm
    fallen = phase.last_rate + (1 - phase.last_rate) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return phase.rate * warm * fallen
