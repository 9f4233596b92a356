"""Ways to run the network on windows, chosen by name.

A backend is a row of a table: what it needs, whether that is installed, and the module that opens it. Nothing of a
backend is imported before it is chosen, and one that fails is never replaced by another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BackendError
from engine.package import ModelPackage

AUTO = "auto"


class Session(Protocol):
    """A network that is loaded and ready."""

    @property
    def name(self) -> str:
        """The backend's name."""

    @property
    def precision(self) -> str:
        """The precision it computes in, as the runtime reports it: `fp32` or `bf16`."""

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits float32 [B, C, *window] of windows float32 [B, 1, *window]; they are valid until the next run.

        Raises:
            BackendError: the runtime failed.
        """


@dataclass(frozen=True)
class Backend:
    """One way to run the network.

    Attributes:
        name: how it is chosen.
        requirement: the Python module that it needs.
        module: our module with its `open_session(package, threads) -> Session`.
    """

    name: str
    requirement: str
    module: str

    def missing(self) -> str | None:
        """Why it cannot be used here, or None."""
        return None if find_spec(self.requirement) else f"the Python package {self.requirement} is not installed"

    def open(self, package: ModelPackage, threads: int) -> Session:
        """Load the network; raises BackendError."""
        session: Session = import_module(self.module).open_session(package, threads)
        return session


BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (  # in the order of "auto": the faster first, as measured on CPUs
        Backend("openvino", "openvino", "engine.backends.openvino"),
        Backend("onnxruntime", "onnxruntime", "engine.backends.onnxruntime"),
    )
}


def availability() -> dict[str, str | None]:
    """For each backend, in the order of "auto": None where it can be used, otherwise the reason."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}


def resolve(name: str) -> str:
    """The backend meant by a name: itself, or for "auto" the first that is installed.

    Raises:
        BackendError: the name is unknown, or what it needs is not installed.
    """
    reasons = availability()
    if name == AUTO:
        usable = [candidate for candidate, reason in reasons.items() if reason is None]
        if not usable:
            raise BackendError("backend auto", "none is installed", f"Install one of: {', '.join(reasons)}")
        return usable[0]
    if name not in reasons:
        choices = ", ".join((AUTO, *reasons))
        raise BackendError(f"backend {name!r}", "there is none of this name", f"Choose one of: {choices}")
    reason = reasons[name]
    if reason is not None:
        raise BackendError(f"backend {name}", reason, "Install it, or choose another backend")
    return name


def open_session(name: str, package: ModelPackage, threads: int) -> Session:
    """Load the package's network with a backend.

    Args:
        name: a backend's name, or "auto" for the first that is installed; what is installed and fails is an error.
        package: the model.
        threads: threads to compute with; 0 takes all cores that this process may use.

    Raises:
        BackendError: the backend is unknown, not installed, or could not load the network.
    """
    return BACKENDS[resolve(name)].open(package, threads or len(os.sched_getaffinity(0)))


def check_classes(package: ModelPackage, classes: object) -> None:
    """Refuse a network whose output has not one channel for each class.

    Raises:
        BackendError: the channels are not the label set's classes.
    """
    expected = package.label_set.class_count
    if classes != expected:
        reason = f"the network gives {classes} channels, its label set has {expected} classes"
        raise BackendError(f"model {package.name}", reason, "Export the network with the whole label set")
