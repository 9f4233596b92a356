"""ONNX Runtime on the CPU, in fp32: the second engine."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from engine.backends import check_classes
from engine.errors import BackendError
from engine.package import ModelPackage

NAME = "onnxruntime"
ERRORS = (  # the runtime's own errors share no base
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    MemoryError,
    RuntimeError,
)
ERRORS_ONLY = 3  # severity of what the runtime writes to the error stream


class OnnxRuntimeSession:
    """One loaded network."""

    name = NAME
    precision = "fp32"

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `engine.backends.Session`."""
        try:
            return np.asarray(self._session.run(None, {self._input: windows})[0], dtype=np.float32)
        except ERRORS as error:
            raise BackendError(
                f"backend {NAME}", f"a window failed: {error}", "Check the memory of the host"
            ) from error


def open_session(package: ModelPackage, threads: int) -> OnnxRuntimeSession:
    """Load the network for the CPU.

    Raises:
        BackendError: the network cannot be read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        session = onnxruntime.InferenceSession(str(package.onnx), options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        reason = f"it could not load the network of {package.name}: {error}"
        raise BackendError(f"backend {NAME}", reason, "Check the model package, or choose another backend") from error
    check_classes(package, session.get_outputs()[0].shape[1])
    return OnnxRuntimeSession(session)
