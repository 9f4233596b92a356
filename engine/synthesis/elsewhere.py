"""Persons of whom a scan shows no thigh: head and neck, chest, upper abdomen, lower legs, an arm.

A network that only ever sees thighs finds thighs everywhere. Here nothing is a structure: every voxel is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri
from torch.nn import functional

from engine.synthesis.anatomy import Anatomy, Joints, upright_grid
from engine.synthesis.contents import Contrast, draw_bowel, draw_contrast, fill_bowel
from engine.synthesis.distance import distance_mm
from engine.synthesis.painting import Half
from engine.synthesis.person import STREAK_HU, Person, PersonDraw, draw_person
from engine.synthesis.regions import AIR_INSIDE, MUSCLES, OUTSIDE, Palette, Placed, draw_pieces, paint_pieces
from engine.synthesis.tissues import AIR_HU, tissue_table
from engine.volume import Grid

FIELD_VOXELS = 20
TILE = 80
ROOM_MM = 6.0
"""Air around a person."""
MOST_FAT_MM = 50.0
FAR_MM = 5000.0


@dataclass(frozen=True)
class Region:
    """A stretch of a body.

    Attributes:
        body: "upper", "legs" or "arm".
        share: of the persons.
        bottom_mm: between which levels of the body it begins.
        length_mm: least and greatest length.
        top_mm: where the body ends, fat and skin not counted.
        fat: subcutaneous fat: level, factor of that of the thigh, and mm to add.
        spacing_mm: of the voxels.
    """

    body: str
    share: float
    bottom_mm: tuple[float, float]
    length_mm: tuple[float, float]
    top_mm: float
    fat: tuple[tuple[float, float, float], ...]
    spacing_mm: float


UPPER_FAT = (
    (0.0, 1.1, 2.0),
    (150.0, 0.75, 2.0),
    (290.0, 0.6, 2.0),
    (340.0, 0.35, 2.0),
    (400.0, 0.3, 2.0),
    (450.0, 0.12, 3.0),
    (600.0, 0.1, 4.0),
)
REGIONS: Mapping[str, Region] = {
    "head": Region("upper", 0.24, (330, 430), (180, 300), 582, UPPER_FAT, 2.0),
    "neck": Region("upper", 0.12, (150, 290), (200, 300), 582, UPPER_FAT, 2.0),
    "chest": Region("upper", 0.2, (40, 150), (220, 300), 582, UPPER_FAT, 2.0),
    "abdomen": Region("upper", 0.24, (-30, 30), (150, 260), 582, UPPER_FAT, 2.0),
    "lower legs": Region(
        "legs", 0.12, (-460, -200), (180, 460), -12, ((-460.0, 0.1, 3.0), (-350.0, 0.2, 1.5), (-100, 0.5, 1.5)), 2.0
    ),
    "arm": Region("arm", 0.08, (0, 380), (200, 340), 715, ((0.0, 0.0, 1.5), (180.0, 0.1, 1.5), (700.0, 0.5, 1.0)), 2.0),
}
ENHANCED: Mapping[str, tuple[float, float, float]] = {
    # Share of the arteries', of the veins' and of the muscles' rise after an injection (textbook pictures).
    "artery": (1.0, 0.0, 0.0),
    "vein": (0.0, 1.0, 0.0),
    "heart": (0.2, 0.2, 1.0),
    "kidney": (0.35, 0.7, 0.0),
    "liver": (0.05, 0.45, 0.0),
    "spleen": (0.3, 0.4, 0.0),
    "thyroid": (0.25, 0.4, 0.0),
    "gland": (0.05, 0.15, 0.0),
    "soft_tissue": (0.05, 0.1, 1.0),
    "brain": (0.01, 0.03, 0.0),
    "other_muscle": (0.0, 0.0, 1.0),
    "calf_muscle": (0.0, 0.0, 1.0),
}
ALIKE = {"stomach": "soft_tissue"}
"""Tissues of the table that have none of their own."""
SPREAD_LEGS_MM = (50.0, 110.0)


class Elsewhere:
    """Draws persons of other regions.

    Args:
        device: where the tensors live.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        stock = np.random.default_rng(0)
        self._grain = _stock(stock, (0.7, 0.7, 0.7))
        self._streaks = _stock(stock, (4.0, 0.9, 0.9))

    def person(self, rng: np.random.Generator, name: str | None = None) -> Person:
        """A person.

        Args:
            rng: everything is drawn from it.
            name: one of `REGIONS`; drawn where None.

        Returns:
            The person; the levels that it fills are those of its grid, from 0 up.
        """
        chosen = name or str(rng.choice(list(REGIONS), p=[each.share for each in REGIONS.values()]))
        return self.drawn(chosen, REGIONS[chosen], rng)

    def drawn(self, name: str, region: Region, rng: np.random.Generator) -> Person:
        """A person of any region."""
        draw, contrast = draw_person(rng), draw_contrast(rng)
        apart_mm = float(rng.uniform(*SPREAD_LEGS_MM)) + 0.5 * draw.fat_mm[0] if region.body == "legs" else 0.0
        placed = draw_pieces(region.body, rng, draw.fat_mm[0], apart_mm)
        bottom = float(rng.uniform(*region.bottom_mm))
        most_mm = 1.5 * max(draw.fat_mm[0] * factor + more for _, factor, more in region.fat)
        room_mm = min(most_mm, MOST_FAT_MM) + draw.skin_mm + ROOM_MM
        top = min(bottom + float(rng.uniform(*region.length_mm)), region.top_mm + room_mm)
        axes = _axes(placed, (bottom, top), region.spacing_mm, room_mm)
        marks, palette = paint_pieces(placed, axes, max(0.0, draw.gap_mm[0] + 0.3 * draw.gap_mm[1]))
        _wrap(marks, palette, axes, (region, draw), rng)
        hu = torch.from_numpy(self._attenuation(marks, palette, draw, contrast, rng)).to(self._device)
        codes = _codes(palette)[marks]
        known = torch.from_numpy(codes).to(self._device)
        generator = torch.Generator(self._device).manual_seed(int(rng.integers(2**31)))
        hu = fill_bowel(hu, known, region.spacing_mm, draw_bowel(rng), generator)
        grid = upright_grid(axes.shape, region.spacing_mm, (float(axes.x[0]), float(axes.y[0]), 0.0))
        return Person(known, hu, grid, _anatomy(name, codes, grid, region, bottom))

    def _attenuation(
        self, marks: NDArray[np.uint8], palette: Palette, draw: PersonDraw, contrast: Contrast, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """HU of every voxel."""
        mean, texture, fatty = _means(palette, draw, contrast, rng)
        grain = _tiled(self._grain, marks.shape, rng)
        hu = mean[marks]
        hu += texture[marks] * grain
        lung = palette.marks_of(("lung",))
        if lung.any():
            hu += (lung * np.float32(30))[marks] * _field(marks.shape, rng)
        streaks = _tiled(self._streaks, marks.shape, rng)
        threshold = -ndtri(np.clip(fatty, 1e-6, 0.5)).astype(np.float32)
        held = np.flatnonzero((fatty > 0)[marks])
        own = marks.ravel()[held]
        share = np.clip((streaks.ravel()[held] - threshold[own]) * 3 + 0.5, 0, 1)
        flat = hu.ravel()
        flat[held] += share * (STREAK_HU - flat[held])
        _fill_stomach(hu, marks, palette, rng)
        return hu


def _means(
    palette: Palette, draw: PersonDraw, contrast: Contrast, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Mean HU, SD of the texture and share of fatty streaks of each mark, float32 [256]."""
    table = tissue_table()
    mean, texture, fatty = np.full(256, AIR_HU), np.zeros(256), np.zeros(256)
    like = np.flatnonzero(table.muscles)
    for mark, key in enumerate(palette.keys):
        if key in (OUTSIDE, AIR_INSIDE):
            continue
        code = int(rng.choice(like)) if key in MUSCLES else table.code(ALIKE.get(key, key))
        rise = np.array(ENHANCED.get(key, (0, 0, 0))) @ (contrast.artery_hu, contrast.vein_hu, contrast.muscle_hu)
        mean[mark], texture[mark], fatty[mark] = draw.hu[code] + rise, draw.texture_hu[code], draw.infiltration[code]
    return mean.astype(np.float32), texture.astype(np.float32), fatty.astype(np.float32)


def _codes(palette: Palette) -> NDArray[np.uint8]:
    """Tissue code of each mark."""
    table = tissue_table()
    codes = np.zeros(256, dtype=np.uint8)
    for mark, key in enumerate(palette.keys):
        codes[mark] = 0 if key in (OUTSIDE, AIR_INSIDE) else table.code(ALIKE.get(key, key))
    return codes


def _fill_stomach(
    hu: NDArray[np.float32], marks: NDArray[np.uint8], palette: Palette, rng: np.random.Generator
) -> None:
    """Gas in front of a level, fluid and food behind it."""
    _, y, _ = held = np.nonzero(palette.marks_of(("stomach",))[marks])
    if len(y):
        level = y.min() + rng.uniform(-0.1, 0.8) * (y.max() - y.min())
        content = rng.uniform(5, 45) + rng.uniform(3, 25) * hu[held] / 30
        hu[held] = np.where(y < level, AIR_HU + 20, content)


def _axes(placed: list[Placed], levels_mm: tuple[float, float], spacing_mm: float, room_mm: float) -> Half:
    """The grid that holds some levels of a body; an odd number of voxels each way."""
    bounds = [each.bounds_mm() for each in placed]
    seen = [(low, high) for low, high in bounds if high[2] > levels_mm[0] and low[2] < levels_mm[1]]
    low, high = np.min([low for low, _ in seen], axis=0) - room_mm, np.max([high for _, high in seen], axis=0) + room_mm
    low[2], high[2] = levels_mm
    counts = [2 * int(np.ceil((b - a) / (2 * spacing_mm))) + 1 for a, b in zip(low, high, strict=True)]
    x, y, z = (
        (start + spacing_mm * np.arange(count)).astype(np.float32) for start, count in zip(low, counts, strict=True)
    )
    return Half(z, y, x)


def _wrap(
    marks: NDArray[np.uint8],
    palette: Palette,
    axes: Half,
    who: tuple[Region, PersonDraw],
    rng: np.random.Generator,
) -> None:
    """Draw fat and skin around the body, in place."""
    region, draw = who
    coarse = np.ascontiguousarray(marks[::2, ::2, ::2] != 0)
    away = torch.from_numpy(np.minimum(distance_mm(coarse, 2 * region.spacing_mm), 100.0))
    fine = functional.interpolate(away[None, None], size=list(marks.shape), mode="trilinear", align_corners=True)
    outside = fine[0, 0].numpy()
    level, factor, more = np.transpose(region.fat)
    mean_mm = draw.fat_mm[0] * np.interp(axes.z, level, factor) + np.interp(axes.z, level, more)
    fat_mm = mean_mm.astype(np.float32)[:, None, None] * (1 + 0.2 * np.clip(_field(marks.shape, rng), -2, 2.5))
    fat_mm = np.minimum(fat_mm, MOST_FAT_MM) + region.spacing_mm / 2
    free = marks == 0
    marks[free & (outside <= fat_mm + draw.skin_mm)] = palette.mark("skin")
    marks[free & (outside <= fat_mm)] = palette.mark("subcutaneous_fat")


def _anatomy(name: str, codes: NDArray[np.uint8], grid: Grid, region: Region, bottom_mm: float) -> Anatomy:
    """What a pose needs of it; the joints lie where they are, mostly far off."""
    knee_mm = 20.0 - bottom_mm if region.body == "legs" else -FAR_MM
    hip_mm = knee_mm + 400 if region.body == "legs" else -FAR_MM
    hip, knee = (np.array([[-87.0, 0.0, z], [87.0, 0.0, z]]) for z in (hip_mm, knee_mm))
    nothing = np.broadcast_to(np.uint8(0), codes.shape)
    nowhere = np.broadcast_to(np.float16(0), codes.shape)
    return Anatomy(name, "", grid, codes, Joints(hip, knee), nowhere, nothing, nowhere, nothing, nowhere)


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A smooth field of about unit SD."""
    knots = torch.from_numpy(rng.standard_normal([length // FIELD_VOXELS + 2 for length in shape], dtype=np.float32))
    fine = functional.interpolate(knots[None, None], size=list(shape), mode="trilinear", align_corners=True)[0, 0]
    return np.asarray((fine * 1.5).numpy())


def _stock(rng: np.random.Generator, sigma: tuple[float, float, float]) -> NDArray[np.float32]:
    """Texture of unit SD that repeats, [TILE, TILE, TILE]; sigma in voxels."""
    smooth = gaussian_filter(rng.standard_normal((TILE,) * 3), sigma, mode="wrap")
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _tiled(stock: NDArray[np.float32], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A stock from a place of chance on, repeated to fill a shape."""
    rolled = np.roll(stock, rng.integers(0, TILE, 3), (0, 1, 2))
    repeats = [-(-length // TILE) for length in shape]
    return np.tile(rolled, repeats)[tuple(slice(length) for length in shape)]
