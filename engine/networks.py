"""The network's architecture: UNETR, as the paper used it (Kim 2024, Sci Rep 14:3301), from MONAI."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from monai.networks.nets.unetr import UNETR


@dataclass(frozen=True)
class UnetrShape:
    """The sizes of a UNETR.

    Attributes:
        feature_size: channels of the finest convolutional level.
        hidden_size: width of the transformer; a multiple of `num_heads`.
        mlp_dim: width of the transformer's inner layer.
        num_heads: attention heads.
    """

    feature_size: int
    hidden_size: int
    mlp_dim: int
    num_heads: int


PAPER_SHAPE = UnetrShape(feature_size=16, hidden_size=768, mlp_dim=3072, num_heads=12)


def build_unetr(class_count: int, shape: UnetrShape, window: tuple[int, int, int] = (96, 96, 96)) -> torch.nn.Module:
    """A UNETR with fresh weights: one channel in, `class_count` channels of logits out.

    Args:
        class_count: the label set's classes, background included.
        shape: its sizes.
        window: voxels of its one input size, axes (z, y, x), each a multiple of 16.
    """
    return UNETR(in_channels=1, out_channels=class_count, img_size=window, **asdict(shape))
