"""From a trained network to the files of its package: the weights once, and the ONNX graphs that refer to them.

The contract: opset 20, input `image` [B, 1, D, H, W] float32, output `logits` [B, C, D, H, W] float32, B free. Weights
are float16 in a safetensors file under the names of the network's state dict, so that torch and MONAI load them; the
graphs hold none of the large ones but the places where they lie in that file (ONNX external data). There are two:

- `model.onnx` computes in float32 and casts the weights to it. Runtimes fold those casts while loading.
- `model_fp16.onnx` computes in float16 with norms in float32, and takes the weights as they are (engine/half.py).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.errors import ModelError
from engine.half import write_half

OPSET = 20
INPUT = "image"
OUTPUT = "logits"
ONNX_NAME, HALF_ONNX_NAME, WEIGHTS_NAME = "model.onnx", "model_fp16.onnx", "model.safetensors"
LARGE_WEIGHT_ELEMENTS = 4096  # smaller ones stay in the graph: they weigh nothing there
WEIGHTS_DIGEST = "weights_sha256"
"""Key of the graph's metadata that binds it to its weights, so that the digest of the graph stands for both."""
_LENGTH_BYTES = 8  # safetensors: the header's length, little endian, then the header in JSON, then the tensors

Halves = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class _Stored:
    """One tensor of a safetensors file: its values, and its place in the file in bytes."""

    name: str
    values: Halves
    offset: int
    length: int


def export_models(network: torch.nn.Module, folder: Path, window: tuple[int, int, int]) -> None:
    """Write a network: `model.safetensors`, `model.onnx`, `model_fp16.onnx`. Its weights are rounded to float16.

    Args:
        network: takes float32 [B, 1, *window], gives logits of the same grid; it is set to evaluation.
        folder: where to; made where it is missing.
        window: voxels of one input, axes (z, y, x).

    Raises:
        ModelError: a weight is beyond float16, or no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(network, folder / WEIGHTS_NAME)
    load_weights(network, folder / WEIGHTS_NAME)
    export_onnx(network, folder / ONNX_NAME, window)
    refer_to_weights(folder / ONNX_NAME, folder / WEIGHTS_NAME)
    write_half(folder / ONNX_NAME, folder / HALF_ONNX_NAME)
    onnx.checker.check_model(str(folder / HALF_ONNX_NAME))


def write_weights(network: torch.nn.Module, path: Path) -> None:
    """Write a network's state dict as float16 safetensors.

    Raises:
        ModelError: a weight is beyond float16, or no number.
    """
    halves = {name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in _floats(network)}
    for name, weight in halves.items():
        if not bool(torch.isfinite(weight).all()):
            reason = f"its weight {name} is beyond float16, or no number"
            raise ModelError(f"network for {path}", reason, "Take another checkpoint, or train with clipped gradients")
    part = path.with_suffix(".part")
    save_file(halves, part, metadata={"format": "pt"})
    part.replace(path)


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Give a network the weights of a safetensors file, in the network's own precision.

    Raises:
        ModelError: the file is damaged, or its weights are another network's.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"file {path}", f"it cannot be read: {error}", "Copy the whole package again") from error
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        remedy = "Name the sizes that it was trained with"
        raise ModelError(f"file {path}", f"it holds the weights of another network: {words}", remedy) from error


def export_onnx(network: torch.nn.Module, path: Path, window: tuple[int, int, int]) -> None:
    """Write `network` as ONNX with a free batch size.

    Args:
        network: takes float32 [B, 1, *window], gives logits of the same grid; it is set to evaluation.
        path: the file to write; one file, weights inside.
        window: voxels of one input, axes (z, y, x).
    """
    network.eval()
    two_windows = torch.zeros(2, 1, *window)  # the exporter specialises a batch of one
    batch = torch.export.Dim("batch", min=1, max=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # torch warns of its own code
        torch.onnx.export(
            network,
            (two_windows,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(path))
    _forget_origins(model)
    _write_model(model, path)


def refer_to_weights(path: Path, weights: Path) -> None:
    """Take the large weights out of an ONNX file, in place: it then refers to where they lie in a safetensors file.

    The exporter turns matrices; such a one is turned back by a node of its own.

    Args:
        path: the ONNX file; its large weights are float32 and exactly those of `weights`.
        weights: a float16 safetensors file in the same folder.

    Raises:
        ModelError: a large weight is not in the safetensors file.
    """
    model = onnx.load(str(path))
    stored = {tensor.name: tensor for tensor in _stored_tensors(weights)}
    nodes: list[onnx.NodeProto] = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= LARGE_WEIGHT_ELEMENTS:
            found, turned = _find(values, weight.name, stored)
            if found is None:
                reason = f"its weight {weight.name} of {values.shape} is not in {weights.name}"
                raise ModelError(f"file {path}", reason, "Export both from the same network")
            nodes.extend(_loading(weight.name, turned))
            _refer(weight, found, weights.name)
    nodes.extend(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with weights.open("rb") as file:
        helper.set_model_props(model, {WEIGHTS_DIGEST: hashlib.file_digest(file, "sha256").hexdigest()})
    _write_model(model, path)


def _floats(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in network.state_dict().items():
        if not weight.is_floating_point():
            raise ModelError("network", f"its {name} is no floating-point number", "Export a network without counters")
        yield name, weight


def _forget_origins(model: onnx.ModelProto) -> None:
    """Remove the lines of code that every node came from: paths of the machine that exported it."""
    graph = model.graph
    for entry in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.ClearField("doc_string")


def _write_model(model: onnx.ModelProto, path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _stored_tensors(path: Path) -> Iterator[_Stored]:
    data = path.read_bytes()
    begin = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header: Mapping[str, dict[str, list[int]]] = json.loads(data[_LENGTH_BYTES:begin])
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            values = np.frombuffer(data, np.float16, (last - first) // 2, begin + first).reshape(entry["shape"])
            yield _Stored(name, values, begin + first, last - first)


def _find(values: NDArray[np.float32], name: str, stored: Mapping[str, _Stored]) -> tuple[_Stored | None, bool]:
    """The stored tensor with exactly these values, and whether it must be turned: that of its name, otherwise any."""
    candidates = [stored[name]] if name in stored else list(stored.values())
    for turned, wanted in enumerate([values, values.T] if values.ndim == 2 else [values]):
        for tensor in candidates:
            if tensor.values.shape == wanted.shape and np.array_equal(tensor.values.astype(np.float32), wanted):
                return tensor, bool(turned)
    return None, False


def _refer(weight: onnx.TensorProto, tensor: _Stored, location: str) -> None:
    """Make a weight of the graph refer to a stored tensor."""
    name = f"{weight.name}.stored"
    weight.Clear()
    weight.name, weight.data_type = name, TensorProto.FLOAT16
    weight.dims.extend(tensor.values.shape)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", tensor.offset), ("length", tensor.length)):
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(value)


def _loading(name: str, turned: bool) -> Iterator[onnx.NodeProto]:
    """The nodes that make the float32 weight of that name from the stored tensor."""
    source = f"{name}.stored"
    if turned:
        yield helper.make_node("Transpose", [source], [f"{name}.turned"], perm=[1, 0])
        source = f"{name}.turned"
    yield helper.make_node("Cast", [source], [name], to=TensorProto.FLOAT)
