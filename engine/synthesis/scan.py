"""A synthetic hip-to-knee scan with exact truth, made from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from engine.islands import remove_specks
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.synthesis.anatomy import AnatomySource
from engine.synthesis.builtin import BuiltIn
from engine.synthesis.clinic import Visit, clinical
from engine.synthesis.noise import KERNELS, Grain, Noise
from engine.synthesis.person import Sculptor, draw_person
from engine.synthesis.pose import draw_pose
from engine.synthesis.rendering import PosedPerson, segments_of
from engine.synthesis.scanning import Scanner, draw_scanner, frame_of, in_view, scan_image
from engine.synthesis.slices import Slices
from engine.synthesis.surroundings import draw_table
from engine.volume import FloatArray, Grid, Volume

LOWEST_MM, HIGHEST_MM = -35.0, 585.0
"""Levels of the anatomy that `thigh_grid` covers, mm above the knee joint, at stature 1."""
WHOLE_VIEW_MM = (0.0, 0.0, 1000.0)
NARROW_MM = (140.0, 180.0)
"""Radius of a view that cuts the skin."""
SAME_PIXELS = 0.0
"""The grid is the scanner's own: its noise is not interpolated."""
ROUTINE_GRAIN = Grain(0.25)
BUILT_IN = BuiltIn()


@dataclass(frozen=True)
class Conditions:
    """What is asked of a scan; what is None is drawn from the seed.

    Attributes:
        noise_sd_hu: SD of the noise in the body.
        thickness_mm: of the slices; their distance where None.
        table: whether a table lies under the patient; without one there are no clothes, lines and arms either.
        prone: whether the patient lies on the front.
        implant: whether there is metal.
        whole_view: whether the field of view holds the whole body.
    """

    noise_sd_hu: float | None = 12.0
    thickness_mm: float | None = None
    table: bool | None = True
    prone: bool | None = False
    implant: bool | None = False
    whole_view: bool | None = True


ROUTINE = Conditions()
ANY = Conditions(None, None, None, None, None, None)


@dataclass(frozen=True, eq=False)
class ScanRecipe:
    """What to scan.

    Attributes:
        seed: every draw follows from it: the same seed gives the same patient, whatever the grid.
        grid: axial slices in any order; rows and columns may be turned or mirrored in the plane.
        conditions: of the scan; an ordinary one on its back if not said otherwise.
        source: whose anatomy.
    """

    seed: int
    grid: Grid
    conditions: Conditions = ROUTINE
    source: AnatomySource = BUILT_IN


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A scan and its exact truth on the same grid.

    A structure of which the scan shows less than half a millilitre is background, as it is in every result. Metal
    inside a bone counts as the bone. What lies outside the field of view is background.
    """

    volume: Volume
    truth: Segmentation


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


@cache
def sculptor_of(source: AnatomySource, device: str = "cpu") -> Sculptor:
    """The sculptor of a source; made once a process, because an anatomy takes seconds to prepare."""
    return Sculptor(source.anatomy(), device)


def synthesise(recipe: ScanRecipe, device: str = "cpu") -> SyntheticScan:
    """Make the scan: the same recipe gives the same voxels.

    Args:
        recipe: what to scan.
        device: where torch computes.

    Raises:
        VolumeError: the grid's slices are not axial.
    """
    asked, grid = recipe.conditions, recipe.grid
    frame_of(grid, prone=False)
    of_scanner, of_person, of_pose = np.random.default_rng(recipe.seed).spawn(3)
    slices = _slices(grid, asked)
    scanner = _scanner(of_scanner, slices, grid, asked)
    body = sculptor_of(recipe.source, device).person(draw_person(of_person))
    person = clinical(body, of_person, Visit(asked.implant, scanner.prone))
    posed = PosedPerson(person, draw_pose(of_pose, scanner.prone))
    hu = scan_image(posed, grid, slices, scanner).round_().to(torch.int16).cpu().numpy()
    truth = (segments_of(posed.codes(grid)) * in_view(grid, scanner, person.codes.device)).cpu().numpy()
    truth = remove_specks(truth, grid.voxel_volume_mm3, thigh29().least_volume_ml)
    return SyntheticScan(Volume(hu, grid), Segmentation(truth, grid, thigh29()))


def _slices(grid: Grid, asked: Conditions) -> Slices:
    """The grid's own planes as slices."""
    axis = frame_of(grid, prone=False).axes[0]
    places: FloatArray = np.sort(axis @ grid.affine[:3, 3] + axis @ grid.affine[:3, 0] * np.arange(grid.shape[0]))
    return Slices(asked.thickness_mm or grid.spacing_mm[0], places)


def _scanner(rng: np.random.Generator, slices: Slices, grid: Grid, asked: Conditions) -> Scanner:
    """The drawn scanner, with what was asked."""
    scanner = draw_scanner(rng, slices, SAME_PIXELS)
    if asked.noise_sd_hu is not None:
        noise = Noise(asked.noise_sd_hu, ROUTINE_GRAIN, 0.5, True)
        scanner = replace(scanner, noise=noise, kernel=KERNELS["soft"])
    if asked.prone is not None:
        scanner = replace(scanner, prone=asked.prone)
    if asked.whole_view:
        scanner = replace(scanner, view_mm=WHOLE_VIEW_MM)
    if asked.whole_view is False:
        scanner = replace(scanner, view_mm=(*scanner.view_mm[:2], float(rng.uniform(*NARROW_MM))))
    if asked.table and scanner.table is None:
        scanner = replace(scanner, table=draw_table(rng))
    if asked.table is False:
        scanner = replace(scanner, table=None, sheets=(), lines=(), arms=())
    return scanner
