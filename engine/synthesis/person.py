"""From an anatomy to a person: how large each muscle is, how much fat lies about it, and what each tissue attenuates.

Neighbouring muscles compete for the voxels between them: each has a signed distance and a growth in mm that varies
smoothly along it, and the greater lead wins. A muscle that shrinks leaves fat; no muscle grows into bone or vessels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch.nn import functional

from engine.synthesis.anatomy import Anatomy
from engine.synthesis.tissues import AIR_HU, CODES, SIDES, tissue_table
from engine.volume import FloatArray, Grid

KNOTS_MM = (45.0, 22.0)
"""Wave lengths of the two fields along which a muscle's growth varies."""
FAT_KNOT_MM = 180.0
"""Distance over which the thickness of thick fat varies: much shorter, and its surface would have cliffs."""
COARSE = 3
"""Fields are known on every third voxel."""
TILE = 96
"""Voxels of a side of the stocks of texture, which repeat."""
MOST_GROWTH_MM = 5.0
MOST_FAT_MM = 55.0
STREAK_HU = -75.0


@dataclass(frozen=True, eq=False)
class PersonDraw:
    """Everything drawn of a person before any voxel; arrays of 256 run over the tissue codes.

    Attributes:
        seed: of the random fields.
        growth: growth of each muscle, as a share of its greatest depth; negative where it shrinks.
        sway_mm: by how much its border sways along the two fields, [256, 2].
        gap_mm: width of the fat between neighbours, and by how much it varies.
        fat_mm: subcutaneous fat at the thigh, and the factors for the buttocks and the knee.
        skin_mm: thickness of the skin.
        hu: mean attenuation, HU.
        texture_hu: its SD inside the tissue.
        infiltration: share of fatty streaks.
    """

    seed: int
    growth: NDArray[np.float32]
    sway_mm: NDArray[np.float32]
    gap_mm: tuple[float, float]
    fat_mm: tuple[float, float, float]
    skin_mm: float
    hu: NDArray[np.float32]
    texture_hu: NDArray[np.float32]
    infiltration: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Person:
    """A person in the anatomy's own space.

    Attributes:
        codes: tissue codes, uint8 tensor [z, y, x].
        hu: attenuation without scanner, float32 HU, same axes.
        grid: where the voxels lie.
        anatomy: whose body it was drawn from.
        metal: share of metal in each voxel, float32, same axes; None without an implant.
    """

    codes: torch.Tensor
    hu: torch.Tensor
    grid: Grid
    anatomy: Anatomy
    metal: torch.Tensor | None = None


@dataclass(frozen=True)
class _Patient:
    """What is alike in all of a person's muscles.

    Attributes:
        growth: see `PersonDraw`, the mean.
        hu: by how much their attenuation differs from the usual, HU.
        spread_hu: SD of that between muscles.
        fat: share of fatty streaks, the mean.
        weak_side: place in `SIDES` of the weaker leg; -1 where none is.
        weakness: by how much that leg's muscles are smaller.
    """

    growth: float
    hu: float
    spread_hu: float
    fat: float
    weak_side: int
    weakness: float


def draw_person(rng: np.random.Generator) -> PersonDraw:
    """Draw a person. Ranges and sources stand beside each draw.

    Volumes centre below the anatomies', which are those of young adults: quadriceps lose 27 %, hamstrings 19 % from 25
    to 75 years (PMC10069966); single muscles differ by 36 % (CV, PMC7707470), sides after hip fracture by more.
    """
    growth, sway, hu, texture, infiltration = _draw_tissues(rng, _draw_patient(rng))
    return PersonDraw(
        seed=int(rng.integers(2**31)),
        growth=growth.astype(np.float32),
        sway_mm=sway.astype(np.float32),
        gap_mm=(float(rng.uniform(-0.5, 2.2)), float(rng.uniform(0, 1.5))),
        fat_mm=(float(np.exp(rng.uniform(np.log(2.5), np.log(38)))), rng.uniform(0.9, 2.2), rng.uniform(0.4, 1.0)),
        skin_mm=float(rng.uniform(1.2, 2.6)),
        hu=hu.astype(np.float32),
        texture_hu=texture.astype(np.float32),
        infiltration=infiltration.astype(np.float32),
    )


