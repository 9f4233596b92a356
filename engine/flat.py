"""Networks of two dimensions: they see one slice at a time, and the engine's windows have three axes.

A window of such a network is one slice deep. Around its session that axis is taken away, and put back to its logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.backends import Session
from engine.errors import BackendError
from engine.package import ModelPackage


@dataclass(frozen=True)
class FlatSession:
    """A session of a network of two dimensions that takes windows [B, 1, 1, H, W] and gives logits [B, C, 1, H, W].

    Attributes:
        session: takes [B, 1, H, W] and gives [B, C, H, W].
    """

    session: Session

    @property
    def name(self) -> str:
        """See `engine.backends.Session`."""
        return self.session.name

    @property
    def precision(self) -> str:
        """See `engine.backends.Session`."""
        return self.session.precision

    @property
    def device(self) -> torch.device:
        """See `engine.backends.Session`."""
        return self.session.device

    @property
    def batch(self) -> int:
        """See `engine.backends.Session`."""
        return self.session.batch

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        """See `engine.backends.Session`."""
        return deepened(self.session.run(flattened(windows)))


def fitted(session: Session, package: ModelPackage) -> Session:
    """The session as the engine uses it: with three axes, whatever the network has."""
    return FlatSession(session) if package.contract.dimensions == 2 else session


def network_window(package: ModelPackage) -> tuple[int, ...]:
    """Voxels of one input as the network itself has it: (D, H, W), or (H, W) for one of two dimensions."""
    return package.preprocessing.window[3 - package.contract.dimensions :]


def flattened(windows: torch.Tensor) -> torch.Tensor:
    """Windows [B, 1, 1, H, W] without their depth, as [B, 1, H, W].

    Raises:
        BackendError: they are deeper than one slice.
    """
    if windows.dim() != 5 or windows.shape[2] != 1:
        reason = f"windows of {tuple(windows.shape)} for a network of two dimensions"
        raise BackendError("network", reason, "Give windows that are one slice deep")
    return windows[:, :, 0]


def deepened(logits: torch.Tensor) -> torch.Tensor:
    """Logits [B, C, H, W] with a depth of one slice, as [B, C, 1, H, W]."""
    return logits[:, :, None]
