"""Ways to run a network on windows, chosen by name.

A backend is a requirement table, an answer to whether it can be used here, and a function that opens a session. Each is
a plug-in of the group `vastus.backends`, ours as well as others'. The libraries of a backend are imported when it is
opened, and one that fails is never replaced by another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from engine import plugins
from engine.errors import BackendError, PluginError
from engine.package import ModelPackage
from engine.plugins import Plugin

AUTO = "auto"
AUTO_ORDER = ("tensorrt", "openvino", "onnxruntime")
"""What `auto` means where nothing was measured: the first of these that can be used here. Others are chosen by name."""
PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("cpu", "cuda")
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})  # without these bf16 is emulated, and slower than fp32


class Session(Protocol):
    """A network that is loaded and ready.

    Attributes:
        name: the backend's name.
        precision: what it computes in, one of `PRECISIONS`, as the runtime itself reports it.
        device: where its windows are taken from and its logits lie.
        batch: most windows that it takes at a time.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32 or float16 [B, C, *window], of windows float32 [B, 1, *window]; 1 <= B <= `batch`.

        Both lie on `device`. The logits are valid until the next run.

        Raises:
            DeviceMemoryError: the device has too little memory for this batch.
            BackendError: the runtime failed.
            PluginError: another's session failed in a way of its own.
        """
        ...


@dataclass(frozen=True)
class SessionOptions:
    """How a network is to be run.

    Attributes:
        threads: CPU threads to compute with, at least 1.
        precision: one of `PRECISIONS`, or `auto` for the backend's own choice; it reports which.
        batch: most windows at a time; a backend may take fewer, and says so in its session.
        cache: folder for what takes long to make (plans, timings); None keeps nothing.
        libraries: plug-in libraries (.so) that a backend loads before it reads or builds a network.
        portable: make plans that every GPU since Ampere runs, at some cost in speed.
        device: one of `DEVICES`, for a backend that has the choice; one that lacks it refuses.
        pinned: bind the threads to cores, where the backend can: `benchmarks/windows.py --pinning` tells what it does.
    """

    threads: int
    precision: str = AUTO
    batch: int = 1
    cache: Path | None = None
    libraries: tuple[Path, ...] = ()
    portable: bool = False
    device: str = "cpu"
    pinned: bool = False


@runtime_checkable
class Backend(Protocol):
    """One way to run a network: what an entry point of the group `vastus.backends` leads to.

    Attributes:
        name: how it is chosen; the entry point's name.
        requirements: the Python modules that it needs.
        precisions: what it can compute in, of `PRECISIONS`, its own choice first.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def requirements(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def precisions(self) -> tuple[str, ...]: ...  # noqa: D102

    def missing(self) -> str | None:
        """Why it cannot be used here, or None; imports no large library."""
        ...

    def open(self, package: ModelPackage, options: SessionOptions) -> Session:
        """Load a package's network; raises BackendError."""
        ...


@dataclass(frozen=True)
class ModuleBackend:
    """A backend whose work is in a module of its own, which is imported when it is opened.

    Attributes:
        name: see `Backend`.
        requirements: see `Backend`.
        precisions: see `Backend`.
        module: the module; it has `open_session(package, options) -> Session`, and `missing() -> str | None` where more
            is needed than the Python modules.
        asks_module: whether `missing` of the module is asked, too.
    """

    name: str
    requirements: tuple[str, ...]
    precisions: tuple[str, ...]
    module: str
    asks_module: bool = False

    def missing(self) -> str | None:
        """See `Backend`."""
        for requirement in self.requirements:
            if find_spec(requirement) is None:
                return f"the Python package {requirement} is not installed"
        reason: str | None = import_module(self.module).missing() if self.asks_module else None
        return reason

    def open(self, package: ModelPackage, options: SessionOptions) -> Session:
        """See `Backend`."""
        session: Session = import_module(self.module).open_session(package, options)
        return session


OPENVINO = ModuleBackend("openvino", ("openvino",), ("bf16", "fp32"), "engine.backends.openvino")
ONNXRUNTIME = ModuleBackend("onnxruntime", ("onnxruntime",), ("fp32",), "engine.backends.onnxruntime")
TENSORRT = ModuleBackend("tensorrt", ("tensorrt",), ("fp16",), "engine.backends.tensorrt", asks_module=True)
TORCH = ModuleBackend("torch", ("torch", "monai", "safetensors"), ("fp32", "bf16", "fp16"), "engine.backends.pytorch")


def load_backend(plugin: Plugin) -> Backend:
    """Import a backend and see that it is one; another's is held, so that its errors name who brings it.

    Raises:
        PluginError: it cannot be imported, is no backend, or has another name than its entry point.
    """
    from engine.backends.guard import guarded  # which knows what a backend is, and so this module

    backend = plugin.load()
    if not isinstance(backend, Backend) or backend.name != plugin.name:
        raise plugin.refused(f"{plugin.entry_point.value} is no backend of this name")
    return guarded(backend, plugin)


def availability() -> dict[str, str | None]:
    """For each backend, those of `AUTO_ORDER` first: None where it can be used, otherwise the reason.

    Another's backend that is broken keeps nobody from using the rest: that is its reason.

    Raises:
        PluginError: one is offered twice.
    """
    offered = plugins.plugins(plugins.BACKENDS)
    return {name: _missing(offered[name]) for name in _in_order(offered)}


def usable() -> Mapping[str, Backend]:
    """The backends that can be used here, those of `AUTO_ORDER` first.

    Raises:
        PluginError: one is offered twice.
    """
    offered = plugins.plugins(plugins.BACKENDS)
    return {name: load_backend(offered[name]) for name in _in_order(offered) if _missing(offered[name]) is None}


def _missing(plugin: Plugin) -> str | None:
    try:
        return load_backend(plugin).missing()
    except PluginError as error:
        return error.reason


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (AUTO_ORDER.index(name) if name in AUTO_ORDER else len(AUTO_ORDER), name))


