"""OpenVINO on the CPU: the faster engine."""

from __future__ import annotations

from functools import cache

import numpy as np
import openvino
import torch
from torch.nn import functional

from engine.backends import AUTO, SessionOptions, check_classes, check_device, check_precision, cpu_has_bf16
from engine.errors import BackendError
from engine.flat import network_window
from engine.package import ModelPackage

NAME = "openvino"
DEVICE = "CPU"
HINTS = {"fp32": "f32", "bf16": "bf16"}
PRECISIONS = {hint: precision for precision, hint in HINTS.items()}


class OpenVinoSession:
    """One network, compiled for batches of one size; fewer windows are filled up."""

    name = NAME
    device = torch.device("cpu")

    def __init__(self, compiled: openvino.CompiledModel, batch: int) -> None:
        chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision: str = PRECISIONS.get(chosen, chosen)
        self.batch = batch
        self._request = compiled.create_infer_request()

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        count = len(windows)
        if count > self.batch:
            reason = f"it was asked for {count} windows at a time, and it takes {self.batch}"
            raise BackendError(f"backend {NAME}", reason, "Ask for fewer, or open it for a larger batch")
        full = functional.pad(windows, (0, 0) * (windows.ndim - 1) + (0, self.batch - count)).contiguous()
        try:
            result = self._request.infer([full.numpy()], share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(
                f"backend {NAME}", f"a window failed: {error}", "Check the memory of the host"
            ) from error
        return torch.from_numpy(np.asarray(result[0], dtype=np.float32))[:count]


def open_session(package: ModelPackage, options: SessionOptions) -> OpenVinoSession:
    """Compile the network for the CPU, of its own choice in bf16 where the CPU computes it natively, else in fp32.

    Raises:
        BackendError: the network cannot be read or compiled, or the device or the precision is not to be had here.
    """
    check_device(NAME, options.device)
    try:
        core = the_core()
        native = ("bf16", "fp32") if has_bf16(core) else ("fp32",)
        check_precision(NAME, options.precision, native)
        precision = native[0] if options.precision == AUTO else options.precision
        model = core.read_model(str(package.onnx))
        model.reshape([options.batch, 1, *network_window(package)])
        check_classes(package, model.output(0).shape[1])
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": options.threads,
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "ENABLE_CPU_PINNING": options.pinned,  # to the cores of the process's own affinity
        }
        return OpenVinoSession(core.compile_model(model, DEVICE, hints), options.batch)
    except RuntimeError as error:
        reason = f"it could not load the network of {package.name}: {error}"
        raise BackendError(f"backend {NAME}", reason, "Check the model package, or choose another backend") from error


@cache
def the_core() -> openvino.Core:
    """OpenVINO's core: one for the life of the process.

    Each core gives the thread that makes it a stack for its signal handlers. When several go in another order than they
    came, the thread is left with one that was freed, and the next signal (SIGTERM of a service) ends the process.
    """
    return openvino.Core()


def has_bf16(core: openvino.Core) -> bool:
    """Whether OpenVINO offers bf16 on this CPU and the CPU has instructions for it."""
    return "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES") and cpu_has_bf16()
