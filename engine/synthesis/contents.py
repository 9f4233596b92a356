"""What fills bowel, bladder and vessels: gas, stool, fluid and contrast; calcified arteries.

Everything is drawn in the anatomy's own space, where +y is the back: fluid settles there, gas rises to the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch.nn import functional

from engine.synthesis.tissues import tissue_table

GAS_HU = -950.0
FAT_HU = -95.0
WALL_HU = 38.0
GRAIN_MM = 5.0
"""Size of the crumbs and bubbles of stool."""
CHUNK = 65536


@dataclass(frozen=True)
class Bowel:
    """The contents of bowel and rectum.

    Attributes:
        loop_mm: width of a loop.
        wall_mm: thickness of its wall.
        fat_mm: how near a third loop is where the fat between loops is seen.
        gas: share of loops that hold gas, in front of a level.
        stool: share that holds stool.
        fluid: share that holds fluid; the rest is collapsed.
        oral_hu: attenuation of contrast that was drunk, 0 without.
        rectum: what the rectum holds: "gas", "stool" or "empty".
        head_down: whether gas rises to the back, the patient being prone.
    """

    loop_mm: float
    wall_mm: float
    fat_mm: float
    gas: float
    stool: float
    fluid: float
    oral_hu: float
    rectum: str
    head_down: bool


def draw_bowel(rng: np.random.Generator, prone: bool = False) -> Bowel:
    """Draw what the bowel holds.

    Loops 20 to 35 mm wide (small bowel up to 30, colon more), walls of 1 to 3 mm; stool -100 to 150 HU with bubbles;
    drunk contrast of 150 to 450 HU in 12 % (textbook ranges).
    """
    return Bowel(
        loop_mm=float(rng.uniform(20, 36)),
        wall_mm=float(rng.uniform(1.0, 2.8)),
        fat_mm=float(rng.uniform(3.0, 12.0)),
        gas=float(rng.uniform(0.02, 0.3)),
        stool=float(rng.uniform(0.05, 0.35)),
        fluid=float(rng.uniform(0.1, 0.3)),
        oral_hu=float(rng.uniform(150, 450)) if rng.random() < 0.12 else 0.0,
        rectum=str(rng.choice(["gas", "stool", "empty"], p=[0.3, 0.35, 0.35])),
        head_down=prone,
    )


@dataclass(frozen=True)
class Contrast:
    """Contrast in the blood and in the urine, and lime in the walls of arteries.

    Attributes:
        artery_hu: by how much arteries are brighter than blood without contrast.
        vein_hu: the same of veins.
        mixing_hu: SD of unmixed contrast inside veins.
        muscle_hu: by how much muscles are brighter.
        bladder_hu: attenuation of the contrast that has settled in the bladder, 0 without.
        bladder_share: share of the bladder's depth that it fills.
        lime: share of the arteries' walls that is calcified.
        lime_hu: its attenuation.
    """

    artery_hu: float
    vein_hu: float
    mixing_hu: float
    muscle_hu: float
    bladder_hu: float
    bladder_share: float
    lime: float
    lime_hu: float


PHASES = {
    # Share of scans; rise of arteries, of veins, of muscle, HU. Arteries reach 120 to 350 HU, veins 60 to 180.
    "none": (0.55, (0, 0), (0, 0), (0, 0)),
    "arterial": (0.10, (180, 310), (0, 40), (0, 6)),
    "venous": (0.25, (80, 150), (40, 140), (6, 16)),
    "late": (0.10, (50, 90), (40, 80), (5, 14)),
}
"""Phases of an injection: the usual ones of CT angiography, of the abdomen, and minutes later (textbook ranges)."""


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draw a phase of contrast, excreted contrast after it, and calcified arteries in 35 % (the old)."""
    name = str(rng.choice(list(PHASES), p=[phase[0] for phase in PHASES.values()]))
    _, artery, vein, muscle = PHASES[name]
    excreted = rng.random() < {"none": 0.05, "arterial": 0.1, "venous": 0.15, "late": 0.7}[name]
    return Contrast(
        artery_hu=float(rng.uniform(*artery)),
        vein_hu=float(rng.uniform(*vein)),
        mixing_hu=float(rng.uniform(5, 25)) if name in ("arterial", "venous") else 0.0,
        muscle_hu=float(rng.uniform(*muscle)),
        bladder_hu=float(rng.uniform(120, 1200)) if excreted else 0.0,
        bladder_share=float(rng.uniform(0.1, 1.0)),
        lime=float(rng.uniform(0.03, 0.4)) if rng.random() < 0.35 else 0.0,
        lime_hu=float(rng.uniform(300, 1100)),
    )


