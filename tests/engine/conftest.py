"""What the engine's tests share: tiny models and simple phantoms."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.bundle import ModelCard, write_package
from engine.export import WEIGHTS_NAME, export_models, load_weights
from engine.labels import thigh29
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelPackage
from engine.preprocessing import Preprocessing
from engine.volume import Grid, Volume

TINY = UnetrShape(feature_size=2, hidden_size=24, mlp_dim=48, num_heads=2)
TINY_PREPROCESSING = Preprocessing(spacing_mm=(6.0, 5.0, 5.0), window=(32, 32, 32))

Legs = Callable[[Grid], Volume]


@pytest.fixture(scope="session")
def tiny_network() -> torch.nn.Module:
    """A UNETR with random weights, as small as it gets."""
    torch.manual_seed(1)
    return build_unetr(thigh29().class_count, TINY, TINY_PREPROCESSING.window).eval()


@pytest.fixture(scope="session")
def tiny_models(tiny_network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of that network; its weights are rounded with them. One process exports it for all test processes."""
    whole: Path = tmp_path_factory.mktemp("tiny") / "models"
    base: Path = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-network"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            export_models(tiny_network, whole, TINY_PREPROCESSING.window)
            shutil.copytree(whole, shared.with_suffix(".part"))
            shared.with_suffix(".part").rename(shared)
            return whole
    load_weights(tiny_network, shared / WEIGHTS_NAME)
    shutil.copytree(shared, whole)
    return whole


@pytest.fixture(scope="session")
def tiny_card() -> ModelCard:
    """What is said of it."""
    return ModelCard(
        name="tiny",
        version="0.0.1",
        label_set=thigh29(),
        preprocessing=TINY_PREPROCESSING,
        intended_use="For tests only",
        training_statement="Random weights, for tests only.",
        training_phrase="untrained",
        attribution="",
        network=TINY,
    )


@pytest.fixture(scope="session")
def tiny_package(tiny_models: Path, tiny_card: ModelCard) -> ModelPackage:
    """The package of that network."""
    return write_package(tiny_models.parent / "package", tiny_models, tiny_card)


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
