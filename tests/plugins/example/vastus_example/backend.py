"""A backend for networks that are one straight line a class: `logit = slope * image + offset`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from engine.backends import Session, SessionOptions, check_device, check_precision
from engine.package import ModelPackage

NAME = "example-threshold"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class LineSession:
    """The lines of a network; both tensors are [C, 1, 1, 1]."""

    slopes: torch.Tensor
    offsets: torch.Tensor
    name: str = NAME
    precision: str = "fp32"
    device: torch.device = CPU
    batch: int = 1

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits [B, C, D, H, W] of windows [B, 1, D, H, W]."""
        return self.slopes * windows + self.offsets


@dataclass(frozen=True)
class LineBackend:
    """What the entry point leads to."""

    name: str = NAME
    requirements: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp32",)

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        return None if find_spec("onnx") else "the Python package onnx is not installed"

    def open(self, package: ModelPackage, options: SessionOptions) -> Session:
        """Read the lines from the weights of the package's only convolution."""
        import onnx
        from onnx.numpy_helper import to_array

        check_device(NAME, options.device)
        check_precision(NAME, options.precision, self.precisions)
        graph = onnx.load(str(package.onnx)).graph
        stored = {
            tensor.name: torch.from_numpy(to_array(tensor).reshape(-1, 1, 1, 1).copy()) for tensor in graph.initializer
        }
        return LineSession(stored["slopes"], stored["offsets"])


BACKEND = LineBackend()
