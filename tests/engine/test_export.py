from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine.backends import BACKENDS, open_session
from engine.backends import openvino as openvino_backend
from engine.export import INPUT, OPSET, OUTPUT, store_weights_as_fp16
from engine.package import ModelPackage

WINDOW = np.random.default_rng(5).random((1, 1, 32, 32, 32), dtype=np.float32)


def expected_logits(network: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(WINDOW)).numpy())


def test_the_file_keeps_the_contract(tiny_package: ModelPackage) -> None:
    model = onnx.load(str(tiny_package.onnx))
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET]
    shapes = {
        port.name: [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {INPUT: ["batch", 1, 32, 32, 32], OUTPUT: ["batch", 30, 32, 32, 32]}


@pytest.mark.parametrize("name", BACKENDS)
def test_every_runtime_gives_torchs_logits(
    name: str, tiny_package: ModelPackage, tiny_network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda core: False)
    session = open_session(name, tiny_package, 1)
    assert session.precision == "fp32"
    assert np.abs(session.run(WINDOW) - expected_logits(tiny_network)).max() < 2e-3


@pytest.mark.parametrize("name", BACKENDS)
def test_half_stored_weights_change_almost_nothing(
    name: str,
    tiny_package: ModelPackage,
    tiny_network: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda core: False)
    halved = Path(shutil.copy(tiny_package.onnx, tmp_path / "halved.onnx"))
    store_weights_as_fp16(halved)
    onnx.checker.check_model(str(halved))
    session = open_session(name, replace(tiny_package, onnx=halved), 1)
    large = sum(weight.numel() * 2 for weight in tiny_network.parameters() if weight.numel() >= 4096)
    assert tiny_package.onnx.stat().st_size - halved.stat().st_size > 0.9 * large
    assert session.precision == "fp32"
    assert np.abs(session.run(WINDOW) - expected_logits(tiny_network)).max() < 0.02


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.full((80, 80), 1e6, dtype=np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [1, 80])],
        [value("y", onnx.TensorProto.FLOAT, [1, 80])],
        [weight],
    )
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "wide.onnx"))
    with pytest.raises(OverflowError, match="weight w"):
        store_weights_as_fp16(tmp_path / "wide.onnx")
