"""Memory that stays allocated from scan to scan: to take it anew costs more than many a computation in it."""

from __future__ import annotations

import math

import torch


class Workspace:
    """Named tensors that grow with the largest scan and are never given back; for one scan at a time."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A contiguous tensor that holds whatever was left in it; the next call with this name takes it away.

        On the CPU beside a GPU, that is, where CUDA is at hand, it is pinned: copies from a GPU need not wait.

        Args:
            name: what it is for.
            shape: any.
            dtype: any.
            device: where it lies.
        """
        length = math.prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < length or held.dtype != dtype or held.device != device:
            self._held.pop(name, None)
            pinned = device.type == "cpu" and torch.cuda.is_available()
            held = torch.empty(length, dtype=dtype, device=device, pin_memory=pinned)
            self._held[name] = held
        return held[:length].view(shape)

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
