"""Where a training runs: one GPU or the CPU, as it was asked, never another one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from engine.training.errors import TrainingError


@dataclass(frozen=True)
class Machine:
    """A device and the precision of the matrix products on it."""

    device: torch.device
    precision: Literal["fp32", "bf16"]

    def autocast(self) -> AbstractContextManager[Any]:
        """What a forward pass runs in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def prepare_process(threads: int) -> None:
    """Set this process up for training; it belongs to whoever owns the process, and comes before anything of torch's.

    Args:
        threads: of the CPU; 0 leaves torch's own choice.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # denormals make a step on a CPU many times slower
    torch.backends.cudnn.benchmark = True  # windows have one size, so the search for the fastest convolution pays


def open_machine(name: str, precision: Literal["fp32", "bf16"]) -> Machine:
    """Prepare torch for a device.

    Args:
        name: `cpu`, `cuda`, or `cuda:1`.
        precision: fp32, or bf16 in the matrix products.

    Raises:
        TrainingError: the device is unknown, absent, or cannot do bf16.
    """
    thing = f"device {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(thing, "there is no such kind of device", "Choose cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(thing, "training runs on cpu or cuda only", "Choose one of these")
    if device.type == "cuda":
        _check_gpu(thing, device, precision)
    return Machine(device, precision)


def _check_gpu(thing: str, device: torch.device, precision: str) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count <= (device.index or 0):
        reason = f"this torch sees {count} GPUs" + ("" if torch.version.cuda else "; it was built for the CPU alone")
        raise TrainingError(thing, reason, "Train with --device cpu, or install torch for this machine's GPU")
    torch.cuda.set_device(device)
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise TrainingError(thing, "this GPU has no bf16", 'Use a preset of your own with precision = "fp32"')
