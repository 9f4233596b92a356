"""The phases of a training: what learns in each, and from what loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from monai.losses.dice import DiceCELoss, DiceLoss
from monai.networks.nets.unet import UNet

from engine.networks import build_unetr
from engine.training.draws import Batch
from engine.training.preset import LossPlan, NetworkPlan, PhaseKind, Preset, UnetShape
from engine.training.pyramid import EVERY_VOXEL, Lattice, Plain, Pyramid, coarse_loss, shares
from engine.training.tokens import TokenReader, composition, token_loss

Autocast = Callable[[], AbstractContextManager[Any]]
"""Gives what a forward pass runs in; losses stay outside of it."""
Trainee = Pyramid | Plain
"""The network with what it learns by; its own weights are under `network`."""
TRANSFORMER = "network.vit."


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that learn at one share of the rate."""

    parameters: list[torch.nn.Parameter]
    scale: float


class Phase(Protocol):
    """One phase: what learns, and how well it does.

    Attributes:
        extra: weights that this phase alone has; None where it has none.
        groups: all parameters that learn.
    """

    extra: torch.nn.Module | None
    groups: list[Group]

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is made small, and the part of it that is reported; the batch is on the network's device."""


def build_network(plan: NetworkPlan, class_count: int, window: tuple[int, int, int]) -> torch.nn.Module:
    """A network with fresh weights: one channel in, `class_count` channels of logits out."""
    if plan.unetr is not None:
        return build_unetr(class_count, plan.unetr, window)
    shape: UnetShape | None = plan.unet
    if shape is None:
        raise AssertionError("a plan names one network")
    return UNet(3, 1, class_count, shape.channels, shape.strides, num_res_units=shape.residual_units)


def build_trainee(preset: Preset, class_count: int) -> Trainee:
    """The preset's network with fresh weights; a UNETR with heads on its coarse levels."""
    network = build_network(preset.network, class_count, preset.preprocessing.window)
    if preset.network.unetr is None:
        return Plain(network)
    size = preset.network.unetr.feature_size
    return Pyramid(network, (8 * size, 4 * size, 2 * size), class_count)


class TokenPhase:
    """A UNETR's transformer learns by itself."""

    def __init__(self, trainee: Pyramid, preset: Preset, class_count: int, autocast: Autocast) -> None:
        if preset.network.unetr is None:
            raise AssertionError("a preset checks this")
        self._reader = TokenReader(trainee.network.vit, preset.network.unetr.hidden_size, class_count)
        self._class_count, self._autocast = class_count, autocast
        self.extra: torch.nn.Module | None = self._reader.head
        self.groups = [Group([*trainee.network.vit.parameters(), *self._reader.head.parameters()], 1.0)]

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Phase`."""
        with self._autocast():
            logits = self._reader(batch.image)
        loss = token_loss(logits, composition(batch.classes, self._class_count))
        return loss, loss


class CoarsePhase:
    """A UNETR's coarse levels learn, and its transformer goes on."""

    extra: torch.nn.Module | None = None

    def __init__(self, trainee: Pyramid, preset: Preset, class_count: int, autocast: Autocast) -> None:
        self._trainee, self._class_count, self._autocast = trainee, class_count, autocast
        self.groups = _groups(trainee, preset)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Phase`."""
        with self._autocast():
            logits, _ = self._trainee.coarse(batch.image)
        loss = coarse_loss(logits, shares(batch.classes, self._class_count))
        return loss, loss


class WholePhase:
    """The whole network learns; a UNETR is held to its coarse levels while it does."""

    extra: torch.nn.Module | None = None

    def __init__(self, trainee: Trainee, preset: Preset, class_count: int, autocast: Autocast) -> None:
        self._trainee, self._class_count, self._autocast = trainee, class_count, autocast
        self._plan = preset.loss
        self._fine = fine_loss(preset.loss)
        self.groups = _groups(trainee, preset)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Phase`."""
        lattice = draw_lattice(rng) if self._plan.lattice else EVERY_VOXEL
        with self._autocast():
            coarse, logits = self._trainee(batch.image, lattice)
        fine = self._fine(logits.float(), batch.classes[(..., *lattice)].long())
        if not self._plan.coarse_weight:
            return fine, fine
        return fine + self._plan.coarse_weight * coarse_loss(coarse, shares(batch.classes, self._class_count)), fine


def fine_loss(plan: LossPlan) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of logits [window, class, z, y, x] against classes [window, 1, z, y, x], background included."""
    kinds = {"dice": DiceLoss, "dice_ce": DiceCELoss}
    loss: torch.nn.Module = kinds[plan.kind](
        include_background=True, to_onehot_y=True, softmax=True, batch=plan.over_batch
    )
    return loss


def draw_lattice(rng: np.random.Generator) -> Lattice:
    """Every second voxel along each axis, from a random first one."""
    z, y, x = (slice(int(first), None, 2) for first in rng.integers(0, 2, 3))
    return z, y, x


def _groups(trainee: Trainee, preset: Preset) -> list[Group]:
    """The transformer's weights and the others."""
    named = list(trainee.named_parameters())
    inside = [weight for name, weight in named if name.startswith(TRANSFORMER)]
    outside = [weight for name, weight in named if not name.startswith(TRANSFORMER)]
    groups = [Group(inside, preset.optimiser.transformer_scale), Group(outside, 1.0)]
    return [group for group in groups if group.parameters]


PHASES: Mapping[PhaseKind, Callable[..., Phase]] = {"tokens": TokenPhase, "coarse": CoarsePhase, "whole": WholePhase}
