"""Torch itself: the reference that the others are held against, and a way to any GPU that torch knows.

The network is built anew and given the package's weights. On a GPU it computes in fp16 with channels last, as one CUDA
graph: a window is then one launch instead of some hundreds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from engine.backends import (
    AUTO,
    DEVICES,
    SessionOptions,
    check_device,
    check_precision,
    cpu_has_bf16,
)
from engine.errors import BackendError, DeviceMemoryError, ModelError
from engine.export import load_weights
from engine.networks import UnetrShape, build_unetr
from engine.package import ModelPackage

NAME = "torch"
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP = 3
"""Runs before a CUDA graph is recorded: libraries choose their kernels and take their memory in them."""
OWN_TASKS = Path("/proc/self/task")

Answer = Callable[[torch.Tensor], torch.Tensor]


class TorchSession:
    """One network on one device.

    Args:
        network: on the device, in float32 and set to evaluation.
        device: where it is.
        precision: of products and convolutions; of the rest torch's own table decides (autocast).
        batch: most windows at a time.
    """

    name = NAME

    def __init__(self, network: torch.nn.Module, device: torch.device, precision: str, batch: int) -> None:
        self.device, self.precision, self.batch = device, precision, batch
        self._network = network
        self._answer: Answer = self._forward

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        try:
            return self._answer(windows)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(self.device) from error
        except (AssertionError, RuntimeError, ValueError) as error:  # MONAI asserts the size of its input
            words = " ".join(str(error).split())[:300]
            remedy = "Check the memory of the host, and the size of the windows"
            raise BackendError(f"backend {NAME}", f"a window failed: {words}", remedy) from error

    def record(self, window: tuple[int, int, int]) -> None:
        """Record the network as a CUDA graph for a full batch of windows; fewer are filled up.

        Raises:
            torch.OutOfMemoryError: the GPU has too little memory for this batch.
        """
        self._answer = _CudaGraph(self._forward, torch.zeros(self.batch, 1, *window, device=self.device))

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), self._arithmetic():
            ordered = windows.to(memory_format=torch.channels_last_3d) if self.device.type == "cuda" else windows
            logits: torch.Tensor = self._network(ordered)
            return logits.float()

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.precision not in HALVES:
            return nullcontext()
        # Without a cache: what autocast keeps from one forward pass does not outlive a graph's recording.
        return torch.autocast(self.device.type, HALVES[self.precision], cache_enabled=False)


class _CudaGraph:
    """A function of one tensor, recorded once and replayed on inputs of the same size."""

    def __init__(self, function: Answer, example: torch.Tensor) -> None:
        self._input = example.clone()
        side = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function(self._input)
        torch.cuda.current_stream(example.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(self._input)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        count = len(windows)
        self._input[:count].copy_(windows)
        self._graph.replay()
        return self._output[:count]


def open_session(package: ModelPackage, options: SessionOptions) -> TorchSession:
    """Build the network, load the package's weights and take it to the device.

    Of its own choice it computes in fp32 on the CPU, being the reference there, and in fp16 on a GPU.

    Raises:
        BackendError: the device is not here, the precision is not to be had on it, or the package has no such network.
        DeviceMemoryError: the device has too little memory.
    """
    device = device_of(options.device)
    offered = precisions_of(device)
    check_precision(NAME, options.precision, offered)
    precision = offered[0] if options.precision == AUTO else options.precision
    network = network_of(package)
    if device.type == "cuda" and precision == "fp32":
        forbid_tf32()
    try:
        session = TorchSession(network.to(device), device, precision, options.batch)
        if device.type == "cuda":
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            session.record(package.preprocessing.window)
        else:
            use_threads(options)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(device) from error
    return session


def device_of(name: str) -> torch.device:
    """A device by name.

    Raises:
        BackendError: there is no such device, or torch cannot use it.
    """
    check_device(NAME, name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        reason = "torch sees no GPU" if torch.version.cuda else "this torch was built for the CPU alone"
        raise BackendError(f"backend {NAME}", f"the device cuda is not here: {reason}", "Choose the device cpu")
    return torch.device(name)


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """What torch computes in on a device, its own choice first."""
    if device.type == "cuda":
        return ("fp16", "bf16", "fp32") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16", "fp32")
    return ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)


def network_of(package: ModelPackage) -> torch.nn.Module:
    """The package's network with its weights, in float32 on the CPU, set to evaluation.

    Raises:
        BackendError: the package holds no weights for torch, or those of another network.
    """
    thing, remedy = f"model {package.name}", "Choose another backend, or export the network anew"
    if package.weights is None or not package.network:
        raise BackendError(thing, "it brings no UNETR with weights, which torch needs, but an ONNX file alone", remedy)
    network = build_unetr(package.label_set.class_count, UnetrShape(**package.network), package.preprocessing.window)
    try:
        load_weights(network, package.weights)
    except ModelError as error:
        reason = f"backend {NAME}: it could not load the network: {error.reason}"
        raise BackendError(thing, reason, error.remedy) from error
    return network.eval()


def forbid_tf32() -> None:
    """Let this process's torch compute fp32 on a GPU in fp32; it is torch's one setting, for all sessions.

    Of its own choice it takes 10 bits of the mantissa into convolutions (TF32, since Ampere):
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def use_threads(options: SessionOptions) -> None:
    """Let this process's torch compute with so many threads; it is torch's one setting, for all sessions."""
    torch.set_num_threads(options.threads)
    if not options.pinned:
        return
    before = {int(task.name) for task in OWN_TASKS.iterdir()}
    functional.relu(torch.ones(1 << 20))  # starts the threads
    workers = sorted({int(task.name) for task in OWN_TASKS.iterdir()} - before)
    mine = sorted(os.sched_getaffinity(0))
    for number, worker in enumerate(workers, start=1):  # the calling thread stays free: it does more than compute
        os.sched_setaffinity(worker, {mine[number % len(mine)]})


def _out_of_memory(device: torch.device) -> DeviceMemoryError:
    remedy = "Lower the batch, or end what else uses it"
    return DeviceMemoryError(f"device {device}", "it has too little memory for the network and its windows", remedy)
