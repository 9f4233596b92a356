"""The checks behind the flags: each a small function from the data that it needs to a `Flag` or None.

`before_segmentation` needs the scan and what its header says of how it was made; `after_segmentation` needs the
labels, too. Every limit is a constant with its source beside its check.
"""

from __future__ import annotations

from engine.fitness_checks.acquisition import Acquisition, acquisition_flags
from engine.fitness_checks.bones import bone_flags
from engine.fitness_checks.coverage import coverage_flags
from engine.fitness_checks.muscles import muscle_flags
from engine.fitness_checks.noise import noise_flags
from engine.fitness_checks.scan import scan_flags
from engine.flags import Flag
from engine.measure import Measurements
from engine.segmentation import Segmentation
from engine.volume import Volume

__all__ = ["Acquisition", "after_segmentation", "before_segmentation", "coverage_flags"]


def before_segmentation(volume: Volume, acquisition: Acquisition) -> tuple[Flag, ...]:
    """What is known before the network is paid for.

    Args:
        volume: the scan.
        acquisition: what its header says of how it was made.
    """
    return _found(*acquisition_flags(acquisition, volume.grid), *scan_flags(volume))


def after_segmentation(volume: Volume, segmentation: Segmentation, measurements: Measurements) -> tuple[Flag, ...]:
    """What only the labels tell.

    Args:
        volume: the scan.
        segmentation: its labels, on the same grid.
        measurements: what was measured with them.
    """
    return _found(*bone_flags(segmentation), *muscle_flags(measurements), *noise_flags(volume, segmentation))


def _found(*flags: Flag | None) -> tuple[Flag, ...]:
    return tuple(flag for flag in flags if flag is not None)
