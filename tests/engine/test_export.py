from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from engine.backends import SessionOptions, open_session
from engine.errors import ModelError
from engine.export import (
    HALF_ONNX_NAME,
    INPUT,
    ONNX_NAME,
    OPSET,
    OUTPUT,
    WEIGHTS_DIGEST,
    WEIGHTS_NAME,
    export_models,
    load_weights,
    refer_to_weights,
    write_weights,
)
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelPackage, sha256_of

WINDOW = np.random.default_rng(5).random((1, 1, 32, 32, 32), dtype=np.float32)


def expected_logits(network: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(WINDOW)).numpy())


def graphs_of(package: ModelPackage) -> tuple[Path, Path]:
    assert package.half_onnx is not None
    return package.onnx, package.half_onnx


@pytest.mark.parametrize("which", [0, 1], ids=[ONNX_NAME, HALF_ONNX_NAME])
def test_the_file_keeps_the_contract(which: int, tiny_package: ModelPackage) -> None:
    model = onnx.load(str(graphs_of(tiny_package)[which]))
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET]
    shapes = {
        port.name: [axis.dim_param or axis.dim_value for axis in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {INPUT: ["batch", 1, 32, 32, 32], OUTPUT: ["batch", 30, 32, 32, 32]}


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_every_runtime_gives_torchs_logits(
    name: str, tiny_package: ModelPackage, tiny_network: torch.nn.Module
) -> None:
    session = open_session(name, tiny_package, SessionOptions(1, "fp32"))
    assert session.precision == "fp32"
    assert np.abs(session.run(torch.from_numpy(WINDOW)).numpy() - expected_logits(tiny_network)).max() < 2e-3


def test_the_large_weights_lie_in_the_weights_file_alone(
    tiny_package: ModelPackage, tiny_network: torch.nn.Module
) -> None:
    model = onnx.load(str(tiny_package.onnx), load_external_data=False)
    outside = [weight for weight in model.graph.initializer if weight.data_location == onnx.TensorProto.EXTERNAL]
    large = [weight for weight in tiny_network.parameters() if weight.numel() >= 4096]
    assert len(outside) == len(large) > 0
    assert {entry.value for weight in outside for entry in weight.external_data if entry.key == "location"} == {
        WEIGHTS_NAME
    }
    inside = sum(weight.ByteSize() for weight in model.graph.initializer)
    assert inside < 4 * sum(weight.numel() for weight in tiny_network.parameters()) - 4 * sum(map(torch.numel, large))


def test_the_graphs_name_the_digest_of_their_weights(tiny_package: ModelPackage) -> None:
    assert tiny_package.weights is not None
    for path in graphs_of(tiny_package):
        model = onnx.load(str(path), load_external_data=False)
        told = {entry.key: entry.value for entry in model.metadata_props}
        assert told[WEIGHTS_DIGEST] == sha256_of(tiny_package.weights)


def test_the_graphs_tell_nothing_of_the_machine_that_made_them(tiny_package: ModelPackage) -> None:
    for path in graphs_of(tiny_package):
        content = path.read_bytes()
        assert b".py" not in content and str(Path(torch.__file__).parent).encode() not in content


def test_the_weights_are_halves_under_the_names_of_the_state_dict(
    tiny_package: ModelPackage, tiny_network: torch.nn.Module
) -> None:
    assert tiny_package.weights is not None
    kept = load_file(tiny_package.weights)
    assert {name: weight.shape for name, weight in kept.items()} == {
        name: weight.shape for name, weight in tiny_network.state_dict().items()
    }
    assert {weight.dtype for weight in kept.values()} == {torch.float16}
    fresh = build_unetr(30, UnetrShape(**tiny_package.network), tiny_package.preprocessing.window)
    load_weights(fresh, tiny_package.weights)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(fresh.parameters(), tiny_network.parameters(), strict=True)
    )


def test_the_same_network_gives_the_same_files(
    tiny_package: ModelPackage, tiny_network: torch.nn.Module, tmp_path: Path
) -> None:
    export_models(tiny_network, tmp_path, tiny_package.preprocessing.window)
    assert sha256_of(tmp_path / ONNX_NAME) == sha256_of(tiny_package.onnx)
    assert sha256_of(tmp_path / HALF_ONNX_NAME) == sha256_of(graphs_of(tiny_package)[1])
    assert tiny_package.weights is not None
    assert sha256_of(tmp_path / WEIGHTS_NAME) == sha256_of(tiny_package.weights)


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_weights_beyond_float16_are_refused(tmp_path: Path, value: float) -> None:
    network = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(network.weight, value)
    with pytest.raises(ModelError, match="weight is beyond float16"):
        write_weights(network, tmp_path / WEIGHTS_NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_counter_among_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="num_batches_tracked"):
        write_weights(torch.nn.BatchNorm3d(2), tmp_path / WEIGHTS_NAME)


def test_weights_of_another_network_or_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS_NAME
    write_weights(torch.nn.Linear(3, 2), path)
    with pytest.raises(ModelError, match="another network"):
        load_weights(torch.nn.Linear(4, 2), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=WEIGHTS_NAME):
        load_weights(torch.nn.Linear(3, 2), path)


def test_a_graph_with_a_weight_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((80, 80), dtype=np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    ports = [value(name, onnx.TensorProto.FLOAT, [1, 80]) for name in "xy"]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / ONNX_NAME))
    write_weights(torch.nn.Linear(80, 80), tmp_path / WEIGHTS_NAME)
    with pytest.raises(ModelError, match=r"its weight w .* is not in"):
        refer_to_weights(tmp_path / ONNX_NAME, tmp_path / WEIGHTS_NAME)


def test_a_graph_that_is_no_network_replaces_none(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    ports = [value(name, onnx.TensorProto.FLOAT, [1, 80]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abacus", ["x"], ["y"])], "g", ports[:1], ports[1:])
    path = tmp_path / ONNX_NAME
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    before = path.read_bytes()
    write_weights(torch.nn.Linear(80, 80), tmp_path / WEIGHTS_NAME)
    with pytest.raises(onnx.checker.ValidationError, match="Abacus"):
        refer_to_weights(path, tmp_path / WEIGHTS_NAME)
    assert path.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {ONNX_NAME, WEIGHTS_NAME}
