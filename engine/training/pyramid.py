"""The coarse levels of a UNETR, seen from outside, so that they can be taught directly.

A UNETR answers at full resolution only. Its decoder has three coarser levels before that; a linear head on each says of
every block of voxels which classes it is made of. The heads are thrown away afterwards. The coarse levels cost a
fraction of the finest one, so they learn first by themselves, and are held to it while the whole network learns.
"""

from __future__ import annotations

from itertools import product
from typing import cast

import torch
from monai.networks.nets.unetr import UNETR
from torch.nn import functional

BLOCKS = (8, 4, 2)
"""Voxels along an edge of a block, for each coarse level."""
Lattice = tuple[slice, slice, slice]
EVERY_VOXEL: Lattice = (slice(None), slice(None), slice(None))
FULL_BACKGROUND_WEIGHT = 0.2
"""Weight of a block of nothing but background; one without any has 1.2."""


class Pyramid(torch.nn.Module):
    """A UNETR with a head on each coarse level of its decoder.

    Args:
        network: the UNETR; it is trained in place.
        widths: channels of its decoder at the coarse levels, coarsest first.
        class_count: the label set's classes.
    """

    def __init__(self, network: torch.nn.Module, widths: tuple[int, int, int], class_count: int) -> None:
        super().__init__()
        self.network = cast(UNETR, network)
        self.heads = torch.nn.ModuleList(torch.nn.Conv3d(width, class_count, 1) for width in widths)

    def coarse(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Logits of the coarse levels, coarsest first, and the features of the last."""
        net = self.network
        last, hidden = net.vit(image)
        level = net.decoder5(net.proj_feat(last), net.encoder4(net.proj_feat(hidden[9])))  # type: ignore[no-untyped-call]
        logits = [self.heads[0](level)]
        level = net.decoder4(level, net.encoder3(net.proj_feat(hidden[6])))  # type: ignore[no-untyped-call]
        logits.append(self.heads[1](level))
        level = net.decoder3(level, net.encoder2(net.proj_feat(hidden[3])))  # type: ignore[no-untyped-call]
        logits.append(self.heads[2](level))
        return logits, level

    def forward(self, image: torch.Tensor, lattice: Lattice = EVERY_VOXEL) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Logits of the coarse levels, and of the lattice's voxels: what the UNETR alone would give there."""
        logits, level = self.coarse(image)
        net = self.network
        fine = net.decoder2(level, net.encoder1(image))
        return logits, net.out(fine[(..., *lattice)])


class Plain(torch.nn.Module):
    """Any network, without coarse levels; seen as a `Pyramid` is."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, lattice: Lattice = EVERY_VOXEL) -> tuple[list[torch.Tensor], torch.Tensor]:
        """No coarse logits, and the logits of the lattice's voxels."""
        logits: torch.Tensor = self.network(image)
        return [], logits[(..., *lattice)]


def coarse_loss(logits: list[torch.Tensor], composition: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against the composition of the blocks, the mean over the levels.

    Args:
        logits: [batch, class, z, y, x] of each level, coarsest first.
        composition: share of each class in the smallest blocks, float32 [batch, class, z, y, x].
    """
    losses = []
    for level, block in zip(logits, BLOCKS, strict=True):
        wanted = functional.avg_pool3d(composition, block // BLOCKS[-1]) if block > BLOCKS[-1] else composition
        weight = 1 + FULL_BACKGROUND_WEIGHT - wanted[:, 0]
        entropy = -(wanted * functional.log_softmax(level.float(), dim=1)).sum(1)
        losses.append((entropy * weight).sum() / weight.sum())
    return torch.stack(losses).mean()


def shares(classes: torch.Tensor, class_count: int, block: int = BLOCKS[-1]) -> torch.Tensor:
    """Share of each class in blocks of voxels.

    Args:
        classes: integers [batch, 1, z, y, x].
        class_count: the label set's classes.
        block: voxels along an edge.

    Returns:
        float32 [batch, class, z, y, x], on the device of `classes`.
    """
    size = [classes.shape[0], class_count, *(length // block for length in classes.shape[2:])]
    counts = torch.zeros(size, device=classes.device)
    one = torch.ones((), device=classes.device) / block**3
    for z, y, x in product(range(block), repeat=3):
        corner = classes[:, :, z::block, y::block, x::block].long()
        counts.scatter_add_(1, corner, one.expand(corner.shape))
    return counts
