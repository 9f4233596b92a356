"""A synthetic hip-to-knee scan with exact truth, made from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.labels import LabelSet, thigh29
from engine.segmentation import Segmentation
from engine.synthesis.labelling import Labeller
from engine.synthesis.scanner import add_table, attenuation
from engine.synthesis.subject import Subject, draw_subject
from engine.volume import Grid, Volume

LOWEST_MM, HIGHEST_MM = -35.0, 585.0
"""Levels of the anatomy that a scan may cover, mm above the knee joint, at stature 1."""
SLAB = 16
TABLE_BELOW_MM = -135.0


@dataclass(frozen=True, eq=False)
class ScanRecipe:
    """What to scan.

    Attributes:
        seed: every draw follows from it.
        grid: axial slices in any order; rows and columns may be turned or mirrored in the plane.
        noise_sd_hu: SD of the noise.
        table: whether a table lies under the patient.
    """

    seed: int
    grid: Grid
    noise_sd_hu: float = 12.0
    table: bool = True


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan and its exact truth on the same grid."""

    volume: Volume
    truth: Segmentation
    subject: Subject


def thigh_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """An axial grid over hips and knees: slice 0 lowest, rows to the back, columns to the patient's left.

    Args:
        shape: slices, rows, columns.
        spacing_mm: along slices, rows and columns.
    """
    extent = [(count - 1) * step for count, step in zip(shape, spacing_mm, strict=True)]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    middle_mm = (HIGHEST_MM + LOWEST_MM) / 2
    affine[:, 3] = (-extent[2] / 2, -extent[1] / 2, middle_mm - extent[0] / 2, 1)
    return Grid(shape, affine)


def label_slab(labeller: Labeller, recipe: ScanRecipe, slices: range) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Truth and tissue codes of some slices, both [slice, row, column]."""
    pairs = [labeller.slice_labels(index) for index in slices]
    truth, tissue = (np.stack(list(arrays)) for arrays in zip(*pairs, strict=True))
    if recipe.table:
        rows, columns = np.mgrid[: recipe.grid.shape[1], : recipe.grid.shape[2]]
        points = recipe.grid.to_patient(np.stack([np.zeros_like(rows), rows, columns], axis=-1))
        for plane in tissue:
            add_table(plane, -points[..., 1], points[..., 0], TABLE_BELOW_MM)
    return truth, tissue


def synthesise(recipe: ScanRecipe, label_set: LabelSet | None = None) -> SyntheticScan:
    """Make the scan: the same recipe gives the same voxels.

    Raises:
        VolumeError: the grid's slices are not axial.
    """
    axial = recipe.grid.affine[2, 1:3]
    if np.abs(axial).max() > 1e-6:
        raise VolumeError(
            "synthetic scan", "the slices of its grid are not axial", "Turn the grid in the slice plane only"
        )
    labels = label_set or thigh29()
    rng = np.random.default_rng(recipe.seed)
    subject = draw_subject(rng, labels)
    labeller = Labeller(subject, recipe.grid, labels)
    hu = np.empty(recipe.grid.shape, dtype=np.int16)
    truth = np.empty(recipe.grid.shape, dtype=np.uint8)
    for start in range(0, recipe.grid.shape[0], SLAB):
        slices = range(start, min(start + SLAB, recipe.grid.shape[0]))
        truth[start : slices.stop], tissue = label_slab(labeller, recipe, slices)
        blur = 0.7 / recipe.grid.spacing_mm[2]
        hu[start : slices.stop] = attenuation(tissue, subject, rng, recipe.noise_sd_hu, blur)
    return SyntheticScan(Volume(hu, recipe.grid), Segmentation(truth, recipe.grid, labels), subject)
