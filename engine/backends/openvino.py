"""OpenVINO on the CPU: the faster engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import torch

from engine.backends import AUTO, SessionOptions, check_classes, check_precision
from engine.errors import BackendError
from engine.package import ModelPackage

NAME = "openvino"
DEVICE = "CPU"
CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # without these bf16 is emulated, and slower than fp32
HINTS = {"fp32": "f32", "bf16": "bf16"}
PRECISIONS = {hint: precision for precision, hint in HINTS.items()}


class OpenVinoSession:
    """One compiled network with a static batch of one window."""

    name = NAME
    device = torch.device("cpu")
    batch = 1

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision: str = PRECISIONS.get(chosen, chosen)
        self._request = compiled.create_infer_request()

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        try:
            result = self._request.infer([windows.contiguous().numpy()], share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(
                f"backend {NAME}", f"a window failed: {error}", "Check the memory of the host"
            ) from error
        return torch.from_numpy(np.asarray(result[0], dtype=np.float32))


def open_session(package: ModelPackage, options: SessionOptions) -> OpenVinoSession:
    """Compile the network for the CPU, of its own choice in bf16 where the CPU computes it natively, else in fp32.

    Raises:
        BackendError: the network cannot be read or compiled, or the precision is not to be had here.
    """
    try:
        core = openvino.Core()
        native = ("bf16", "fp32") if has_bf16(core) else ("fp32",)
        check_precision(NAME, options.precision, native)
        precision = native[0] if options.precision == AUTO else options.precision
        model = core.read_model(str(package.onnx))
        model.reshape([1, 1, *package.preprocessing.window])
        check_classes(package, model.output(0).shape[1])
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": options.threads,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
        }
        return OpenVinoSession(core.compile_model(model, DEVICE, hints))
    except RuntimeError as error:
        reason = f"it could not load the network of {package.name}: {error}"
        raise BackendError(f"backend {NAME}", reason, "Check the model package, or choose another backend") from error


def has_bf16(core: openvino.Core) -> bool:
    """Whether OpenVINO offers bf16 on this CPU and the CPU has instructions for it."""
    if "BF16" not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES") or not CPU_FLAGS.is_file():
        return False
    return not BF16_FLAGS.isdisjoint(CPU_FLAGS.read_text(encoding="ascii", errors="replace").split())
