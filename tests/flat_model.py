"""A second model for tests: it sees one slice at a time, tells three tissues by their attenuation, and knows no sides.

It shares nothing with the thigh model: not its label set, its spacing, its windows or the names of its ends.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import ModelCard, write_package
from engine.contract import Contract
from engine.gate import ask, store
from engine.labels import Coding, LabelSet, Structure
from engine.package import README, ModelPackage
from engine.preprocessing import Preprocessing, normalise

NAME = "tissues"
WINDOW = (1, 48, 48)
PREPROCESSING = Preprocessing(hu_low=-1000.0, hu_high=1000.0, gamma=1.0, spacing_mm=(6.0, 5.0, 5.0), window=WINDOW)
BORDERS_HU = (-300.0, -30.0, 300.0)
"""Where fat, muscle and bone begin."""
STEEPNESS = 400.0


def _structure(value: int, key: str, fma: str) -> Structure:
    own = Coding("99TISSUES", key.upper(), f"{key.capitalize()} of the body")
    return Structure(value, key, key.capitalize(), "tissue", False, (own, Coding("FMA", fma, f"{key.capitalize()}")))


TISSUES = LabelSet(
    "tissues3",
    (_structure(1, "fat", "FMA20110"), _structure(2, "muscle", "FMA14069"), _structure(3, "bone", "FMA5018")),
    title="Tissues",
    least_volume_ml=1.0,
)

CARD = ModelCard(
    name=NAME,
    version="2.1.0",
    label_set=TISSUES,
    preprocessing=PREPROCESSING,
    intended_use="For tests only",
    training_statement="A rule of Hounsfield units as a convolution; nothing was trained.",
    training_phrase="a rule for tests",
    attribution="",
    network=None,
    task="Tells three tissues apart",
    contract=Contract(input="slice", output="scores", dimensions=2, opset=18),
    expects="anything",
)


def network() -> torch.nn.Conv2d:
    """Logits that cross where one tissue ends and the next begins: the network itself, in torch."""
    borders = normalise(torch.tensor(BORDERS_HU), PREPROCESSING)
    convolution = torch.nn.Conv2d(1, 4, 1)
    with torch.no_grad():
        convolution.weight.copy_(STEEPNESS * torch.arange(4.0)[:, None, None, None])
        convolution.get_parameter("bias").copy_(-STEEPNESS * torch.cat([torch.zeros(1), borders.cumsum(0)]))
    return convolution


def write_onnx(path: Path, opset: int = 18, names: tuple[str, str] = ("slice", "scores"), size: int = 48) -> None:
    """The same network as an ONNX file."""
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in network().named_parameters()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, size, size])
        for name, channels in zip(names, (1, 4), strict=True)
    ]
    node = helper.make_node("Conv", [names[0], "weight", "bias"], [names[1]])
    graph = helper.make_graph([node], "tissues", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_models(folder: Path) -> Path:
    """Network and windows."""
    folder.mkdir(parents=True)
    write_onnx(folder / "model.onnx")
    grey = np.random.default_rng(4).random((3, 1, *WINDOW)).astype(np.float32)
    store(ask(network(), grey), folder / "windows.safetensors")
    return folder


def write_flat_package(folder: Path, **changes: Any) -> ModelPackage:
    """The whole package; `changes` are fields of its card."""
    models = write_models(folder.parent / f"{folder.name}-files")
    return write_package(
        folder, models, replace(CARD, **changes), {README: "# Tissues\n\nTells three tissues apart.\n"}
    )
