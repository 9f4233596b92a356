"""Flags from what was measured: structures that are cut off, and sides that differ."""

from __future__ import annotations

from collections.abc import Iterator

from engine.flags import Flag, flag_of
from engine.labels import Side
from engine.measure import Measurements, SegmentMeasurement

BONE_GROUP = "bone"
LEAST_SIDE_RATIO = 0.7
"""Ours: two months after a hip fracture the injured thigh's area is smaller by 9 cm2 (Miller 2015, cited by Kim 2024),
about a tenth; such patients are the papers' own, so the limit lies well beyond them."""
LEAST_COMPARED = 3
"""Fewer pairs of whole muscles say nothing of a limb."""


def muscle_flags(measurements: Measurements) -> Iterator[Flag | None]:
    """Every check of this module."""
    yield truncated(measurements)
    yield muscle_asymmetry(measurements)


def truncated(measurements: Measurements) -> Flag | None:
    """How many structures the scan cuts off."""
    count = sum(row.truncated for row in measurements.segments)
    if count == 0:
        return None
    one = count == 1
    words = f"{count} structure{' is' if one else 's are'} cut off at the edge of the scan; volumes are not whole."
    return flag_of("truncated", words, float(count))


def muscle_asymmetry(measurements: Measurements) -> Flag | None:
    """Whether the muscles of one side have much less volume than the same muscles of the other.

    Muscles that the scan cuts off on either side are left out; one that is found on one side only counts.
    """
    pairs = _pairs(measurements)
    right, left = (sum(pair[side].volume_ml for pair in pairs) for side in Side)
    if len(pairs) < LEAST_COMPARED or max(right, left) == 0:
        return None
    ratio = min(right, left) / max(right, left)
    if ratio >= LEAST_SIDE_RATIO:
        return None
    smaller = Side.RIGHT if right < left else Side.LEFT
    words = f"The muscles of the {smaller.value} side have {100 * ratio:.0f} % of the other side's volume."
    return flag_of("muscle_asymmetry", words, ratio)


def _pairs(measurements: Measurements) -> list[dict[Side, SegmentMeasurement]]:
    """The muscles that are whole on both sides, and found on one at least."""
    rows: dict[str, dict[Side, SegmentMeasurement]] = {}
    for row in measurements.segments:
        if row.segment.side is not None and row.segment.structure.group != BONE_GROUP:
            rows.setdefault(row.segment.structure.key, {})[row.segment.side] = row
    return [
        pair
        for pair in rows.values()
        if len(pair) == len(Side)
        and not any(row.truncated for row in pair.values())
        and any(row.voxels for row in pair.values())
    ]
