"""From a trained network to the ONNX file that the backends run.

The contract: opset 20, input `image` [B, 1, D, H, W] float32, output `logits` [B, C, D, H, W] float32, B free.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
INPUT = "image"
OUTPUT = "logits"
LARGE_WEIGHT_ELEMENTS = 4096  # smaller weights (norms, biases) cost little and stay exact
FLOAT16_LIMIT = 65504.0


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


def store_weights_as_fp16(path: Path) -> None:
    """Halve an ONNX file in place: large float32 weights are stored as float16 and cast to float32 when used.

    Only the storage changes: runtimes fold the casts while loading and compute with float32 weights, each rounded
    to the nearest float16.

    Raises:
        OverflowError: a weight is beyond float16.
    """
    model = onnx.load(str(path))
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < LARGE_WEIGHT_ELEMENTS:
            continue
        if float(np.abs(values).max()) > FLOAT16_LIMIT:
            raise OverflowError(f"weight {weight.name} is beyond float16")
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
