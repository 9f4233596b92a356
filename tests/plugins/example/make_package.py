"""Writes the model package of the example: `python make_package.py`, before the distribution is built."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import ModelCard, write_package
from engine.gate import ask, store
from engine.labels import Coding, LabelSet, Structure
from engine.preprocessing import Preprocessing

TARGET = Path(__file__).parent / "vastus_example" / "package"
SLOPES, OFFSETS = (0.0, 40.0, 80.0), (0.0, -12.0, -42.0)  # soft tissue above -20 HU, bone above 250 HU
MODEL = Preprocessing(hu_low=-200.0, hu_high=400.0, gamma=1.0, spacing_mm=(6.0, 6.0, 6.0), window=(16, 16, 16))
TISSUES = LabelSet(
    "example-tissues",
    (
        Structure(1, "soft_tissue", "Soft tissue", "soft", False, (Coding("SCT", "87784001", "Soft tissue"),)),
        Structure(2, "bone", "Bone", "bone", False, (Coding("SCT", "272673000", "Bone"),)),
    ),
    title="Tissues",
)
CARD = ModelCard(
    name="example-tissues",
    version="3.0.0",
    label_set=TISSUES,
    preprocessing=MODEL,
    intended_use="An example, not for use",
    training_statement="Two thresholds of attenuation; nothing was trained.",
    training_phrase="two thresholds",
    attribution="",
    network=None,
    task="Soft tissue and bone by attenuation",
)


def network() -> onnx.ModelProto:
    """One convolution of one voxel: `logit = slope * image + offset` for each class."""
    slopes = numpy_helper.from_array(np.array(SLOPES, np.float32).reshape(3, 1, 1, 1, 1), "slopes")
    offsets = numpy_helper.from_array(np.array(OFFSETS, np.float32), "offsets")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *MODEL.window])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, *MODEL.window])
    node = helper.make_node("Conv", ["image", "slopes", "offsets"], ["logits"])
    graph = helper.make_graph([node], "lines", [image], [logits], [slopes, offsets])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class Lines(torch.nn.Module):
    """The same for torch: its answers are what every backend is held against."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of windows."""
        slopes, offsets = (torch.tensor(values).reshape(1, 3, 1, 1, 1) for values in (SLOPES, OFFSETS))
        return slopes * image + offsets


def make() -> None:
    """Write the package; a former one is replaced."""
    windows = np.random.default_rng(1).integers(0, 256, (2, 1, *MODEL.window)).astype(np.float32) / np.float32(255)
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        onnx.save(network(), str(models / "model.onnx"))
        store(ask(Lines(), windows), models / "windows.safetensors")
        write_package(TARGET, models, CARD)


if __name__ == "__main__":
    make()
