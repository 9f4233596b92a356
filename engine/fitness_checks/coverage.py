"""Flags from the bones that are seen before segmentation: whether hips and knees are in the scan."""

from __future__ import annotations

from engine.fitness import ThighSpan
from engine.flags import Flag, flag_of


def coverage_flags(span: ThighSpan) -> tuple[Flag, ...]:
    """What is missing of the stretch from hip to knee, as `engine.fitness_checks.bones` tells it from the labels.

    Args:
        span: the levels that show two thighs, hips and knees.
    """
    shown = f"only {span.covered_mm:.0f} mm of the stretch from hip to knee are shown"
    found = []
    if not span.pelvis_above:
        found.append(flag_of("hip_missing", f"The hip joints are not whole in the scan: {shown}.", span.covered_mm))
    if not span.knee_below:
        found.append(flag_of("knee_missing", f"The knee joints are not whole in the scan: {shown}.", span.covered_mm))
    return tuple(found)
