"""The same network in float16: an ONNX graph in float32 rewritten so that its types say where it computes in which.

TensorRT takes every type from the graph since version 11. Here operators of a table compute in float16, all the others
in float32 as before, norms among them: in float16 those go wrong in ways that only the numbers show
(NVIDIA/TensorRT#4723, #2691). Casts stand between the two, and the ends of the network stay float32. Stored float16
weights are taken as they are, without their casts, so that both graphs refer to one file of weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from engine.errors import ModelError

SINGLE, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "MaxPool", "AveragePool"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Clip", "Where", "Dropout"}
_ACTIVATIONS = {
    "Softmax",
    "Gelu",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "HardSigmoid",
    "HardSwish",
}
_MOVES = {
    "Concat",
    "Split",
    "Slice",
    "Gather",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Expand",
    "Tile",
    "Pad",
    "Identity",
    "DepthToSpace",
}
HALF_OPERATORS = frozenset(_PRODUCTS | _ARITHMETIC | _ACTIVATIONS | _MOVES)
"""Operators that compute in float16; every other one, as norms, powers, sums and interpolation, stays in float32."""
_STATISTICS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Pow", "Sqrt", "Reciprocal", "Exp", "Log"}
)
"""What norms are made of where they are not one operator; sums and products with these stay in float32, too."""
_ENDINGS = {SINGLE: "single", HALF: "half"}
_REMEDY = "Give the package models/model_fp16.onnx, typed by its maker, or choose another backend"


def write_half(source: Path, target: Path, *, embed: bool = False) -> None:
    """Write a network of float32 again, so that it computes in float16.

    Args:
        source: the ONNX file; its input and output are float32.
        target: the file to write: beside `source`, as it refers to the same weights; with `embed` anywhere.
        embed: put the weights that lie beside `source` into the file.

    Raises:
        ModelError: the source is no ONNX file or lacks its weights, a weight is beyond float16, or the network has
            parts that cannot be typed: functions, subgraphs, values of unknown type.
    """
    try:
        model = onnx.load(str(source), load_external_data=False)
        typed = _Typing(model, source).typed()
        if embed:
            load_external_data_for_model(typed, str(source.parent))
    except (DecodeError, OSError, onnx.checker.ValidationError) as error:
        words = " ".join(str(error).split())[:200]
        raise ModelError(f"file {source}", f"it cannot be read: {words}", "Copy the whole package again") from error
    part = target.with_suffix(".part")
    part.write_bytes(typed.SerializeToString(deterministic=True))
    part.replace(target)


class _Typing:
    """One graph on its way from float32 to float16: which values are there in which of the two."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._model, self._path = model, path
        if model.functions or any(map(_has_subgraph, model.graph.node)):
            raise ModelError(f"file {path}", "a network with functions or subgraphs cannot be typed", _REMEDY)
        self._types = _element_types(model)
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._ends = {value.name for value in model.graph.output}
        self._kept: dict[str, TensorProto] = {}
        self._nodes: list[NodeProto] = []
        self._precise: set[str] = set()
        self._forms: dict[tuple[str, int], str] = {
            (value.name, SINGLE): value.name for value in model.graph.input if value.name not in self._weights
        }

    def typed(self) -> onnx.ModelProto:
        """The model in float16."""
        for node in self._model.graph.node:
            if not self._is_dropped(node):
                self._take(node)
        typed = onnx.ModelProto()
        typed.CopyFrom(self._model)
        for field in ("node", "initializer", "value_info"):
            typed.graph.ClearField(field)
        typed.graph.node.extend(self._nodes)
        typed.graph.initializer.extend(self._kept.values())
        return typed

    def _is_dropped(self, node: NodeProto) -> bool:
        """Whether it only makes float32 of what is stored in float16; the stored value then stands for its output."""
        if node.op_type != "Cast" or self._type(node.input[0]) != HALF or self._type(node.output[0]) != SINGLE:
            return False
        if node.output[0] in self._ends:
            return False
        self._forms[node.output[0], HALF] = self._as_it_is(node.input[0])
        return True

    def _take(self, node: NodeProto) -> None:
        form = self._form_of(node)
        taken = NodeProto()
        taken.CopyFrom(node)
        for place, name in enumerate(node.input):
            if name:
                taken.input[place] = self._in(name, form) if self._type(name) == SINGLE else self._as_it_is(name)
        made: list[NodeProto] = []
        for place, name in enumerate(node.output):
            if not name or self._type(name) != SINGLE:
                continue
            self._forms[name, form] = name
            if form == HALF and name in self._ends:
                taken.output[place] = f"{name}.{_ENDINGS[HALF]}"
                self._forms[name, HALF], self._forms[name, SINGLE] = taken.output[place], name
                made.append(_cast(taken.output[place], name, SINGLE))
        self._nodes.extend((taken, *made))

    def _form_of(self, node: NodeProto) -> int:
        """The type that a node computes in; sums and products within a norm are of float32 as the norm is."""
        squared = node.op_type == "Mul" and len(set(node.input)) == 1
        carries = node.op_type in _ARITHMETIC | _MOVES and not self._precise.isdisjoint(node.input)
        if node.op_type in _STATISTICS or squared or carries:
            self._precise.update(node.output)
            return SINGLE
        return HALF if node.op_type in HALF_OPERATORS and node.domain in ("", "ai.onnx") else SINGLE

    def _in(self, name: str, form: int) -> str:
        """The name under which a float32 value of the source is there in one of the two types."""
        if (name, form) not in self._forms:
            self._forms[name, form] = (
                self._weight_in(name, form) if name in self._weights else self._cast_to(name, form)
            )
        return self._forms[name, form]

    def _cast_to(self, name: str, form: int) -> str:
        other = self._forms[name, HALF if form == SINGLE else SINGLE]
        cast = f"{name}.{_ENDINGS[form]}"
        self._nodes.append(_cast(other, cast, form))
        return cast

    def _weight_in(self, name: str, form: int) -> str:
        if form == SINGLE:
            return self._as_it_is(name)
        with np.errstate(over="ignore"):
            exact = numpy_helper.to_array(self._weights[name], str(self._path.parent))
            values = exact.astype(np.float16)
        vanished = values.size == 1 and bool((exact != 0).all() and (values == 0).all())
        if not np.isfinite(values).all() or vanished:
            reason = f"its weight {name} is beyond float16, or no number"
            raise ModelError(f"file {self._path}", reason, _REMEDY)
        half = f"{name}.{_ENDINGS[HALF]}"
        self._kept[half] = numpy_helper.from_array(values, half)
        return half

    def _as_it_is(self, name: str) -> str:
        if name in self._weights:
            self._kept[name] = self._weights[name]
        return name

    def _type(self, name: str) -> int:
        if name not in self._types:
            raise ModelError(f"file {self._path}", f"the type of its value {name} is unknown", _REMEDY)
        return self._types[name]


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return values | {weight.name: weight.data_type for weight in graph.initializer}


def _has_subgraph(node: NodeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attribute)


def _cast(source: str, target: str, form: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=form)
