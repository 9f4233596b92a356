"""The signature of an ONNX file against what its package says of it: seen before a backend loads the network."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, ValueInfoProto

from engine.contract import Contract
from engine.errors import ModelError

_OWN_OPERATORS = ("", "ai.onnx")
_REMEDY = "Export the network as the package says, or correct the package"


def check_signature(path: Path, contract: Contract, window: tuple[int, int, int], class_count: int) -> None:
    """Refuse a network with another signature; weights that lie beside the file are not read.

    Args:
        path: the ONNX file.
        contract: the names, the dimensions and the opset that it should have.
        window: voxels of one input, axes (z, y, x).
        class_count: channels of the output.

    Raises:
        ModelError: the file is no ONNX, or its network is not of this signature.
    """
    model = _read(path)
    found = {entry.domain: entry.version for entry in model.opset_import}
    opset = next((found[domain] for domain in _OWN_OPERATORS if domain in found), 0)
    if opset != contract.opset:
        raise ModelError(f"file {path}", f"its opset is {opset}, and should be {contract.opset}", _REMEDY)
    stored = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    extent = window if contract.dimensions == 3 else window[1:]
    _check("input", inputs, contract.input, (1, *extent), path)
    _check("output", list(model.graph.output), contract.output, (class_count, *extent), path)


def external_files(path: Path) -> frozenset[str]:
    """The files beside an ONNX file in which its weights lie, by name.

    Raises:
        ModelError: the file is no ONNX, or refers to a place outside of its own folder.
    """
    model = _read(path)
    tensors = (weight for weight in model.graph.initializer if weight.data_location == TensorProto.EXTERNAL)
    places = {entry.value for weight in tensors for entry in weight.external_data if entry.key == "location"}
    for place in places:
        if not place or place != PurePosixPath(place).name or place in (".", ".."):
            reason = f"its weights lie in {place!r}, outside of the folder that it lies in"
            raise ModelError(f"file {path}", reason, "Put them beside it, and write the package anew")
    return frozenset(places)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(f"file {path}", "it is no ONNX file", "Copy the whole package again") from error
    if not model.graph.node:
        raise ModelError(f"file {path}", "it holds no network", "Copy the whole package again")
    return model


def _check(kind: str, values: list[ValueInfoProto], name: str, sizes: tuple[int, ...], path: Path) -> None:
    """One value of this name, float32, with a batch size of its own choice and then these sizes."""
    names = [value.name for value in values]
    if names != [name]:
        raise ModelError(f"file {path}", f"its {kind}s are {names}, and should be {name} alone", _REMEDY)
    tensor = values[0].type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        kind_found = TensorProto.DataType.Name(tensor.elem_type)
        raise ModelError(f"file {path}", f"its {kind} {name} is {kind_found}, and should be FLOAT", _REMEDY)
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    fits = len(shape) == len(sizes) + 1 and all(
        found in (None, size) for found, size in zip(shape[1:], sizes, strict=True)
    )
    if not fits or shape[0] is not None:
        wanted = " x ".join(("batch", *map(str, sizes)))
        told = " x ".join("free" if size is None else str(size) for size in shape)
        raise ModelError(f"file {path}", f"its {kind} {name} is {told}, and should be {wanted}", _REMEDY)
