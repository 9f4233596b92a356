"""TensorRT on an NVIDIA GPU, in fp16: plans built on the GPU that runs them, by its own interface.

What is not proven where there is no GPU is the run itself; it is written against the documented interface, and
everything around the calls to CUDA is behind small seams.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from engine.backends import SessionOptions, check_precision
from engine.backends.plans import Say
from engine.backends.tensorrt_build import BATCHES, Messages, library
from engine.backends.tensorrt_engine import NAME, PRECISION, Ends, Gpu, load_engine
from engine.errors import BackendError, DeviceMemoryError
from engine.package import ModelPackage

LOG = "vastus.tensorrt"
"""The log that is told what takes long, below the service's own, whose level it has."""
DRIVER = "libcuda.so.1"
BUNDLED_LIBRARIES = "tensorrt_libs"
_OUT_OF_MEMORY = "out of memory"


class Queue(Protocol):
    """The stream in which a session's work is done, in order."""

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    @property
    def handle(self) -> int:
        """The stream, for the library."""
        ...

    def follow(self) -> None:
        """Let what comes now wait for what the caller has asked of the device."""
        ...

    def wait(self) -> None:
        """Wait until what was put into it is done, on the host."""
        ...


class CudaQueue:
    """A CUDA stream for life, and the event that ends a run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    @property
    def handle(self) -> int:
        """See `Queue`."""
        return int(self._stream.cuda_stream)

    def follow(self) -> None:
        """See `Queue`."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def wait(self) -> None:
        """See `Queue`."""
        self._done.record(self._stream)
        self._done.synchronize()


class TensorRtSession:
    """One plan with one execution context and one stream for life.

    Args:
        context: the library's execution context; nobody else uses it.
        ends: the network's two ends.
        batch: most windows at a time; memory for their logits is taken at once.
        queue: the stream, on the device of the windows and the logits.
        messages: what the library complains of.

    Raises:
        DeviceMemoryError: the device has too little memory for the logits.
    """

    name = NAME
    precision = PRECISION

    def __init__(self, context: Any, ends: Ends, batch: int, queue: Queue, messages: Messages) -> None:
        self.device, self.batch = queue.device, batch
        self._context, self._ends, self._queue, self._messages = context, ends, queue, messages
        try:
            self._logits = torch.empty((batch, *ends.logits), dtype=torch.float32, device=self.device)
        except torch.OutOfMemoryError as error:
            raise _too_little_memory(error) from error

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        self._check(windows)
        image, logits = windows.contiguous(), self._logits[: len(windows)]
        try:
            self._queue.follow()
            self._enqueue(image, logits)
            self._queue.wait()
        except torch.OutOfMemoryError as error:
            raise _too_little_memory(error) from error
        except RuntimeError as error:
            if _OUT_OF_MEMORY in str(error).lower():
                raise _too_little_memory(error) from error
            raise _failed(str(error)) from error
        return logits

    def _check(self, windows: torch.Tensor) -> None:
        count, told = len(windows), tuple(windows.shape)
        if not 1 <= count <= self.batch or told[1:] != self._ends.window:
            raise _failed(f"its windows are {told}, and should be 1 to {self.batch} of {self._ends.window}")
        if windows.dtype != torch.float32 or windows.device.type != self.device.type:
            kind = f"{windows.dtype} on {windows.device}"
            raise _failed(f"its windows are {kind}, and should be torch.float32 on {self.device}")

    def _enqueue(self, image: torch.Tensor, logits: torch.Tensor) -> None:
        """Put one run into the stream; every call of the library says False where it failed."""
        context, ends = self._context, self._ends
        self._messages.forget()
        done = (
            context.set_input_shape(ends.input, tuple(image.shape))
            and context.set_tensor_address(ends.input, image.data_ptr())
            and context.set_tensor_address(ends.output, logits.data_ptr())
            and context.execute_async_v3(self._queue.handle)
        )
        if not done:
            raise self._messages.error("a window failed")


def missing() -> str | None:
    """Why it cannot be used here, or None; loads neither the library nor a CUDA context."""
    if find_spec(NAME) is None:
        return f"the Python package {NAME} is not installed"
    if find_spec(BUNDLED_LIBRARIES) is None and ctypes.util.find_library("nvinfer") is None:
        return "TensorRT's libraries (libnvinfer) are not installed: its Python package brings its interface alone"
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return f"the CUDA driver ({DRIVER}) is not installed"
    if torch.version.cuda is None:
        return "torch is built without CUDA, and it holds the windows and logits on the GPU"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns where the driver is too old; it then counts no GPU
        count = torch.cuda.device_count()
    return None if count else "the CUDA driver finds no GPU that this process may use"


def open_session(package: ModelPackage, options: SessionOptions, say: Say | None = None) -> TensorRtSession:
    """Load the plan of a package for this GPU, or build it first: that takes minutes, once.

    Args:
        package: the model.
        options: `cache` keeps plans and timings; without it every start builds.
        say: told what takes long; the log `LOG` where it is None.

    Raises:
        BackendError: something is missing here, the network cannot be built, or the precision is not to be had.
        DeviceMemoryError: the GPU has too little memory.
    """
    check_precision(NAME, options.precision, (PRECISION,))
    reason = missing()
    if reason is not None:
        raise BackendError(f"backend {NAME}", reason, "Install it, or choose another backend")
    try:
        found = library(import_module(NAME))
    except ImportError as error:
        raise BackendError(f"backend {NAME}", f"its library does not load: {error}", "Install it again") from error
    gpu = this_gpu()
    say = say or logging.getLogger(LOG).info
    engine, ends = load_engine(found, gpu, package, options, say)
    try:
        context = engine.create_execution_context()
    except RuntimeError as error:
        raise found.messages.error("it could not take memory for the network", error) from error
    if context is None:
        raise found.messages.error("it could not take memory for the network")
    return TensorRtSession(context, ends, min(options.batch, BATCHES[-1]), CudaQueue(gpu.device), found.messages)


def this_gpu() -> Gpu:
    """The GPU that torch uses in this process."""
    device = torch.device("cuda", torch.cuda.current_device())
    return Gpu(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), device)


def _failed(words: str) -> BackendError:
    return BackendError(f"backend {NAME}", f"a window failed: {words}", "Check the log of the driver")


def _too_little_memory(error: RuntimeError) -> DeviceMemoryError:
    words = " ".join(str(error).split())[:300]
    return DeviceMemoryError(f"backend {NAME}", words, "End what else uses the GPU, or lower the batch")