def _draw_patient(rng: np.random.Generator) -> _Patient:
    return _Patient(
        growth=rng.normal(-0.07, 0.07),
        hu=rng.uniform(-22, 14),
        spread_hu=rng.uniform(2, 13),
        # Most infiltrated by 2 to 10 %, a tail up to 40 % (the fat share inside normal muscles is 3 to 8 %).
        fat=float(np.clip(np.exp(rng.normal(np.log(0.045), 0.8)), 0.005, 0.4)),
        weak_side=int(rng.integers(2)) if rng.random() < 0.2 else -1,
        weakness=rng.uniform(0.03, 0.2),
    )


def _draw_tissues(rng: np.random.Generator, patient: _Patient) -> tuple[FloatArray, ...]:
    """Growth, sway, attenuation, its texture and infiltration by tissue code, as `PersonDraw` has them."""
    table = tissue_table()
    growth, sway = np.zeros(CODES), np.zeros((CODES, 2))
    hu, texture = np.full(CODES, AIR_HU), np.zeros(CODES)
    infiltration = np.zeros(CODES)
    for tissue in table.tissues:
        mean = rng.normal(tissue.hu_mean, tissue.hu_sd_between)
        own_growth = rng.normal(0, 0.075) - (rng.uniform(0.1, 0.4) if rng.random() < 0.04 else 0)
        own_fat = np.exp(rng.normal(0, 0.5))
        for index, side in enumerate(SIDES):
            code = table.code(tissue.key, side)
            hu[code], texture[code] = mean, tissue.hu_sd_texture
            if table.muscles[code]:
                weak = patient.weakness * (index == patient.weak_side)
                growth[code] = patient.growth + own_growth + rng.normal(0, 0.03) - weak
                sway[code] = rng.normal(0, 1.0, 2)
                own_hu = tissue.hu_mean + patient.hu + rng.normal(0, patient.spread_hu)
                hu[code] = own_hu + rng.normal(0, 2.5) - 40 * weak
                texture[code] *= rng.uniform(0.5, 1.3)
                infiltration[code] = np.clip(patient.fat * own_fat * (1 + 5 * weak), 0, 0.45)
    return growth, sway, hu, texture, infiltration


