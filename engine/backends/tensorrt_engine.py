"""From a model package to TensorRT's engine: the network that says its types, the plan's key, the plan."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from google.protobuf.message import DecodeError

from engine.backends import SessionOptions, check_classes
from engine.backends.plans import PlanKey, PlanStore, Say, network_digest
from engine.backends.tensorrt_build import BuildOrder, Library, build, load_libraries
from engine.errors import BackendError, DeviceMemoryError, ModelError
from engine.export import HALF_ONNX_NAME
from engine.flat import network_window
from engine.half import write_half
from engine.package import ModelPackage

NAME = "tensorrt"
PRECISION = "fp16"
PASSING = ".typed-"
"""How the name of a folder begins in which a network lies while its plan is built."""
STALE_S = 86_400.0
AMPERE, AMPERE_NAME = (8, 0), "Ampere or newer"


@dataclass(frozen=True)
class Gpu:
    """The GPU that the process uses.

    Attributes:
        name: as the driver tells it.
        capability: its compute capability.
        device: for torch.
    """

    name: str
    capability: tuple[int, int]
    device: torch.device


@dataclass(frozen=True)
class Ends:
    """A network's two ends.

    Attributes:
        input: name of the tensor.
        output: name of the tensor.
        window: channel and voxels of one window, as (1, D, H, W).
        logits: channels and voxels of its logits, as (C, D, H, W).
    """

    input: str
    output: str
    window: tuple[int, ...]
    logits: tuple[int, ...]


def load_engine(found: Library, gpu: Gpu, package: ModelPackage, options: SessionOptions, say: Say) -> tuple[Any, Ends]:
    """The library's engine for a package, from its plan or from one that is built now, and its two ends.

    Raises:
        BackendError: the network cannot be built or read, or its ends are not the package's.
        DeviceMemoryError: the GPU has too little memory.
    """
    libraries = load_libraries(found, options.libraries)
    with folder_of(options.cache) as folder, typed_network(package, folder) as onnx:
        order = BuildOrder(onnx, package.contract.input, (1, *network_window(package)), options.portable)
        source = PlanSource(found, PlanStore(folder), plan_key(found, gpu, order, libraries), order, say)
        engine = source.engine(deserialiser(found))
    return engine, check_ends(engine, package)


def plan_key(found: Library, gpu: Gpu, order: BuildOrder, libraries: tuple[str, ...]) -> PlanKey:
    """Everything that a plan depends on; a portable one depends on the family of the GPU alone.

    Raises:
        BackendError: the network cannot be read, or the GPU is too old for a portable plan.
    """
    if order.portable and gpu.capability < AMPERE:
        reason = f"plans are portable from Ampere on, and {gpu.name} is older"
        raise BackendError(f"backend {NAME}", reason, "Switch portable plans off")
    try:
        network = network_digest(order.onnx)
    except (OSError, DecodeError) as error:
        raise _unreadable(order.onnx, str(error)) from error
    name, capability = (AMPERE_NAME, AMPERE) if order.portable else (gpu.name, gpu.capability)
    return PlanKey(
        network=network,
        module=found.module.__name__,
        version=found.module.__version__,
        gpu=name,
        compute_capability=".".join(map(str, capability)),
        precision=PRECISION,
        batches=order.batches,
        portable=order.portable,
        libraries=libraries,
        workspace_bytes=order.workspace_bytes,
        optimisation_level=order.optimisation_level,
    )


@dataclass(frozen=True)
class PlanSource:
    """Where a plan comes from: the folder, or the library.

    Attributes:
        found: the library.
        store: the folder.
        key: what the plan depends on.
        order: how it is built.
        say: told what takes long, and what is refused.
    """

    found: Library
    store: PlanStore
    key: PlanKey
    order: BuildOrder
    say: Say

    def engine(self, deserialise: Callable[[bytes], Any]) -> Any:
        """The engine of a plan that was built before, otherwise of one that is built now.

        Args:
            deserialise: turns a plan into an engine; None where the library does not take it.

        Raises:
            BackendError: the plan cannot be built, or the library does not take what it has built.
        """
        engine = self._stored(deserialise)
        if engine is not None:
            return engine
        with self.store.building(self.key):
            engine = self._stored(deserialise)  # another process may have built it while this one waited
            if engine is None:
                engine = deserialise(self.build())
        if engine is None:
            raise self.found.messages.error("it does not take the plan that it has just built")
        return engine

    def build(self) -> bytes:
        """Build the plan and keep it, with the library's measurements."""
        last_s = self.store.last_build_s(self.key)
        time_told = "no plan was built here yet, so how long it takes is not known"
        if last_s is not None:
            time_told = f"the last one for this GPU took {last_s:.0f} s"
        self.say(f"TensorRT builds a plan for {self.key.gpu}: {time_told}")
        built = build(self.found, self.order, self.store.read_timings(self.key), self.say)
        if built.timings:
            self.store.write_timings(self.key, built.timings)
        self.store.write(self.key, built.plan, built.seconds)
        self.say(f"TensorRT built the plan {self.key.name[:12]}… in {built.seconds:.0f} s")
        return built.plan

    def _stored(self, deserialise: Callable[[bytes], Any]) -> Any:
        plan = self.store.read(self.key, self.say)
        if plan is None:
            return None
        engine = deserialise(plan)
        if engine is None:
            self.say(f"The plan {self.key.name[:12]}… is refused: TensorRT does not take it")
        return engine


