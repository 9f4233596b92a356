"""Synthetic scans with exact truth, made from a seed without any outside file."""

from engine.synthesis.scan import ScanRecipe, SyntheticScan, synthesise, thigh_grid

__all__ = ["ScanRecipe", "SyntheticScan", "synthesise", "thigh_grid"]
