"""Ways to run a network on windows, chosen by name.

A backend is a requirement table, an answer to whether it can be used here, and a function that opens a session. Each is
a plug-in of the group `vastus.backends`, ours as well as others'. The libraries of a backend are imported when it is
opened, and one that fails is never replaced by another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from engine import plugins
from engine.errors import BackendError, PluginError
from engine.package import ModelPackage

AUTO = "auto"
AUTO_ORDER = ("tensorrt", "openvino", "onnxruntime")
"""What `auto` means: the first of these that can be used here. Others are chosen by name."""
PRECISIONS = ("fp32", "bf16", "fp16")


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
    """

    threads: int
    precision: str = AUTO
    batch: int = 1
    cache: Path | None = None
    libraries: tuple[Path, ...] = ()
    portable: bool = False


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


def backends() -> Mapping[str, Backend]:
    """Every backend that an installed distribution offers, by name.

    Raises:
        PluginError: one is offered twice, cannot be imported, or is no backend.
    """
    found: dict[str, Backend] = {}
    for name, plugin in plugins.plugins(plugins.BACKENDS).items():
        backend = plugin.load()
        if not isinstance(backend, Backend) or backend.name != name:
            reason = f"{plugin.entry_point.value} of {plugin.origin} is no backend of this name"
            raise PluginError(f"plug-in {plugins.BACKENDS}:{name}", reason, "Uninstall it, or ask its maker")
        found[name] = backend
    return found


def availability() -> dict[str, str | None]:
    """For each backend, those of `AUTO_ORDER` first: None where it can be used, otherwise the reason."""
    known = backends()
    order = [name for name in AUTO_ORDER if name in known]
    return {name: known[name].missing() for name in (*order, *(name for name in known if name not in AUTO_ORDER))}


def resolve(name: str) -> str:
    """The backend meant by a name: itself, or for "auto" the first of `AUTO_ORDER` that can be used here.

    Raises:
        BackendError: the name is unknown, or what it needs is not here.
    """
    reasons = availability()
    if name == AUTO:
        usable = [candidate for candidate in AUTO_ORDER if candidate in reasons and reasons[candidate] is None]
        if not usable:
            raise BackendError("backend auto", "none can be used here", f"Install one of: {', '.join(AUTO_ORDER)}")
        return usable[0]
    if name not in reasons:
        choices = ", ".join((AUTO, *reasons))
        raise BackendError(f"backend {name!r}", "there is none of this name", f"Choose one of: {choices}")
    reason = reasons[name]
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
        BackendError: the backend is unknown, cannot be used here, or could not load the network.
    """
    return backends()[resolve(name)].open(package, options)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def check_classes(package: ModelPackage, classes: object) -> None:
    """Refuse a network whose output has not one channel for each class.

    Raises:
        BackendError: the channels are not the label set's classes.
    """
    expected = package.label_set.class_count
    if classes != expected:
        reason = f"the network gives {classes} channels, its label set has {expected} classes"
        raise BackendError(f"model {package.name}", reason, "Export the network with the whole label set")


def check_precision(name: str, wanted: str, offered: tuple[str, ...]) -> None:
    """Refuse a precision that a backend does not offer on this machine.

    Raises:
        BackendError: it is not offered; no other is taken in its place.
    """
    if wanted not in (AUTO, *offered):
        remedy = f"Choose one of: {', '.join((AUTO, *offered))}"
        raise BackendError(f"backend {name}", f"it does not compute in {wanted} on this machine", remedy)
