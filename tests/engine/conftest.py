"""What the engine's tests share: tiny models and simple phantoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.export import export_onnx
from engine.labels import thigh29
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelCard, ModelPackage, write_package
from engine.preprocessing import Preprocessing
from engine.volume import Grid, Volume

TINY = UnetrShape(feature_size=2, hidden_size=24, mlp_dim=48, num_heads=2)
TINY_PREPROCESSING = Preprocessing(spacing_mm=(6.0, 5.0, 5.0), window=(32, 32, 32))

Legs = Callable[[Grid], Volume]


@pytest.fixture(scope="session")
def tiny_network() -> torch.nn.Module:
    """A UNETR with random weights, as small as it gets."""
    torch.manual_seed(1)
    return build_unetr(thigh29().class_count, **asdict(TINY), window=TINY_PREPROCESSING.window).eval()


@pytest.fixture(scope="session")
def tiny_package(tiny_network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """The package of that network."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    export_onnx(tiny_network, folder / "exported.onnx", TINY_PREPROCESSING.window)
    card = ModelCard(
        name="tiny",
        version="0.0.1",
        label_set=thigh29(),
        preprocessing=TINY_PREPROCESSING,
        training_statement="Random weights, for tests only.",
        training_phrase="untrained",
        demonstration=True,
        network=asdict(TINY),
    )
    return write_package(folder / "package", folder / "exported.onnx", card)


@pytest.fixture(scope="session")
def legs() -> Legs:
    """Draws two legs along z on any grid: fat, muscle and femora; the muscle is larger on the patient's left."""

    def draw(grid: Grid) -> Volume:
        index = np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64)
        x, y, _ = np.moveaxis(grid.to_patient(index), -1, 0)
        hu = np.full(grid.shape, -1000, dtype=np.int16)
        for middle_mm, muscle_mm in ((-90.0, 35.0), (90.0, 55.0)):
            radius = np.hypot(x - middle_mm, y)
            hu[radius < 75] = -100
            hu[radius < muscle_mm] = 55
            hu[radius < 17] = 1100
            hu[radius < 7] = -30
        return Volume(hu, grid)

    return draw
