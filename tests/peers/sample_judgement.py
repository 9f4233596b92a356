"""A judgement that no scan stands behind, for tests of what is made of one."""

from __future__ import annotations

from dataclasses import replace

from engine.labels import thigh29
from engine.training.card import Judgement, ScanTypeScore, StructureScore, Totals


def judgement(digest: str = "d" * 64) -> Judgement:
    """Every structure within every limit, but for the sartorius and the psoas; no scan shows the multifidus."""
    rows = {
        each.key: StructureScore(each.key, each.display, each.group, 0.93, 0.81, 0.9, 1.01, 0.98, 32)
        for each in thigh29().structures
    }
    rows["sartorius"] = replace(rows["sartorius"], dice_mean=0.84, dice_min=0.41)
    rows["psoas"] = replace(rows["psoas"], volume_ratio=1.2)
    rows["multifidus"] = StructureScore("multifidus", "Multifidus", "else", None, None, None, None, None, 0)
    kinds = (
        ScanTypeScore("routine", "hip to knee, 3 mm", 0.93, 0.95, 4),
        ScanTypeScore("abdomen", "no thigh in it", None, None, 2),
    )
    return Judgement(
        digest,
        tuple(rows.values()),
        kinds,
        Totals(16, 0.9264, 0.84, 0.91, 0.975, 0),
        ("Two scans of a head: nothing.",),
    )
