"""The first phase of training: the transformer alone learns where it is.

A UNETR's convolutions cost fifty times its transformer, yet only the transformer sees the whole window. So it first
learns by itself, on many windows, to say of every block of 4 x 4 x 4 voxels which classes it is made of, through one
linear layer that is thrown away afterwards.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from engine.training.pyramid import FULL_BACKGROUND_WEIGHT, shares

BLOCK = 4
PATCH = 16


def composition(classes: torch.Tensor, class_count: int) -> torch.Tensor:
    """Share of each class in each block, in the order of the tokens.

    Args:
        classes: integers [batch, 1, z, y, x], each axis a multiple of `PATCH`.
        class_count: the label set's classes.

    Returns:
        float32 [batch, tokens, blocks of a token, class].
    """
    blocks = shares(classes, class_count, BLOCK)
    inner = PATCH // BLOCK
    batch, _, depth, height, width = blocks.shape
    split = blocks.reshape(batch, class_count, depth // inner, inner, height // inner, inner, width // inner, inner)
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, -1, inner**3, class_count)


class TokenReader(torch.nn.Module):
    """A transformer's tokens, read by one linear layer as the composition of their blocks.

    Args:
        transformer: gives tokens [batch, tokens, width] first.
        width: of a token.
        class_count: the label set's classes.
    """

    def __init__(self, transformer: torch.nn.Module, width: int, class_count: int) -> None:
        super().__init__()
        self._class_count = class_count
        self.transformer = transformer
        self.head = torch.nn.Linear(width, (PATCH // BLOCK) ** 3 * class_count)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [batch, tokens, blocks of a token, class]."""
        logits: torch.Tensor = self.head(self.transformer(image)[0])
        return logits.reshape(*logits.shape[:2], -1, self._class_count)


def token_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against the composition, both [batch, tokens, blocks of a token, class]."""
    weight = 1 + FULL_BACKGROUND_WEIGHT - wanted[..., 0]
    entropy = -(wanted * functional.log_softmax(logits.float(), dim=-1)).sum(-1)
    return (entropy * weight).sum() / weight.sum()