def fill_bowel(
    hu: torch.Tensor, codes: torch.Tensor, spacing_mm: float, draw: Bowel, generator: torch.Generator
) -> torch.Tensor:
    """HU with the contents of bowel and rectum, float32 [z, y, x].

    Args:
        hu: attenuation in the anatomy's space, not changed.
        codes: tissue codes, uint8, same shape.
        spacing_mm: of the anatomy's voxels.
        draw: what the bowel holds.
        generator: source of chance, on the device of `hu`.
    """
    result = hu.clone()
    table = tissue_table()
    places = (codes == table.code("bowel")).nonzero()
    if len(places):
        result[tuple(places.T)] = _loops(places.float() * spacing_mm, draw, generator)
    places = (codes == table.code("rectum")).nonzero()
    if len(places) and draw.rectum != "empty":
        _fill_rectum(result, places, spacing_mm, draw, generator)
    return result


def apply_contrast(
    hu: torch.Tensor, codes: torch.Tensor, spacing_mm: float, draw: Contrast, generator: torch.Generator
) -> torch.Tensor:
    """HU with contrast in vessels, muscles and bladder and lime in the arteries, float32 [z, y, x].

    Args:
        hu: attenuation in the anatomy's space, not changed.
        codes: tissue codes, uint8, same shape.
        spacing_mm: of the anatomy's voxels.
        draw: how much of each.
        generator: source of chance, on the device of `hu`.
    """
    result = hu.clone()
    table = tissue_table()
    if draw.muscle_hu:
        rise = torch.from_numpy(table.muscles * np.float32(draw.muscle_hu)).to(hu.device)
        for plane, code in zip(result, codes, strict=True):  # a whole volume of indices would take gigabytes
            plane += rise[code.long()]
    arteries = _where(codes, "artery")
    if len(arteries):
        result[tuple(arteries.T)] += draw.artery_hu
        if draw.lime:
            limed = _plaques(codes, arteries, spacing_mm, draw.lime, generator)
            result[tuple(limed.T)] = draw.lime_hu
    veins = _where(codes, "vein")
    if len(veins) and draw.vein_hu:
        unmixed = _smooth_at(veins.float() * spacing_mm, 15.0, generator) * draw.mixing_hu
        result[tuple(veins.T)] += draw.vein_hu + unmixed
    bladder = _where(codes, "bladder")
    if len(bladder) and draw.bladder_hu:
        depth = bladder[:, 1].float()
        level = depth.max() - draw.bladder_share * (depth.max() - depth.min())
        settled = ((depth - level) * (spacing_mm / 6) + 0.5).clamp(0, 1)
        now = result[tuple(bladder.T)]
        result[tuple(bladder.T)] = now + settled * (draw.bladder_hu - now)
    return result


def _where(codes: torch.Tensor, key: str) -> torch.Tensor:
    """Indices [n, 3] of a tissue's voxels on both sides."""
    found = np.flatnonzero(tissue_table().is_one_of(key))
    mask = codes == int(found[0])
    for code in found[1:]:
        mask |= codes == int(code)
    return mask.nonzero()


def _loops(points_mm: torch.Tensor, draw: Bowel, generator: torch.Generator) -> torch.Tensor:
    """HU of points [n, 3] in the bowel: loops are the cells of scattered seeds, walls lie midway between two."""
    device = points_mm.device
    low, high = points_mm.amin(0), points_mm.amax(0)
    count = max(4, int((high - low).prod() / draw.loop_mm**3))
    seeds = low + torch.rand(count, 3, generator=generator, device=device) * (high - low)
    nature = torch.rand(3, count, generator=generator, device=device)
    waves = torch.stack([_smooth_at(points_mm, 22.0, generator) for _ in range(3)], 1)
    warped = points_mm + waves * (0.15 * draw.loop_mm)
    crumbs = _stool(points_mm, generator)
    result = torch.empty(len(points_mm), device=device)
    for start in range(0, len(points_mm), CHUNK):
        part = slice(start, start + CHUNK)
        nearest, cell = torch.cdist(warped[part], seeds).topk(3, largest=False)
        own = cell[:, 0]
        height = (warped[part, 1] - seeds[own, 1]) / (0.5 * draw.loop_mm)
        inside = _inside(nature[:, own], -height if draw.head_down else height, crumbs[part], draw)
        between = nearest[:, 1] - nearest[:, 0]
        inside = torch.where(between < 2 * draw.wall_mm, WALL_HU, inside)
        fat = (nearest[:, 2] - nearest[:, 0] < draw.fat_mm) & (between < draw.fat_mm)
        result[part] = torch.where(fat, FAT_HU, inside)
    return result