def deserialiser(found: Library) -> Callable[[bytes], Any]:
    """What turns a plan into an engine, or into None where the library does not take it.

    It raises DeviceMemoryError where the GPU has too little memory, and BackendError where the runtime does not start.
    """
    try:
        runtime = found.module.Runtime(found.logger)
    except (RuntimeError, TypeError) as error:
        raise found.messages.error("its runtime does not start", error) from error

    def deserialise(plan: bytes) -> Any:
        found.messages.forget()
        engine = runtime.deserialize_cuda_engine(plan)
        refusal = found.messages.error("it does not take the plan")
        if engine is None and isinstance(refusal, DeviceMemoryError):
            raise refusal
        return engine

    return deserialise


def check_ends(engine: Any, package: ModelPackage) -> Ends:
    """The network's two ends, as an engine tells them.

    Raises:
        BackendError: they are not the package's.
    """
    contract, extent = package.contract, network_window(package)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if sorted(names) != sorted((contract.input, contract.output)):
        reason = f"its plan has the ends {names}, and should have {contract.input} and {contract.output}"
        raise BackendError(f"backend {NAME}", reason, "Export the network as the package says")
    check_classes(package, tuple(engine.get_tensor_shape(contract.output))[1])
    ends = Ends(contract.input, contract.output, (1, *extent), (package.label_set.class_count, *extent))
    for name, expected in ((ends.input, ends.window), (ends.output, ends.logits)):
        shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
        if (shape, kind) != ((-1, *expected), "FLOAT"):
            reason = f"{name} of its plan is {kind} {shape}, and should be FLOAT {(-1, *expected)}"
            raise BackendError(f"backend {NAME}", reason, "Export the network as the package says")
    return ends


@contextmanager
def typed_network(package: ModelPackage, folder: Path) -> Iterator[Path]:
    """The package's network in float16: its own, else one that is made of its network in float32 for as long.

    Raises:
        BackendError: it has none, and its network in float32 cannot be typed.
    """
    if package.half_onnx is not None:
        yield package.half_onnx
        return
    sweep(folder)
    with tempfile.TemporaryDirectory(prefix=PASSING, dir=folder) as name:
        target = Path(name, HALF_ONNX_NAME)
        try:
            write_half(package.onnx, target, embed=True)
        except ModelError as error:
            raise _unreadable(package.onnx, error.reason, error.remedy) from error
        yield target


def sweep(folder: Path) -> None:
    """Remove the passing folders that killed processes left; one younger than a day may be a living process's."""
    for left in folder.glob(f"{PASSING}*"):
        with suppress(FileNotFoundError):  # another process sweeps it, too
            if left.stat().st_mtime < time.time() - STALE_S:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def folder_of(cache: Path | None) -> Iterator[Path]:
    """The folder of the plans; a passing one where nothing is to be kept."""
    if cache is not None:
        folder = cache / NAME
        PlanStore(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vastus-plans-") as name:
        yield Path(name)


def _unreadable(path: Path, words: str, remedy: str = "Copy the whole package again") -> BackendError:
    return BackendError(f"backend {NAME}", f"it could not load the network {path}: {words}", remedy)
