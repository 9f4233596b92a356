from __future__ import annotations

import pytest
import torch

from engine.preprocessing import PAPER, Preprocessing, normalise


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_the_papers_scaling(dtype: torch.dtype) -> None:
    hu = torch.tensor([-1000, -57, 50, 164, 3000], dtype=dtype)
    values = normalise(hu)
    assert values.dtype == torch.float32
    assert values.tolist() == pytest.approx([0.0, 0.0, (107 / 221) ** 2, 1.0, 1.0])
    assert hu.tolist() == [-1000, -57, 50, 164, 3000]


def test_another_gamma() -> None:
    linear = Preprocessing(gamma=1.0)
    assert normalise(torch.tensor([53.5]), linear).item() == pytest.approx(0.5)
    assert (PAPER.spacing_mm, PAPER.window) == ((2.0, 1.5, 1.5), (96, 96, 96))
