"""Does a synthetic scan look like CT? `python benchmarks/synthetic_looks.py FOLDER [FOLDER ...]`.

Each folder holds one real axial CT series. Beside it synthetic patients of both anatomies are scanned with its slice
distance, thickness and pixels, and the same is measured of both: where fat and muscle peak in the histogram and how
wide the peaks are, how much of the body is fat, muscle and bone, how strong the noise is, how coarse its grain, and
how much neighbouring slices share. `--pictures FOLDER` writes them side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.misc import is_dicom
from pydicom.pixels.processing import apply_rescale
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from engine.body import find_body
from engine.resample import closest_orientation
from engine.synthesis import ScanRecipe, synthesise
from engine.synthesis.anatomy import AnatomySource
from engine.synthesis.atlas import AtlasFolder
from engine.synthesis.builtin import BuiltIn
from engine.synthesis.scan import ANY
from engine.volume import Grid, Volume

TOP_MM = 500.0
"""Level of the middle of a synthetic scan above the knee: the pelvis, the only region that both kinds show."""
SLICES = 24
FAT_HU, MUSCLE_HU, BONE_HU = (-150, -50), (0, 110), 180
BIN_HU, BINS = 2.0, np.arange(-200, 400, 2.0)
TILE = 24
"""Pixels along the edge of the squares in which noise is measured."""
EVENEST = 0.1
"""Share of the squares that are even enough to show nothing but noise."""
DETREND_PIXELS = 6.0
WALL_MM = 45.0
"""Depth below the skin that is compared: fat, muscle and bone, but no liver and no bowel."""
PURE_HU = 45.0
"""Greatest difference of smoothed attenuation around a voxel that lies within one tissue."""
PICTURE_HU = (-160, 240)


@dataclass(frozen=True)
class Look:
    """What is compared.

    Attributes:
        fat_hu: place of the histogram's peak between -150 and -50 HU, smoothed and away from borders.
        fat_width_hu: width of that peak at half its height.
        muscle_hu: place of the peak between 0 and 110 HU, the same way.
        muscle_width_hu: its width at half its height.
        fat_share: of the voxels of the body's wall, -150 to -50 HU.
        muscle_share: 0 to 110 HU.
        bone_share: above 180 HU.
        noise_hu: SD within even squares.
        grain_per_cm: mean frequency of the noise power spectrum, cycles per cm.
        slice_correlation: of the noise in neighbouring slices.
    """

    fat_hu: float
    fat_width_hu: float
    muscle_hu: float
    muscle_width_hu: float
    fat_share: float
    muscle_share: float
    bone_share: float
    noise_hu: float
    grain_per_cm: float
    slice_correlation: float


def look_at(volume: Volume) -> Look:
    """Measure a scan with axial slices."""
    orientation = closest_orientation(volume.grid)
    hu, grid = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
    body = find_body(hu, grid).on(grid)
    wall = body & (ndimage.distance_transform_edt(body, grid.spacing_mm) < WALL_MM)
    inside = hu[wall]
    counts = ndimage.gaussian_filter1d(np.histogram(_pure(hu)[wall], BINS)[0].astype(np.float64), 1.5)
    shares = [float(np.mean((inside >= low) & (inside <= high))) for low, high in (FAT_HU, MUSCLE_HU)]
    fat, muscle = _peak(counts, FAT_HU), _peak(counts, MUSCLE_HU)
    noise_hu, grain_per_cm, correlation = _noise(hu, grid, body)
    return Look(
        *fat, *muscle, shares[0], shares[1], float(np.mean(inside > BONE_HU)), noise_hu, grain_per_cm, correlation
    )


def _pure(hu: NDArray[np.int16]) -> NDArray[np.float64]:
    """Smoothed attenuation, and NaN where a voxel lies near a border between tissues."""
    smooth = ndimage.gaussian_filter(hu.astype(np.float64), (0, 1.5, 1.5))
    spread = ndimage.maximum_filter(smooth, (1, 5, 5)) - ndimage.minimum_filter(smooth, (1, 5, 5))
    return np.where(spread < PURE_HU, smooth, np.nan)


def _peak(counts: NDArray[np.float64], between: tuple[int, int]) -> tuple[float, float]:
    """Place and width at half height of the highest peak between two attenuations, HU."""
    places = BINS[:-1] + BIN_HU / 2
    within = np.flatnonzero((places >= between[0]) & (places <= between[1]))
    top = int(within[counts[within].argmax()])
    low = high = top
    while low > 0 and counts[low] > counts[top] / 2:
        low -= 1
    while high < counts.size - 1 and counts[high] > counts[top] / 2:
        high += 1
    return float(places[top]), float((high - low) * BIN_HU)


def _noise(hu: NDArray[np.int16], grid: Grid, body: NDArray[np.bool_]) -> tuple[float, float, float]:
    """SD in HU, mean frequency per cm, and correlation with the next slice, in the evenest squares."""
    squares = [
        (level, slice(y, y + TILE), slice(x, x + TILE))
        for level in range(hu.shape[0] - 1)
        for y in range(0, hu.shape[1] - TILE, TILE)
        for x in range(0, hu.shape[2] - TILE, TILE)
        if body[level, y : y + TILE, x : x + TILE].all()
    ]
    rest = [_detrended(hu[square]) for square in squares]
    order = np.argsort([each.std() for each in rest])[: max(1, round(EVENEST * len(rest)))]
    power, correlations = np.zeros((TILE, TILE)), []
    for index in order:
        level, y, x = squares[index]
        power += np.abs(np.fft.fft2(rest[index])) ** 2
        correlations.append(np.corrcoef(rest[index].ravel(), _detrended(hu[level + 1, y, x]).ravel())[0, 1])
    across, along = np.meshgrid(*(np.fft.fftfreq(TILE, step / 10) for step in grid.spacing_mm[1:]), indexing="ij")
    frequency = np.hypot(across, along)
    sd = float(np.sqrt(np.mean([rest[index].var() for index in order])))
    return sd, float((frequency * power).sum() / power.sum()), float(np.mean(correlations))


def _detrended(square: NDArray[np.int16]) -> NDArray[np.float64]:
    values = square.astype(np.float64)
    return np.asarray(values - ndimage.gaussian_filter(values, DETREND_PIXELS), dtype=np.float64)


def real(folder: Path) -> tuple[Volume, float]:
    """The axial series in a folder, and the thickness of its slices in mm.

    Read without the node's checks: old public series lack what a PACS would never send without.
    """
    slices = [dcmread(path) for path in sorted(folder.iterdir()) if is_dicom(path)]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    hu = np.stack([apply_rescale(each.pixel_array, each) for each in slices]).astype(np.int16)
    low, high = (np.array(each.ImagePositionPatient, dtype=np.float64) for each in (slices[0], slices[-1]))
    down, right = (float(each) for each in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = (high - low) / (len(slices) - 1)
    affine[1, 1], affine[0, 2], affine[2, 2] = down, right, 0.0
    affine[:3, 3] = low
    return Volume(hu, Grid((hu.shape[0], hu.shape[1], hu.shape[2]), affine)), float(slices[0].SliceThickness)


def synthetic(like: Volume, thickness_mm: float, sources: tuple[AnatomySource, ...], count: int) -> Iterator[Volume]:
    """Synthetic pelves with the slices and pixels of a real scan."""
    spacing = closest_orientation(like.grid).turn_grid(like.grid).spacing_mm
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    shape = (SLICES, 448, 512)
    affine[:, 3] = (-spacing[2] * shape[2] / 2, -spacing[1] * shape[1] / 2, TOP_MM - spacing[0] * SLICES / 2, 1.0)
    asked = replace(ANY, thickness_mm=thickness_mm, prone=False, whole_view=True, implant=False)
    for seed in track(range(count), "synthetic patients"):
        yield synthesise(ScanRecipe(9000 + seed, Grid(shape, affine), asked, sources[seed % len(sources)])).volume


def picture(volume: Volume) -> Image.Image:
    """The middle slice, 512 pixels across."""
    orientation = closest_orientation(volume.grid)
    plane = orientation.turn(volume.hu)[volume.hu.shape[0] // 2].astype(np.float64)
    low, high = PICTURE_HU
    grey = np.clip((plane - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((512, 448))


def table_of(title: str, found: Look, made: list[Look]) -> Table:
    """The real scan beside the range of the synthetic ones."""
    table = Table("", "real", "synthetic: least", "median", "greatest", "real lies within", title=title)
    for field, value, values in zip(
        fields(Look), astuple(found), np.array([astuple(each) for each in made]).T, strict=True
    ):
        least, middle, greatest = float(values.min()), float(np.median(values)), float(values.max())
        within = "yes" if least <= value <= greatest else "no"
        table.add_row(field.name, *(f"{each:.3g}" for each in (value, least, middle, greatest)), within)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--atlas", type=Path, help="folder of the atlas; without it the built-in anatomy alone")
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    sources: tuple[AnatomySource, ...] = (BuiltIn(), *([AtlasFolder(given.atlas)] if given.atlas else []))
    for folder in given.folders:
        volume, thickness_mm = real(folder)
        volumes = list(synthetic(volume, thickness_mm, sources, given.patients))
        Console().print(table_of(folder.name, look_at(volume), [look_at(each) for each in volumes]))
        if given.pictures:
            write_page(given.pictures / f"{folder.name}.png", (volume, *volumes[:5]))


def write_page(path: Path, volumes: tuple[Volume, ...]) -> None:
    """The real scan first, then synthetic ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = Image.new("L", (512 * 3, 448 * 2))
    for place, each in enumerate(volumes):
        page.paste(picture(each), (512 * (place % 3), 448 * (place // 3)))
    page.save(path)


if __name__ == "__main__":
    main()