def _inside(nature: torch.Tensor, height: torch.Tensor, crumbs: torch.Tensor, draw: Bowel) -> torch.Tensor:
    """HU inside loops.

    Args:
        nature: what each point's loop holds, how bright it is and how high its gas reaches, uniform in 0..1, [3, n].
        height: of each point in its loop, from -1 (front) to 1.
        crumbs: the stool that would be there, HU.
        draw: what the bowel holds.
    """
    kind, base, level = nature
    fluid = draw.oral_hu * (0.6 + 0.4 * base) if draw.oral_hu else 5 + 30 * base
    hu = torch.where(kind < draw.gas + draw.stool + draw.fluid, fluid, WALL_HU)
    hu = torch.where(kind < draw.gas + draw.stool, crumbs + 90 * (base - 0.5), hu)
    return torch.where((kind < draw.gas) & (height < 1.2 * level - 0.4), GAS_HU, hu)


def _stool(points_mm: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """HU of stool at points [n, 3]: crumbs, and bubbles of gas."""
    crumbs = 25 + 45 * _smooth_at(points_mm, GRAIN_MM, generator)
    bubbles = _smooth_at(points_mm, GRAIN_MM, generator)
    return crumbs - 350 * (bubbles - 1.2).clamp(min=0)


def _fill_rectum(
    hu: torch.Tensor, places: torch.Tensor, spacing_mm: float, draw: Bowel, generator: torch.Generator
) -> None:
    """Fill the inside of the rectum, behind its wall, in place."""
    low, high = places.amin(0), places.amax(0) + 1
    box = torch.zeros(tuple(int(length) + 2 for length in high - low), device=hu.device)
    box[tuple((places - low + 1).T)] = 1
    reach = max(1, round(2.5 / spacing_mm))
    inner = 1 - functional.max_pool3d((1 - box)[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
    inside = (inner > 0.5).nonzero() - 1 + low
    if len(inside) == 0:
        return
    points = inside.float() * spacing_mm
    if draw.rectum == "gas":
        depth = -points[:, 1] if draw.head_down else points[:, 1]
        share = float(torch.rand((), generator=generator, device=hu.device)) * 0.7 + 0.3
        gas = depth <= depth.min() + share * (depth.max() - depth.min())
        gas &= _smooth_at(points, 30.0, generator) > -0.5
        hu[tuple(inside[gas].T)] = GAS_HU
        return
    hu[tuple(inside.T)] = _stool(points, generator)


def _plaques(
    codes: torch.Tensor, arteries: torch.Tensor, spacing_mm: float, lime: float, generator: torch.Generator
) -> torch.Tensor:
    """Indices [m, 3] of the voxels of arteries whose walls are calcified."""
    last = torch.tensor(codes.shape, device=codes.device) - 1
    wall = torch.zeros(len(arteries), dtype=torch.bool, device=codes.device)
    own = codes[tuple(arteries.T)]
    for axis in (1, 2):
        for step in (-1, 1):
            beside = arteries.clone()
            beside[:, axis] = (beside[:, axis] + step).clamp(min=0).minimum(last[axis])
            wall |= codes[tuple(beside.T)] != own
    plaque = _smooth_at(arteries.float() * spacing_mm, 9.0, generator)
    return arteries[wall & (plaque > float(ndtri(1 - lime)))]


def _smooth_at(points_mm: torch.Tensor, knot_mm: float, generator: torch.Generator) -> torch.Tensor:
    """A smooth random field of about unit SD at points [n, 3]."""
    low, high = points_mm.amin(0), points_mm.amax(0)
    counts = [int(length) + 2 for length in ((high - low) / knot_mm).ceil()]
    knots = torch.randn(counts, generator=generator, device=generator.device)
    where = (points_mm - low) / knot_mm / (torch.tensor(counts, device=points_mm.device) - 1) * 2 - 1
    grid = where.flip(-1)[None, :, None, None, :]
    field = functional.grid_sample(knots[None, None], grid, mode="bilinear", align_corners=True)[0, 0, :, 0, 0]
    return field / field.std().clamp(min=1e-3) if len(field) > 1 else field
