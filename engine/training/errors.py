"""What can go wrong in training."""

from __future__ import annotations

from engine.errors import VastusError


class TrainingError(VastusError):
    """A preset, the training data or a run cannot be used, or a run has gone wrong."""
