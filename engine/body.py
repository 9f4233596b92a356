"""Where the patient is: found coarsely, without table, blankets and air."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import VolumeError
from engine.resample import Scalar, sample_nearest
from engine.volume import FloatArray, Grid, UnevenPlanes

SKIN_HU = -200  # between air and fat
COARSE_MM = 4.0
BLURRED_SKIN_HU = -500.0  # half air, half fat: the skin after blurring
LEAST_PART = 0.1  # of the largest part: a second leg is larger, table and hands are not


@dataclass(frozen=True, eq=False)
class Body:
    """The patient on a coarse grid.

    Attributes:
        mask: bool, axes (z, y, x); bowel gas and lungs included.
        grid: the coarse grid; it is even where the scan's is not.
        step: voxels of the scan to one coarse voxel; where its planes lie unevenly, steps of their mean distance.
        uneven: the scan's uneven planes.
    """

    mask: NDArray[np.bool_]
    grid: Grid
    step: tuple[int, int, int]
    uneven: UnevenPlanes | None = None

    def points(self) -> FloatArray:
        """Indices [n, 3] of its voxels on the scan's grid."""
        places = np.asarray(np.argwhere(self.mask) * np.array(self.step), dtype=np.float64)
        if self.uneven is not None:
            places[:, self.uneven.axis] = self.uneven.index_of(places[:, self.uneven.axis])
        return places

    def thinned(self, hu: NDArray[np.int16]) -> NDArray[np.int16]:
        """The scan's voxels that the coarse ones stand for."""
        return _thinned(hu, self.step, self.uneven)

    def coarse(self, index: NDArray[np.intp]) -> NDArray[np.intp]:
        """The coarse voxels [n, 3] that are nearest to voxels [n, 3] of the scan."""
        place = index.astype(np.float64)
        if self.uneven is not None:
            place[:, self.uneven.axis] = self.uneven.place_of(place[:, self.uneven.axis])
        return np.asarray(np.minimum(np.rint(place / self.step).astype(np.intp), np.array(self.mask.shape) - 1))

    def on(self, target: Grid) -> NDArray[np.bool_]:
        """The mask on another grid."""
        return self.spread(self.mask, target)

    def spread(self, values: NDArray[Scalar], target: Grid) -> NDArray[Scalar]:
        """Values of the coarse grid on another one; its outermost planes reach a coarse voxel further.

        Only every `step`-th voxel of the scan has a coarse one: without that, the scan's last voxels would have none.
        """
        affine = self.grid.affine.copy()
        affine[:3, 3] = self.grid.to_patient(np.array([-1.0, -1.0, -1.0]))
        padded = np.pad(values, 1, mode="edge")
        return sample_nearest(padded, Grid((padded.shape[0], padded.shape[1], padded.shape[2]), affine), target)


def find_body(hu: NDArray[np.int16], grid: Grid) -> Body:
    """Find the patient: what blurred attenuation shows as more than thin shells, in large connected parts.

    Args:
        hu: attenuation, HU, axes (z, y, x).
        grid: its grid.

    Raises:
        VolumeError: there is nothing but air.
    """
    wanted = [max(1, round(COARSE_MM / spacing)) for spacing in grid.spacing_mm]
    step = (wanted[0], wanted[1], wanted[2])
    # Clipping and blurring over 12 mm take noise out of the fat, and the table's thin shells out of the picture.
    coarse = np.clip(_thinned(hu, step, grid.uneven), -1000, 0).astype(np.float32)
    mask = ndimage.uniform_filter(coarse, 3, mode="nearest") > BLURRED_SKIN_HU
    core = ndimage.binary_erosion(mask, border_value=1)  # parts the patient from a board he lies on
    parts = cc3d.connected_components(core, connectivity=6)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    if sizes.max() == 0:
        raise VolumeError("volume", "it holds nothing but air", "Check that the right series was sent")
    large = (sizes >= LEAST_PART * sizes.max())[parts]
    body = ndimage.binary_dilation(large, iterations=2) & mask
    affine = grid.affine @ np.diag([*step, 1.0])
    return Body(_filled(body), Grid((body.shape[0], body.shape[1], body.shape[2]), affine), step, grid.uneven)


def _thinned(hu: NDArray[np.int16], step: tuple[int, int, int], uneven: UnevenPlanes | None) -> NDArray[np.int16]:
    """Every `step`-th voxel; along an uneven axis the plane that is nearest to every `step`-th place."""
    if uneven is not None:
        places = np.arange(0, uneven.places.size, step[uneven.axis], dtype=np.float64)
        hu = hu.take(np.rint(uneven.index_of(places)).astype(np.intp), axis=uneven.axis)
    strides = [1 if uneven is not None and axis == uneven.axis else each for axis, each in enumerate(step)]
    return hu[tuple(slice(None, None, each) for each in strides)]


def body_on(network: Grid, body: Body, hu: torch.Tensor) -> NDArray[np.bool_]:
    """The patient on the network's grid; see `body_beside`."""
    return np.asarray(body_beside(network, body, hu).cpu().numpy())


def body_beside(network: Grid, body: Body, hu: torch.Tensor) -> torch.Tensor:
    """The patient on the network's grid, bool [z, y, x] on the device of the image.

    Well inside the body every voxel counts, dark streaks of metal too; near the skin only what is no air.

    Args:
        network: the network's grid.
        body: the patient, coarsely.
        hu: attenuation on the network's grid, HU.
    """
    inner = ndimage.binary_erosion(body.mask, iterations=2, border_value=1)
    outer = ndimage.binary_dilation(body.mask, iterations=1)
    zones = torch.from_numpy(body.spread(inner.astype(np.uint8) + outer, network)).to(hu.device)
    return (hu > SKIN_HU).logical_and_(zones == 1).logical_or_(zones == 2)


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with every hole that does not reach the front, back, left or right of the volume."""
    holes = cc3d.connected_components(~mask, connectivity=6)
    sides = (holes[:, 0], holes[:, -1], holes[:, :, 0], holes[:, :, -1])
    outside = np.unique(np.concatenate([side.ravel() for side in sides]))
    return np.asarray(mask | ~np.isin(holes, outside))
