"""ONNX Runtime on the CPU, in fp32: the second engine."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as state

from engine.backends import SessionOptions, check_classes, check_device, check_precision
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
    device = torch.device("cpu")

    def __init__(self, session: onnxruntime.InferenceSession, batch: int) -> None:
        self._session = session
        self.batch = batch
        self._input = session.get_inputs()[0].name

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        try:
            logits = self._session.run(None, {self._input: windows.contiguous().numpy()})[0]
            return torch.from_numpy(np.asarray(logits, dtype=np.float32))
        except ERRORS as error:
            raise BackendError(
                f"backend {NAME}", f"a window failed: {error}", "Check the memory of the host"
            ) from error


def open_session(package: ModelPackage, options: SessionOptions) -> OnnxRuntimeSession:
    """Load the network for the CPU.

    Raises:
        BackendError: the network cannot be read, or the device or the precision is not to be had.
    """
    check_device(NAME, options.device)
    check_precision(NAME, options.precision, (OnnxRuntimeSession.precision,))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = ERRORS_ONLY
    if options.pinned and options.threads > 1:
        settings.add_session_config_entry("session.intra_op_thread_affinities", _places(options.threads))
    try:
        session = onnxruntime.InferenceSession(str(package.onnx), settings, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        reason = f"it could not load the network of {package.name}: {error}"
        raise BackendError(f"backend {NAME}", reason, "Check the model package, or choose another backend") from error
    check_classes(package, session.get_outputs()[0].shape[1])
    return OnnxRuntimeSession(session, options.batch)


def _places(threads: int) -> str:
    """A core for each of its threads but the calling one, which stays the caller's; it counts cores from 1."""
    mine = sorted(os.sched_getaffinity(0))
    return ";".join(str(mine[number % len(mine)] + 1) for number in range(1, threads))
