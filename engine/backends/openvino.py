"""OpenVINO on the CPU: the faster engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from engine.backends import check_classes
from engine.errors import BackendError
from engine.package import ModelPackage

NAME = "openvino"
DEVICE = "CPU"
CPU_FLAGS = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # without these bf16 is emulated, and slower than fp32
PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


class OpenVinoSession:
    """One compiled network with a static batch of one window."""

    name = NAME

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision: str = PRECISIONS.get(chosen, chosen)
        self._request = compiled.create_infer_request()

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `engine.backends.Session`."""
        try:
            if len(windows) == 1:
                return self._logits(windows)
            return np.concatenate([self._logits(windows[n : n + 1]).copy() for n in range(len(windows))])
        except RuntimeError as error:
            raise BackendError(
                f"backend {NAME}", f"a window failed: {error}", "Check the memory of the host"
            ) from error

    def _logits(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self._request
        result = request.infer([np.ascontiguousarray(window)], share_inputs=True, share_outputs=True)
        return np.asarray(result[0], dtype=np.float32)


def open_session(package: ModelPackage, threads: int) -> OpenVinoSession:
    """Compile the network for the CPU, in bf16 where the CPU computes it natively and in fp32 elsewhere.

    Raises:
        BackendError: the network cannot be read or compiled.
    """
    try:
        core = openvino.Core()
        model = core.read_model(str(package.onnx))
        model.reshape([1, 1, *package.preprocessing.window])
        check_classes(package, model.output(0).shape[1])
        wanted = "bf16" if has_bf16(core) else "f32"
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": wanted,
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
