"""What a package says of its network: the names and the shape of what goes in and out, and how exact a backend is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

LARGEST_ERROR: Mapping[str, float] = MappingProxyType({"fp32": 0.005, "fp16": 0.02, "bf16": 0.05})
LEAST_AGREEMENT = 0.999
LEAST_DICE = 0.95
WORST_LIMITS = (1.0, 0.5, 0.5)
"""Limits beyond which a gate would be none: error, agreement, Dice."""


@dataclass(frozen=True)
class Contract:
    """The network as an ONNX file shows it.

    Attributes:
        input: name of its one input, float32 [B, 1, D, H, W], or [B, 1, H, W] where it has two dimensions.
        output: name of its one output, logits, float32 [B, C, D, H, W] or [B, C, H, W].
        dimensions: 3, or 2 for a network that sees one slice at a time; its windows are then one slice deep.
        opset: version of the operators that it is written in.
    """

    input: str = "image"
    output: str = "logits"
    dimensions: Literal[2, 3] = 3
    opset: int = 20


@dataclass(frozen=True)
class GateLimits:
    """How far a backend's answers may lie from the network's own on the windows of the package.

    Attributes:
        largest_error: root mean square error of the logits over their standard deviation, by the backend's precision.
        least_agreement: share of the voxels where the network is sure that must get the same class.
        least_dice: Dice coefficient that every class must reach.
    """

    largest_error: Mapping[str, float] = field(default_factory=lambda: dict(LARGEST_ERROR))
    least_agreement: float = LEAST_AGREEMENT
    least_dice: float = LEAST_DICE

    def fault(self) -> str | None:
        """Why these limits would hold nothing back; None where they do."""
        worst_error, worst_agreement, worst_dice = WORST_LIMITS
        for precision, error in self.largest_error.items():
            if not (math.isfinite(error) and 0 < error <= worst_error):
                return f"an error of {error:g} in {precision} is not in 0 to {worst_error:g}"
        if not worst_agreement <= self.least_agreement <= 1:
            return f"an agreement of {self.least_agreement:g} is not in {worst_agreement:g} to 1"
        if not worst_dice <= self.least_dice <= 1:
            return f"a Dice of {self.least_dice:g} is not in {worst_dice:g} to 1"
        return None