class Sculptor:
    """Draws persons from one anatomy.

    Args:
        anatomy: the anatomy.
        device: where the tensors live.
    """

    def __init__(self, anatomy: Anatomy, device: str = "cpu") -> None:
        self._anatomy = anatomy
        self._device = torch.device(device)
        table = tissue_table()
        codes = anatomy.codes
        first_mm = anatomy.first_mm.astype(np.float32)
        room = table.is_one_of("intermuscular_fat", "visceral_fat")[codes] & (first_mm < MOST_GROWTH_MM + 1)
        movable = np.flatnonzero(table.muscles[codes] | room)
        outside_mm = anatomy.outside_mm.astype(np.float32)
        self._codes = torch.from_numpy(codes).to(self._device)
        self._movable = self._places(movable)
        self._body = self._places(np.flatnonzero(codes))
        rim = np.flatnonzero((outside_mm > 0) & (outside_mm < MOST_FAT_MM + 3))
        rim = rim[np.argsort(outside_mm.ravel()[rim], kind="stable")]  # a thin person needs the first few only
        self._rim = self._places(rim)
        self._first, self._second = (
            torch.from_numpy(each.ravel()[movable].astype(np.int64)).to(self._device)
            for each in (anatomy.first, anatomy.second)
        )
        self._first_mm, self._second_mm = (
            torch.from_numpy(each.ravel()[movable].astype(np.float32)).to(self._device)
            for each in (anatomy.first_mm, anatomy.second_mm)
        )
        self._outside_mm = torch.from_numpy(outside_mm.ravel()[rim]).to(self._device)
        depth = np.zeros(CODES, dtype=np.float32)
        np.maximum.at(depth, codes.ravel()[movable], -first_mm.ravel()[movable])
        self._depth_mm = depth
        stock = np.random.default_rng(0)
        self._grain = self._stock(stock, (0.7, 0.7, 0.7))
        self._streaks = self._stock(stock, (4.0, 0.9, 0.9))

    def person(self, draw: PersonDraw) -> Person:
        """The person of a draw; the same draw gives the same voxels."""
        rng = np.random.default_rng(draw.seed)
        codes = self._codes.clone()
        codes.view(-1)[self._movable.index] = self._compete(draw, rng)
        hu = torch.full(codes.shape, AIR_HU, dtype=torch.float32, device=self._device)
        hu.view(-1)[self._body.index] = self._attenuation(codes, draw, rng)
        self._wrap(codes, hu, draw, rng)
        return Person(codes, hu, self._anatomy.grid, self._anatomy)

    def _compete(self, draw: PersonDraw, rng: np.random.Generator) -> torch.Tensor:
        """Which code each movable voxel gets."""
        growth_mm = self._tensor(np.clip(draw.growth * self._depth_mm, -12, MOST_GROWTH_MM * 0.8))
        sway = self._tensor(draw.sway_mm)
        fields = [self._field(knot, rng)[self._movable.coarse] for knot in KNOTS_MM]
        lead = []
        for code, distance in ((self._first, self._first_mm), (self._second, self._second_mm)):
            grown = growth_mm[code] + sway[code, 0] * fields[0] + sway[code, 1] * fields[1]
            lead.append(distance - grown.clamp_(max=MOST_GROWTH_MM))
        gap = draw.gap_mm[0] + draw.gap_mm[1] * self._field(KNOTS_MM[1], rng)[self._movable.coarse]
        won = torch.where(lead[0] <= lead[1], self._first, self._second)
        fat = (torch.minimum(lead[0], lead[1]) > 0) | ((lead[0] - lead[1]).abs() < gap)
        old = self._codes.view(-1)[self._movable.index]
        table = tissue_table()
        muscle = self._tensor(table.muscles)[old.long()]
        left = torch.where(muscle, table.code("intermuscular_fat"), old.long())
        return torch.where(fat, left, won).to(torch.uint8)

    def _attenuation(self, codes: torch.Tensor, draw: PersonDraw, rng: np.random.Generator) -> torch.Tensor:
        """HU of the voxels inside the fascia."""
        code = codes.view(-1)[self._body.index].long()
        hu = self._tensor(draw.hu)[code]
        hu += self._tensor(draw.texture_hu)[code] * self._rolled(self._grain, rng)[self._body.tile]
        threshold = self._tensor(-ndtri(np.clip(draw.infiltration, 1e-6, 0.5)))[code]
        streaks = self._rolled(self._streaks, rng)[self._body.tile]
        streaks += 0.5 * self._field(KNOTS_MM[1], rng)[self._body.coarse]
        fatty = ((streaks / 1.118 - threshold) * 3 + 0.5).clamp_(0, 1)
        return hu + fatty * (STREAK_HU - hu) * self._tensor(tissue_table().muscles)[code]

    def _wrap(self, codes: torch.Tensor, hu: torch.Tensor, draw: PersonDraw, rng: np.random.Generator) -> None:
        """Draw fat and skin around the fascia."""
        table = tissue_table()
        thigh_mm, buttock, knee = draw.fat_mm
        waves = self._field(FAT_KNOT_MM, rng)
        most_mm = min(thigh_mm * max(1.0, buttock, knee) * 2, MOST_FAT_MM) + draw.skin_mm
        used = int(torch.searchsorted(self._outside_mm, most_mm)) + 1
        outside_mm, index = self._outside_mm[:used], self._rim.index[:used]
        z_mm = self._tensor(self._rim.level_mm[:used])
        factor = 1 + (buttock - 1) * ((z_mm - 250) / 120).clamp(0, 1) + (knee - 1) * ((150 - z_mm) / 120).clamp(0, 1)
        factor *= (1 + 0.3 * waves[self._rim.coarse[:used]]).clamp_(0.3, 2)
        fat_mm = factor.mul_(thigh_mm).clamp_(1.0, MOST_FAT_MM)
        tissue = torch.full_like(z_mm, table.code("subcutaneous_fat"), dtype=torch.int64)
        tissue[outside_mm > fat_mm] = table.code("skin")
        tissue[outside_mm > fat_mm + draw.skin_mm] = 0
        value = self._tensor(draw.hu)[tissue]
        value += self._tensor(draw.texture_hu)[tissue] * self._rolled(self._grain, rng)[self._rim.tile[:used]]
        codes.view(-1)[index] = tissue.to(torch.uint8)
        hu.view(-1)[index] = value

    def _field(self, knot_mm: float, rng: np.random.Generator) -> torch.Tensor:
        """A smooth field of unit SD on the coarse voxels, flat."""
        step = knot_mm / self._anatomy.grid.spacing_mm[0]
        knots = [int(np.ceil(length / step)) + 2 for length in self._codes.shape]
        lattice = self._tensor(rng.standard_normal(knots, dtype=np.float32))
        fine = functional.interpolate(lattice[None, None], size=self._coarse_shape(), mode="trilinear")
        return fine.view(-1) / fine.std()

    def _coarse_shape(self) -> list[int]:
        return [-(-length // COARSE) for length in self._codes.shape]

    def _stock(self, rng: np.random.Generator, sigma: tuple[float, float, float]) -> torch.Tensor:
        """Texture of unit SD that repeats, [TILE, TILE, TILE]; sigma in voxels."""
        frequency = [np.fft.fftfreq(TILE) for _ in range(2)] + [np.fft.rfftfreq(TILE)]
        z, y, x = np.meshgrid(*frequency, indexing="ij")
        damping = np.exp(-2 * np.pi**2 * ((z * sigma[0]) ** 2 + (y * sigma[1]) ** 2 + (x * sigma[2]) ** 2))
        noise = np.fft.irfftn(np.fft.rfftn(rng.standard_normal((TILE,) * 3)) * damping, (TILE,) * 3, (0, 1, 2))
        return self._tensor((noise / noise.std()).astype(np.float32))

    def _rolled(self, stock: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        shifts = [int(value) for value in rng.integers(0, TILE, 3)]
        return torch.roll(stock, shifts, (0, 1, 2)).view(-1)

    def _places(self, index: NDArray[np.int64]) -> _Places:
        shape = self._anatomy.codes.shape
        z, y, x = np.unravel_index(index, shape)
        coarse_shape = [-(-length // COARSE) for length in shape]
        coarse = np.ravel_multi_index((z // COARSE, y // COARSE, x // COARSE), coarse_shape)
        tile = np.ravel_multi_index((z % TILE, y % TILE, x % TILE), (TILE,) * 3)
        affine = self._anatomy.grid.affine
        level_mm = (affine[2, 3] + affine[2, 0] * z).astype(np.float32)
        index_, coarse_, tile_ = (torch.from_numpy(each).to(self._device) for each in (index, coarse, tile))
        return _Places(index_, coarse_, tile_, level_mm)

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


@dataclass(frozen=True, eq=False)
class _Places:
    """Some voxels: their flat index, that of their coarse voxel and of their place in a stock, and their level."""

    index: torch.Tensor
    coarse: torch.Tensor
    tile: torch.Tensor
    level_mm: NDArray[np.float32]
