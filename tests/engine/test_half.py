from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.half import HALF_OPERATORS, write_half
from engine.package import ModelPackage

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
Nodes = list[onnx.NodeProto]


def network(path: Path, nodes: Nodes, weights: dict[str, NDArray[np.float32]], width: int = 4) -> Path:
    ports = [helper.make_tensor_value_info(name, FLOAT, ["batch", width]) for name in ("image", "logits")]
    kept = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def answer(path: Path, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def value_types(path: Path) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False), strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def test_products_are_half_and_norms_are_single(tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    model = onnx.load(str(tiny_package.half_onnx), load_external_data=False)
    onnx.checker.check_model(str(tiny_package.half_onnx), full_check=True)
    types, operators = value_types(tiny_package.half_onnx), Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] > 20 and operators["InstanceNormalization"] > 20 and operators["LayerNormalization"] > 20
    for node in model.graph.node:
        if node.op_type != "Cast":
            floats = {types[name] for name in (*node.input, *node.output) if types.get(name) in (FLOAT, HALF)}
            assert floats == {HALF if node.op_type in HALF_OPERATORS else FLOAT}, node.name
    assert {types[value.name] for value in (*model.graph.input, *model.graph.output)} == {FLOAT}


def decomposed_norm(path: Path, eps: float) -> Path:
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["image", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "axes"], ["variance"], keepdims=1),
        helper.make_node("Add", ["variance", "eps"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["sd"]),
        helper.make_node("Div", ["centred", "sd"], ["normed"]),
        helper.make_node("MatMul", ["normed", "turn"], ["logits"]),
    ]
    weights = {"eps": np.array([eps], dtype=np.float32), "turn": np.eye(4, dtype=np.float32)}
    graph_weights = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    ports = [helper.make_tensor_value_info(name, FLOAT, ["batch", 4]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [*graph_weights, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_a_norm_in_many_operators_stays_single(tmp_path: Path) -> None:
    source = decomposed_norm(tmp_path / "norm.onnx", 1e-9)
    write_half(source, tmp_path / "half.onnx")
    flat, wide = np.full((1, 4), 0.3, np.float32), np.array([[-900.0, 500.0, 800.0, -400.0]], dtype=np.float32)
    for image in (flat, wide):
        assert np.abs(answer(tmp_path / "half.onnx", image) - answer(source, image)).max() < 2e-3
    types = value_types(tmp_path / "half.onnx")
    assert types["normed"] == FLOAT and types["turn.half"] == HALF


def test_a_number_that_float16_does_not_know_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["image", "tiny"], ["logits"])]
    source = network(tmp_path / "tiny.onnx", nodes, {"tiny": np.array([1e-9], dtype=np.float32)})
    with pytest.raises(ModelError, match="its weight tiny is beyond float16"):
        write_half(source, tmp_path / "half.onnx")


def test_stored_weights_are_taken_as_they_are(tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    single, half = (
        onnx.load(str(path), load_external_data=False).graph for path in (tiny_package.onnx, tiny_package.half_onnx)
    )

    def places(graph: onnx.GraphProto) -> dict[str, list[str]]:
        return {
            weight.name: [entry.value for entry in weight.external_data]
            for weight in graph.initializer
            if weight.data_location == TensorProto.EXTERNAL
        }

    assert places(single) == places(half) != {}
    stored = set(places(half))
    assert not [node.name for node in half.node if node.op_type == "Cast" and stored & set(node.input)]


def test_half_answers_as_single_does(tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    image = np.random.default_rng(2).random((2, 1, 32, 32, 32), dtype=np.float32)
    single, half = answer(tiny_package.onnx, image), answer(tiny_package.half_onnx, image)
    assert half.dtype == np.float32
    error = float(np.sqrt(np.mean((single - half) ** 2)) / single.std())
    assert 0 < error < 0.002


def test_a_copy_with_its_weights_stands_alone(tiny_package: ModelPackage, tmp_path: Path) -> None:
    assert tiny_package.half_onnx is not None
    write_half(tiny_package.onnx, tmp_path / "alone.onnx", embed=True)
    assert [path.name for path in tmp_path.iterdir()] == ["alone.onnx"]
    image = np.random.default_rng(3).random((1, 1, 32, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(answer(tmp_path / "alone.onnx", image), answer(tiny_package.half_onnx, image))


def test_one_value_may_be_needed_in_both_types_and_more_than_once(tmp_path: Path) -> None:
    weight = np.array([0.5, 1.0, 1.5, 2.0], dtype=np.float32)
    nodes = [
        helper.make_node("Mul", ["image", "w"], ["a"]),  # half
        helper.make_node("Exp", ["a"], ["b"]),  # single
        helper.make_node("Pow", ["a", "w"], ["c"]),  # single, and the weight once more
        helper.make_node("Add", ["b", "c"], ["d"]),  # half
        helper.make_node("Add", ["d", "b"], ["logits"]),  # half, and an end
    ]
    source = network(tmp_path / "a.onnx", nodes, {"w": weight})
    write_half(source, tmp_path / "b.onnx")
    onnx.checker.check_model(str(tmp_path / "b.onnx"), full_check=True)
    model = onnx.load(str(tmp_path / "b.onnx"))
    names = [name for node in model.graph.node for name in node.output]
    assert len(names) == len(set(names))
    assert {weight.name: weight.data_type for weight in model.graph.initializer} == {"w": FLOAT, "w.half": HALF}
    image = np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    np.testing.assert_allclose(answer(tmp_path / "b.onnx", image), answer(source, image), rtol=3e-3)


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    weight = np.array([1.0, 2.0, 3.0, 1e6], dtype=np.float32)
    source = network(tmp_path / "a.onnx", [helper.make_node("Mul", ["image", "w"], ["logits"])], {"w": weight})
    with pytest.raises(ModelError, match="weight w is beyond float16"):
        write_half(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_what_is_no_network_or_lacks_its_weights_is_refused(tiny_package: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be read"):
        write_half(tmp_path / "a.onnx", tmp_path / "b.onnx")
    (tmp_path / "c.onnx").write_bytes(tiny_package.onnx.read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        write_half(tmp_path / "c.onnx", tmp_path / "d.onnx", embed=True)


def test_subgraphs_are_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    branch = helper.make_graph([helper.make_node("Neg", ["image"], ["x"])], "b", [], [value("x", FLOAT, ["batch", 4])])
    nodes = [helper.make_node("If", ["flag"], ["logits"], then_branch=branch, else_branch=branch)]
    ports = [value(name, FLOAT, ["batch", 4]) for name in ("image", "logits")]
    flag = numpy_helper.from_array(np.array(True), "flag")
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], [flag])), str(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match="subgraphs"):
        write_half(tmp_path / "a.onnx", tmp_path / "b.onnx")
