"""Builds TensorRT plans: from an ONNX file that says its own types to the bytes that a GPU runs.

The module is injected: `tensorrt` in versions 10 and 11 on a GPU; `tensorrt_rtx` has the same interface and builds on a
machine without one, which is how the graph and the builder are proven there. Written against the documented interface.
Left out on purpose: REFIT, which can drop a bias in 11.3, and VERSION_COMPATIBLE, whose plans carry code of the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.backends.plans import Say
from engine.errors import BackendError, DeviceMemoryError
from engine.package import sha256_of

BATCHES = (1, 4, 8)
"""Least, usual and most windows at a time: what a plan is made for, and what it is tuned for."""
WORKSPACE_BYTES = 8 << 30
OPTIMISATION_LEVEL = 4
SILENCE_S = 10.0
"""At least this long between two messages of how far a build is."""
_MOST_ERRORS = 20
_MEMORY_WORDS = ("outofmemory", "out of memory", "failed_allocation", "cudaerrormemoryallocation", "bad_alloc")
_REGISTERED: dict[tuple[str, Path], str] = {}
"""Digests of the plug-in libraries that this process has loaded, by module and path: none is registered twice."""


@dataclass(frozen=True)
class BuildOrder:
    """What is to be built.

    Attributes:
        onnx: a network that says its own types.
        input: the name of its input.
        window: channel and voxels of one window, as (1, D, H, W).
        portable: make it for every GPU since Ampere.
        target: compute capability to build for where there is no GPU, as `SM80`; tensorrt_rtx alone knows it.
        batches: least, usual and most windows at a time.
        workspace_bytes: memory that a layer may take while it computes.
        optimisation_level: how long the library searches, 0 to 5.
    """

    onnx: Path
    input: str
    window: tuple[int, ...]
    portable: bool = False
    target: str | None = None
    batches: tuple[int, int, int] = BATCHES
    workspace_bytes: int = WORKSPACE_BYTES
    optimisation_level: int = OPTIMISATION_LEVEL


@dataclass(frozen=True)
class Port:
    """An input or output of a parsed network.

    Attributes:
        name: of the tensor.
        shape: -1 where it is free.
        type: of its elements, as the library names it, as `FLOAT`.
    """

    name: str
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        plan: what the runtime loads.
        timings: the library's measurements, for the next build; empty where it keeps none.
        seconds: what it took.
        layers: of the parsed network.
        ports: inputs, then outputs of it.
    """

    plan: bytes
    timings: bytes
    seconds: float
    layers: int
    ports: tuple[Port, ...]


class Messages:
    """What the library complains of, instead of on the error stream."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def add(self, text: str) -> None:
        """Keep one; of many the first."""
        if len(self._errors) < _MOST_ERRORS:
            self._errors.append(" ".join(text.split()))

    def forget(self) -> None:
        """Begin anew."""
        self._errors.clear()

    def error(self, what: str, cause: object = "") -> BackendError:
        """What failed, with the library's own words; a lack of memory of its device is a DeviceMemoryError."""
        told = [*dict.fromkeys(self._errors), *([" ".join(str(cause).split())] if str(cause) else [])]
        words = "; ".join(told)[:600] or "the library gives no reason"
        if any(sign in words.lower() for sign in _MEMORY_WORDS):
            remedy = "End what else uses the GPU, or lower the batch"
            return DeviceMemoryError("backend tensorrt", f"{what}: {words}", remedy)
        return BackendError("backend tensorrt", f"{what}: {words}", "Check the driver and the version of TensorRT")


class Progress:
    """Tells how far a build is, seldom enough for a log.

    Args:
        say: takes a line.
        clock: seconds that only grow.
    """

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._steps: dict[str, int] = {}
        self._began = self._last = clock()

    def start(self, phase: str, steps: int) -> None:
        """A phase begins."""
        self._steps[phase] = steps

    def step(self, phase: str, step: int) -> None:
        """A step of a phase is done."""
        now = self._clock()
        if now - self._last >= SILENCE_S:
            self._last = now
            steps = self._steps.get(phase, 0)
            self._say(f"TensorRT, after {now - self._began:.0f} s: {phase}, step {step + 1} of {steps}")

    def finish(self, phase: str) -> None:
        """A phase is over."""
        self._steps.pop(phase, None)


