"""The first phase of training: the transformer alone learns where it is.

A UNETR's convolutions cost fifty times its transformer, yet only the transformer sees the whole window. So it first
learns by itself, on many windows, to say of every block of 4 x 4 x 4 voxels which classes it is made of, through one
linear layer that is thrown away afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

BLOCK = 4
PATCH = 16
RATE = 6e-4
WARM_UP_STEPS = 100

Batch = tuple[torch.Tensor, torch.Tensor]


def composition(classes: NDArray[np.uint8], class_count: int) -> NDArray[np.uint8]:
    """Voxels of each class in each block, [patches, blocks of a patch, class], in the order of the tokens."""
    size = classes.shape[0] // BLOCK
    index = np.arange(classes.shape[0]) // BLOCK
    block = (index[:, None, None] * size + index[None, :, None]) * size + index[None, None, :]
    key = (block * class_count + classes).ravel()
    counts = np.bincount(key, minlength=size**3 * class_count).astype(np.uint8)
    patches, inner = classes.shape[0] // PATCH, PATCH // BLOCK
    grid = counts.reshape(patches, inner, patches, inner, patches, inner, class_count)
    return grid.transpose(0, 2, 4, 1, 3, 5, 6).reshape(patches**3, inner**3, class_count)


def train_tokens(
    transformer: torch.nn.Module,
    batches: Iterator[Batch],
    minutes: float,
    report: Callable[[int, float], None],
) -> None:
    """Train a UNETR's transformer by itself.

    Args:
        transformer: gives tokens [batch, patches, width] first.
        batches: images float32 [batch, 1, z, y, x] and compositions uint8 [batch, patches, blocks, class].
        minutes: how long.
        report: told the step and its loss now and then.
    """
    images, target = next(batches)
    blocks, class_count = target.shape[-2:]
    width = transformer(images)[0].shape[-1]
    head = torch.nn.Linear(width, blocks * class_count)
    optimiser = torch.optim.AdamW([*transformer.parameters(), *head.parameters()], RATE, weight_decay=1e-4)
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (minutes * 60)) < 1:
        rate = RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.03 + 0.97 * (1 + np.cos(np.pi * share)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(transformer(images)[0])
        logits = logits.float().reshape(target.shape)
        wanted = target.float() / BLOCK**3
        weight = 1.2 - wanted[..., 0]  # blocks of nothing but background say little
        entropy = -(wanted * functional.log_softmax(logits, dim=-1)).sum(-1)
        loss: torch.Tensor = (entropy * weight).sum() / weight.sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            report(step, float(loss.detach()))
        images, target = next(batches)
