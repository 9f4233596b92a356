"""An endless stream of training patches from synthetic persons: every patch another pose, scanner and noise.

A patch lies where a window of the service would lie on a scan that begins and ends anywhere: the service crops to the
body and spreads its windows evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.preprocessing import Preprocessing
from engine.synthesis.anatomy import upright_grid
from engine.synthesis.clinic import clinical
from engine.synthesis.elsewhere import Elsewhere
from engine.synthesis.person import Person, Sculptor, draw_person
from engine.synthesis.pose import draw_pose
from engine.synthesis.rendering import PosedPerson, part_of, segments_of
from engine.synthesis.scanning import Scanner, draw_scanner, in_view, scan_image
from engine.synthesis.slices import draw_slices
from engine.volume import Grid
from engine.windows import window_starts

LEVELS_MM = (-70.0, 640.0)
"""Lowest and highest level of a scan."""
SHORTEST_MM = 120.0
TOP_SHARE = 0.4
"""Share of scans that reach the top, and of windows that do: the trunk is short, and its muscles are hard to learn."""
SCOUT_MM = 10.0
"""Spacing of the coarse look at where the body lies."""
SCOUT_BOX_MM = (-330.0, -250.0, 330.0, 250.0)
BODY_HU = -300.0
BODY_MARGIN_MM = 8.0
OVERLAP = 0.25
JITTER_VOXELS = 6
PERSONS = 4
"""Persons known at a time."""
PATCHES_OF_A_PERSON = 30
ELSEWHERE_SHARE, OTHERS = 0.06, 2
"""Share of patches that show no thigh but another region, in which there is nothing to find; persons known of these."""
END_MM, SHORTEST_STATURE = 8.0, 0.86
"""Another region ends where it was cut: a scan of it stays within, however small the person."""
NOISE_TILE = 128
GRAINS_MM = (0.8, 1.2, 1.7, 2.3)
AIR_HU = -1024.0

Patch = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class Reuse:
    """How often a patch is shown again, each time with other noise: `times` for each new one, from the last `kept`."""

    times: int = 1
    kept: int = 1


class PatchStream:
    """Endless patches: HU float32 and classes uint8, both [z, y, x].

    Args:
        sculptors: one for each anatomy.
        preprocessing: gives spacing and window.
        seed: every draw follows from it.
        reuse: how often a patch is shown again.
    """

    def __init__(
        self, sculptors: Sequence[Sculptor], preprocessing: Preprocessing, seed: int, reuse: Reuse | None = None
    ) -> None:
        self._sculptors = sculptors
        self._model = preprocessing
        self._rng = np.random.default_rng(seed)
        self._reuse = reuse or Reuse()
        self._persons: list[Person] = []
        self._others: list[Person] = []
        self._elsewhere = Elsewhere()
        self._noises = [_stock(self._rng, grain, preprocessing.spacing_mm) for grain in GRAINS_MM]

    def __iter__(self) -> Iterator[Patch]:
        kept: list[Patch] = []
        while True:
            kept.append(self._patch())
            del kept[: -self._reuse.kept]
            for _ in range(self._reuse.times):
                yield self._shown(kept[self._rng.integers(len(kept))])

    def _patch(self) -> Patch:
        """A patch as it is kept: one person, pose and scanner."""
        rng = self._rng
        person = self._person()
        low, high = _levels(person)
        length = float(rng.uniform(min(SHORTEST_MM, high - low), high - low))
        at_top = rng.random() < TOP_SHARE
        bottom = high - length - float(rng.uniform(0, 40)) if at_top else float(rng.uniform(low, high - length))
        bottom = max(bottom, low)
        slices = draw_slices(rng, bottom, bottom + length)
        scanner = draw_scanner(rng, slices, float(rng.uniform(0.6, 1.0)))
        if not _is_thigh(person):
            scanner = replace(scanner, arms=())  # these have their own
        posed = PosedPerson(person, draw_pose(rng, scanner.prone))
        grid, outside = self._window(posed, (bottom, bottom + length), scanner)
        hu = scan_image(posed, grid, slices, scanner)
        classes = (segments_of(posed.codes(grid)) + 1) // 2
        classes *= in_view(grid, scanner, classes.device)
        hu[outside], classes[outside] = AIR_HU, 0
        return hu.cpu().numpy().astype(np.float32), classes.cpu().numpy()

    def _person(self) -> Person:
        """One of the persons that are known now; now and then a new one takes the place of the oldest."""
        rng = self._rng
        if rng.random() < ELSEWHERE_SHARE:
            if len(self._others) < OTHERS or rng.random() < 1 / PATCHES_OF_A_PERSON:
                self._others.append(self._elsewhere.person(rng))
                del self._others[:-OTHERS]
            return self._others[int(rng.integers(len(self._others)))]
        if len(self._persons) < PERSONS or rng.random() < 1 / PATCHES_OF_A_PERSON:
            sculptor = self._sculptors[int(rng.integers(len(self._sculptors)))]
            self._persons.append(clinical(sculptor.person(draw_person(rng)), rng))
            del self._persons[:-PERSONS]
        return self._persons[int(rng.integers(len(self._persons)))]

    def _window(self, posed: PosedPerson, levels_mm: tuple[float, float], scanner: Scanner) -> tuple[Grid, slice]:
        """The grid of one window over a scan between two levels, and its slices that lie beyond the scan."""
        rng, model = self._rng, self._model
        low, high = _body_box(posed, *levels_mm)
        y, x, radius = scanner.view_mm
        y = -y if scanner.prone else y  # the scanner's rows run down to the table
        low[1:] = np.maximum(low[1:], (y - radius, x - radius))
        high[1:] = np.minimum(high[1:], (y + radius, x + radius))
        spacing = np.array(model.spacing_mm)
        voxels = np.maximum(1, np.rint((high - low) / spacing)).astype(int)
        starts = [window_starts(int(n), size, OVERLAP) for n, size in zip(voxels, model.window, strict=True)]
        start = [int(rng.choice(each)) for each in starts]
        if rng.random() < TOP_SHARE:
            start[0] = starts[0][-1]
        start[1:] = [each + int(rng.integers(-JITTER_VOXELS, JITTER_VOXELS + 1)) for each in start[1:]]
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2] = model.spacing_mm
        affine[:, 3] = (low[2], low[1], low[0], 1.0)
        whole = Grid((int(voxels[0]), int(voxels[1]), int(voxels[2])), affine)
        beyond = slice(max(0, int(voxels[0]) - start[0]), model.window[0])
        return part_of(whole, np.array(start, dtype=np.float64), model.window), beyond

    def _shown(self, patch: Patch) -> Patch:
        """The patch with a little more noise, another offset, and mirrored or not."""
        rng = self._rng
        noise = self._noises[rng.integers(len(self._noises))]
        shifts = rng.integers(0, NOISE_TILE + 1 - np.array(patch[0].shape))
        cut = noise[tuple(slice(int(s), int(s) + n) for s, n in zip(shifts, patch[0].shape, strict=True))]
        hu = patch[0] + np.float32(rng.uniform(-6, 6)) + np.float32(rng.exponential(4.0)) * cut
        if rng.random() < 0.5:
            return np.ascontiguousarray(hu[:, :, ::-1]), np.ascontiguousarray(patch[1][:, :, ::-1])
        return hu, patch[1]


def _levels(person: Person) -> tuple[float, float]:
    """Lowest and highest level at which a scan of a person may begin and end."""
    first = float(person.grid.affine[2, 3])
    last = first + person.grid.spacing_mm[0] * (person.grid.shape[0] - 1)
    if _is_thigh(person):
        return LEVELS_MM
    return first + END_MM, SHORTEST_STATURE * last


def _is_thigh(person: Person) -> bool:
    """Whether the person was drawn from an anatomy of the thighs."""
    return bool(person.anatomy.first.any())


def _body_box(posed: PosedPerson, bottom: float, top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest z, y, x (mm) of the body between two levels, with the service's margin."""
    left, front, right, back = SCOUT_BOX_MM
    shape = [max(2, int((b - a) / SCOUT_MM)) for a, b in ((bottom, top), (front, back), (left, right))]
    scout = upright_grid((shape[0], shape[1], shape[2]), SCOUT_MM, (left, front, bottom))
    body = posed.attenuation(scout) > BODY_HU
    found = torch.nonzero(body).cpu().numpy()
    if not len(found):
        found = np.array([[0, 0, 0], np.array(shape) - 1])
    low = found.min(axis=0) * SCOUT_MM + np.array([bottom, front, left]) - BODY_MARGIN_MM - SCOUT_MM / 2
    high = found.max(axis=0) * SCOUT_MM + np.array([bottom, front, left]) + BODY_MARGIN_MM + SCOUT_MM / 2
    low[0], high[0] = bottom, top
    return low, high


def _stock(rng: np.random.Generator, grain_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Noise of unit SD with a grain in the slices, less of it across them."""
    frequency = [np.fft.fftfreq(NOISE_TILE), np.fft.fftfreq(NOISE_TILE), np.fft.rfftfreq(NOISE_TILE)]
    z, y, x = np.meshgrid(*(f / s for f, s in zip(frequency, spacing_mm, strict=True)), indexing="ij")
    width = 2 * np.pi**2 * grain_mm**2
    damping = np.exp(-width * (0.15 * z**2 + y**2 + x**2))
    white = np.fft.rfftn(rng.standard_normal((NOISE_TILE,) * 3))
    noise = np.fft.irfftn(white * damping, (NOISE_TILE,) * 3, (0, 1, 2))
    return np.asarray(noise / noise.std(), dtype=np.float32)