@dataclass(frozen=True)
class Library:
    """The module, its logger and what that heard.

    Attributes:
        module: `tensorrt` or `tensorrt_rtx`.
        logger: an instance of the module's ILogger.
        messages: its errors.
    """

    module: Any
    logger: Any
    messages: Messages


@cache
def library(module: Any) -> Library:
    """A module with one logger for life: the library keeps hold of the first that it is given."""
    messages = Messages()
    severities = (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in severities:
                messages.add(message)

    return Library(module, Logger(), messages)


def load_libraries(found: Library, paths: Sequence[Path]) -> tuple[str, ...]:
    """Load plug-in libraries into the module's registry, each once in the life of the process.

    Returns:
        Their SHA-256, in the same order.

    Raises:
        BackendError: one is missing, has no absolute path, was exchanged since it was loaded, or is refused.
    """
    digests = []
    for path in paths:
        thing = f"plug-in library {path}"
        if not path.is_absolute() or not path.is_file():
            reason = "it is missing" if path.is_absolute() else "its path is not absolute"
            raise BackendError(thing, reason, "Correct the list of libraries in the settings")
        key, digest = (found.module.__name__, path), sha256_of(path)
        if _REGISTERED.get(key, digest) != digest:
            raise BackendError(thing, "it was exchanged since this process loaded it", "Start the service again")
        if key not in _REGISTERED:
            found.messages.forget()
            if found.module.get_plugin_registry().load_library(str(path)) is None:
                raise BackendError(
                    thing,
                    found.messages.error("TensorRT does not load it").reason,
                    "Check that it was built for this version of TensorRT and registers plug-ins of its own",
                )
            _REGISTERED[key] = digest
        digests.append(digest)
    return tuple(digests)


def build(found: Library, order: BuildOrder, timings: bytes, say: Say) -> Built:
    """Build a plan.

    Args:
        found: the library.
        order: what is to be built.
        timings: measurements of an earlier build by the same version on the same GPU, or empty.
        say: told how far it is.

    Raises:
        DeviceMemoryError: the GPU has too little memory to build.
        BackendError: the network cannot be parsed, or the library fails.
    """
    trt, began = found.module, time.monotonic()
    found.messages.forget()
    try:
        builder = trt.Builder(found.logger)
        network = builder.create_network(_flags(trt))
        parser = trt.OnnxParser(network, found.logger)
        _parse(found, parser, order.onnx)
        config = _config(found, builder, order)
        kept = _attach_timings(config, timings)
        found.messages.forget()  # measurements of another version are no fault of this build
        monitor = _monitor(trt, Progress(say))
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise found.messages.error("it could not build the plan")
        measured = b"" if kept is None else bytes(config.get_timing_cache().serialize())
    except (RuntimeError, TypeError, MemoryError) as error:  # a builder without a driver is a TypeError of its bindings
        raise found.messages.error("it could not build the plan", error) from error
    return Built(bytes(plan), measured, time.monotonic() - began, network.num_layers, _ports(network))


def _flags(trt: Any) -> int:
    """Strongly typed: asked for in 10, the only way there is in 11, where the flag may be gone."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(found: Library, parser: Any, path: Path) -> None:
    parser.set_flag(
        found.module.OnnxParserFlag.NATIVE_INSTANCENORM
    )  # the plug-in's rounds to half, and is not portable
    if parser.parse_from_file(str(path)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    words = "; ".join(f"node {error.node()}: {error.desc()}" for error in errors)
    raise found.messages.error(f"it cannot read the network {path.name}", words)


def _config(found: Library, builder: Any, order: BuildOrder) -> Any:
    trt = found.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_bytes)
    config.builder_optimization_level = order.optimisation_level
    if order.portable:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if order.target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, order.target), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(order.input, *((count, *order.window) for count in order.batches))
    if config.add_optimization_profile(profile) < 0:
        raise found.messages.error(f"it does not take windows of {order.window}")
    return config


def _attach_timings(config: Any, timings: bytes) -> Any:
    """Measurements that fit this version and GPU, else empty ones; None where the library keeps none."""
    for blob in dict.fromkeys((timings, b"")):
        kept = config.create_timing_cache(blob)
        if kept is not None and config.set_timing_cache(kept, False):
            return kept
    return None


def _monitor(trt: Any, progress: Progress) -> Any:
    """The library's way to tell how far it is; None where it has none."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def _ports(network: Any) -> tuple[Port, ...]:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    return tuple(Port(tensor.name, tuple(tensor.shape), tensor.dtype.name) for tensor in tensors)
