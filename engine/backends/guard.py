"""Another's backend, held so that whatever it raises becomes an error that names who brings it.

Our own backends turn what their libraries raise into errors of ours, and a bug in them shall be seen as one. What
another wrote may raise anything; here, where it is called, is the one place that takes it as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import torch

from engine.backends import Backend, Session, SessionOptions
from engine.errors import DeviceMemoryError, VastusError
from engine.package import ModelPackage
from engine.plugins import Plugin


@dataclass(frozen=True)
class Blame:
    """While it is entered, an error that is none of ours comes out as the plug-in's.

    Attributes:
        plugin: whose code runs.
        doing: what it does, as `it fails to open a session`.
    """

    plugin: Plugin
    doing: str

    def __enter__(self) -> None: ...

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """See the class.

        Raises:
            DeviceMemoryError: torch had too little memory.
            PluginError: the plug-in raised anything else that is no `VastusError`.
        """
        if isinstance(error, torch.OutOfMemoryError):
            thing, remedy = f"plug-in {self.plugin.name}", "Lower the batch, or end what else uses the device"
            reason = f"{self.plugin.origin}: its device has too little memory"
            raise DeviceMemoryError(thing, reason, remedy) from error
        if isinstance(error, Exception) and not isinstance(error, VastusError):
            raise self.plugin.failed(self.doing, error) from error


@dataclass(frozen=True)
class GuardedSession:
    """A session of another's backend; what it tells of itself is read once.

    Attributes:
        plugin: who brings the backend.
        session: its session.
        name: see `engine.backends.Session`.
        precision: see `engine.backends.Session`.
        device: see `engine.backends.Session`.
        batch: see `engine.backends.Session`.
    """

    plugin: Plugin
    session: Session
    name: str
    precision: str
    device: torch.device
    batch: int

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`.

        Raises:
            DeviceMemoryError: torch had too little memory.
            PluginError: the session raised anything else that is no `VastusError`.
        """
        with Blame(self.plugin, "its session fails"):
            return self.session.run(windows)


@dataclass(frozen=True)
class GuardedBackend:
    """Another's backend.

    Attributes:
        plugin: who brings it.
        backend: what its entry point leads to.
        name: see `engine.backends.Backend`.
        requirements: see `engine.backends.Backend`.
        precisions: see `engine.backends.Backend`.
    """

    plugin: Plugin
    backend: Backend
    name: str
    requirements: tuple[str, ...]
    precisions: tuple[str, ...]

    def missing(self) -> str | None:
        """See `engine.backends.Backend`; raises PluginError where it cannot tell."""
        with Blame(self.plugin, "it cannot tell whether it can be used"):
            return self.backend.missing()

    def open(self, package: ModelPackage, options: SessionOptions) -> Session:
        """See `engine.backends.Backend`; raises DeviceMemoryError and PluginError, too."""
        with Blame(self.plugin, "it cannot open a session"):
            opened = self.backend.open(package, options)
            told = (opened.name, opened.precision, opened.device, opened.batch)
            return GuardedSession(self.plugin, opened, *told)


def guarded(backend: Backend, plugin: Plugin) -> Backend:
    """A backend as it is where it came with the program, and otherwise held.

    Raises:
        PluginError: it does not tell what a backend tells.
    """
    if plugin.credit.ours:
        return backend
    with Blame(plugin, "it does not tell what it needs"):
        return GuardedBackend(plugin, backend, backend.name, tuple(backend.requirements), tuple(backend.precisions))
