"""Flags from the voxels alone: metal, and a field of view that cuts the body."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.body import Body, find_body
from engine.errors import VolumeError
from engine.flags import Flag, flag_of
from engine.resample import closest_orientation
from engine.volume import Grid, Volume

METAL_HU = 2500
"""Ours, after Kim 2024 (metal artefacts): above cortical bone, below the 3071 HU at which 12 bits end."""
LEAST_METAL_ML = 0.1
"""Ours: a surgical clip; less is noise at dense bone."""
LEAST_CUT_MM = 12.0
"""Ours: the length of a body that touches an edge of the field of view; less is a fold of skin or cloth."""
LEAST_CUT_VOXELS = 2
"""Of the coarse body in one level."""
SLAB = 16


def scan_flags(volume: Volume) -> Iterator[Flag | None]:
    """Every check of this module; a scan of air has none of them."""
    orientation = closest_orientation(volume.grid)
    hu, grid = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
    try:
        body = find_body(hu, grid)
    except VolumeError:
        return
    yield metal(hu, grid, body)
    yield field_cut(hu, grid, body)


def metal(hu: NDArray[np.int16], grid: Grid, body: Body) -> Flag | None:
    """Volume of what is denser than any bone, in the body; and over how many slices.

    Args:
        hu: attenuation, HU, axes (z, y, x).
        grid: its grid.
        body: the patient, coarsely.
    """
    voxels = np.zeros(len(hu), dtype=np.int64)
    metal_ml, volumes_mm3 = 0.0, np.broadcast_to(grid.voxel_volumes_mm3, hu.shape)
    for start in range(0, len(hu), SLAB):
        found = np.argwhere(hu[start : start + SLAB] > METAL_HU)
        if not len(found):
            continue
        found[:, 0] += start
        inside = body.mask[tuple(body.coarse(found).T)]
        voxels += np.bincount(found[inside, 0], minlength=len(hu))
        metal_ml += float(volumes_mm3[tuple(found[inside].T)].sum()) / 1000
    if metal_ml < LEAST_METAL_ML:
        return None
    words = f"There are {metal_ml:.1f} ml of metal in the body, over {np.count_nonzero(voxels)} slices."
    return flag_of("metal", words, metal_ml)


def field_cut(hu: NDArray[np.int16], grid: Grid, body: Body) -> Flag | None:
    """Length over which the body touches a side of the images, or the circle outside of which they are empty.

    Args:
        hu: attenuation, HU, axes (z, y, x).
        grid: its grid.
        body: the patient, coarsely.
    """
    edge = np.zeros(body.mask.shape[1:], dtype=bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    beyond, rim = _circle(grid, body)
    corners = body.thinned(hu)[:, beyond]
    if corners.size and corners.min() == corners.max():
        edge |= rim
    cut = np.count_nonzero(body.mask[:, edge], axis=1) >= LEAST_CUT_VOXELS
    cut_mm = float(np.count_nonzero(cut)) * body.step[0] * grid.spacing_mm[0]
    if cut_mm < LEAST_CUT_MM:
        return None
    words = f"The field of view cuts the body over {cut_mm:.0f} mm of its length; muscles may not be whole."
    return flag_of("field_cut", words, cut_mm)


def _circle(grid: Grid, body: Body) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What lies outside of the largest circle in an image, and its rim, on the coarse grid [y, x]."""
    step_mm = np.array(body.step[1:]) * grid.spacing_mm[1:]
    extent_mm = np.array(grid.shape[1:]) * grid.spacing_mm[1:]
    radius_mm, coarse_mm = float(extent_mm.min()) / 2, float(step_mm.max())
    rows, columns = np.indices(body.mask.shape[1:])
    middle_mm = (extent_mm - np.array(grid.spacing_mm[1:])) / 2
    distance_mm = np.hypot(rows * step_mm[0] - middle_mm[0], columns * step_mm[1] - middle_mm[1])
    beyond = distance_mm > radius_mm + coarse_mm
    return beyond, (distance_mm <= radius_mm + coarse_mm) & (distance_mm > radius_mm - 1.5 * coarse_mm)
