from __future__ import annotations

import torch

from engine.networks import PAPER_SHAPE, UnetrShape


def test_a_window_becomes_logits_of_every_class(tiny_network: torch.nn.Module) -> None:
    with torch.inference_mode():
        logits = tiny_network(torch.zeros(1, 1, 32, 32, 32))
    assert logits.shape == (1, 30, 32, 32, 32)
    assert torch.isfinite(logits).all()


def test_the_papers_network() -> None:
    assert UnetrShape(16, 768, 3072, 12) == PAPER_SHAPE