def resolve(name: str) -> str:
    """The backend meant by a name: itself, or for "auto" the first of `AUTO_ORDER` that can be used here.

    Raises:
        BackendError: the name is unknown, or what it needs is not here.
    """
    offered = plugins.plugins(plugins.BACKENDS)
    if name == AUTO:
        known = (candidate for candidate in AUTO_ORDER if candidate in offered)
        usable = next((candidate for candidate in known if load_backend(offered[candidate]).missing() is None), None)
        if usable is None:
            raise BackendError("backend auto", "none can be used here", f"Install one of: {', '.join(AUTO_ORDER)}")
        return usable
    if name not in offered:
        choices = ", ".join((AUTO, *_in_order(offered)))
        raise BackendError(f"backend {name!r}", "there is none of this name", f"Choose one of: {choices}")
    reason = load_backend(offered[name]).missing()
    if reason is not None:
        raise BackendError(f"backend {name}", reason, "Install it, or choose another backend")
    return name


def open_session(name: str, package: ModelPackage, options: SessionOptions) -> Session:
    """Load a package's network with a backend.

    Args:
        name: a backend's name, or "auto"; what can be used and fails is an error.
        package: the model.
        options: how it is to be run.

    Raises:
        BackendError: the backend is unknown, cannot be used here, or could not load the network as it was asked to.
        PluginError: another's backend cannot be imported, or failed in a way of its own.
    """
    from engine.flat import fitted  # which knows sessions, and so this module

    session = load_backend(plugins.plugin(plugins.BACKENDS, resolve(name))).open(package, options)
    if options.precision not in (AUTO, session.precision):
        reason = f"it computes in {session.precision}, though {options.precision} was asked for"
        raise BackendError(f"backend {session.name}", reason, "Ask for what it computes in, or choose another backend")
    return fitted(session, package)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_flags() -> frozenset[str]:
    """The flags of the first CPU, as the kernel tells them; empty where it does not."""
    if not CPU_INFO.is_file():
        return frozenset()
    lines = CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions of its own for bf16."""
    return not BF16_FLAGS.isdisjoint(cpu_flags())


def check_classes(package: ModelPackage, classes: object) -> None:
    """Refuse a network whose output has not one channel for each class.

    Raises:
        BackendError: the channels are not the label set's classes.
    """
    expected = package.label_set.class_count
    if classes != expected:
        reason = f"the network gives {classes} channels, its label set has {expected} classes"
        raise BackendError(f"model {package.name}", reason, "Export the network with the whole label set")


def check_device(name: str, wanted: str, offered: tuple[str, ...] = ("cpu",)) -> None:
    """Refuse a device that a backend does not run on.

    Raises:
        BackendError: it does not; no other is taken in its place.
    """
    if wanted not in offered:
        remedy = f"Choose one of: {', '.join(offered)}; or a backend that runs on {wanted}"
        raise BackendError(f"backend {name}", f"it does not run on the device {wanted!r}", remedy)


def check_precision(name: str, wanted: str, offered: tuple[str, ...]) -> None:
    """Refuse a precision that a backend does not offer on this machine.

    Raises:
        BackendError: it is not offered; no other is taken in its place.
    """
    if wanted not in (AUTO, *offered):
        remedy = f"Choose one of: {', '.join((AUTO, *offered))}"
        raise BackendError(f"backend {name}", f"it does not compute in {wanted} on this machine", remedy)
