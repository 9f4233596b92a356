"""The parts of bodies in `elsewhere.csv`, and how they are painted into a grid as marks.

Coordinates of the table, mm: x to the left, y forward, z upward. A ball is `x y z rx ry rz turn tilt` (half axes;
turn about z, tilt about x, degrees), a column `z x y rx ry turn` for each of its levels, a path `x y z r` for each of
its points; other kinds are grown. A sided part is that of the left. Later parts hide earlier ones.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from engine.synthesis.grown import GROWN
from engine.synthesis.painting import Half
from engine.synthesis.shapes import Ball, Column, Layer, Path, Shape, paint
from engine.volume import FloatArray

OUTSIDE, AIR_INSIDE = "outside", "air"
MUSCLES = ("other_muscle", "calf_muscle")
SEAM = "intermuscular_fat"
MARKS = 256
SIDE_SHARE = 0.4
"""How much of a part's variation each side has for itself."""


@dataclass(frozen=True)
class Piece:
    """One row of the table.

    Attributes:
        body: whose part it is: "upper", "legs" or "arm".
        name: its name.
        tissue: of its wall, or of all of it where it has none.
        kind: of shape.
        sided: whether there is one on each side.
        wall_mm: thickness of the wall; 0 for none.
        inside: tissue behind the wall.
        over: tissues that it may hide; empty for all.
        chance: in which share of persons it is there.
        size_sd: SD of its thickness, as a share.
        shift_mm: SD of its place.
        afar: by how much it moves to the side with the fat beneath the skin, as a share of that.
        points: as the table has them.
    """

    body: str
    name: str
    tissue: str
    kind: str
    sided: bool
    wall_mm: float
    inside: str
    over: tuple[str, ...]
    chance: float
    size_sd: float
    shift_mm: float
    afar: float
    points: str

    def shapes(self, rng: np.random.Generator) -> list[Shape]:
        """Its shapes, on the left or in the middle."""
        if self.kind in GROWN:
            return GROWN[self.kind](rng)
        rows = np.array([[float(number) for number in row.split()] for row in self.points.split(";")])
        return [SHAPES[self.kind](rows)]


def _ball(rows: FloatArray) -> Shape:
    x, y, z, *radii, turn, tilt = rows[0]
    return Ball(np.array([x, -y, z]), np.array(radii), (-float(turn), -float(tilt)))


def _column(rows: FloatArray) -> Shape:
    return Column((rows * (1, 1, -1, 1, 1, -1))[np.argsort(rows[:, 0])])


def _path(rows: FloatArray) -> Shape:
    return Path(rows * (1, -1, 1, 1))


SHAPES: dict[str, Callable[[FloatArray], Shape]] = {"ball": _ball, "column": _column, "path": _path}


@cache
def pieces(body: str) -> tuple[Piece, ...]:
    """The parts of a body, in the order of the table."""
    text = files("engine.synthesis").joinpath("elsewhere.csv").read_text(encoding="utf-8")
    return tuple(
        Piece(
            row["body"],
            row["part"],
            row["tissue"],
            row["kind"],
            row["sided"] == "1",
            float(row["wall_mm"]),
            row["inside"] or row["tissue"],
            tuple(row["over"].split()),
            float(row["chance"]),
            float(row["size_sd"]),
            float(row["shift_mm"]),
            float(row["afar"]),
            row["points"],
        )
        for row in csv.DictReader(text.splitlines())
        if row["body"] == body
    )


@dataclass(frozen=True)
class Placed:
    """Shapes of a piece on one side of one person: -1 right, 1 left, 0 in the middle."""

    piece: Piece
    side: int
    shapes: tuple[Shape, ...]

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Two corners (x, y, z) of a box that holds it."""
        low, high = zip(*(shape.bounds_mm() for shape in self.shapes), strict=True)
        return np.min(low, axis=0), np.max(high, axis=0)


def draw_pieces(body: str, rng: np.random.Generator, fat_mm: float, apart_mm: float = 0.0) -> list[Placed]:
    """The parts of one person.

    Args:
        body: which.
        rng: everything is drawn from it.
        fat_mm: fat beneath the skin.
        apart_mm: by how much sided parts move to their side.
    """
    found = []
    for piece in pieces(body):
        there = rng.random() < piece.chance
        both_size, both_shift = rng.normal(), rng.normal(0, 1, 3)
        for side in (-1, 1) if piece.sided else (0,):
            own = SIDE_SHARE * (side != 0)
            size = float(np.exp(piece.size_sd * (both_size + own * rng.normal())))
            shift = piece.shift_mm * (both_shift + own * rng.normal(0, 1, 3))
            shift[0] += apart_mm + piece.afar * fat_mm if side else -0.5 * shift[0]
            varied = (shape.varied(size, shift) for shape in piece.shapes(rng))
            shapes = tuple(shape.mirrored() if side < 0 else shape for shape in varied)
            if there and shapes:
                found.append(Placed(piece, side, shapes))
    return found


@dataclass
class Palette:
    """What the marks in a volume stand for: each muscle has a mark of its own, other tissues one each.

    Attributes:
        keys: tissue of each mark; mark 0 is the air outside.
    """

    keys: list[str] = field(default_factory=lambda: [OUTSIDE])

    def mark(self, key: str) -> int:
        """The mark of a tissue."""
        if key not in self.keys:
            self.keys.append(key)
        return self.keys.index(key)

    def own_mark(self, key: str) -> int:
        """A new mark of a tissue; the first one where there is no room for more."""
        if len(self.keys) >= MARKS - 1:
            return self.mark(key)
        self.keys.append(key)
        return len(self.keys) - 1

    def marks_of(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a mark is one of some tissues, bool [256]."""
        table = np.zeros(MARKS, dtype=bool)
        table[: len(self.keys)] = [key in keys for key in self.keys]
        return table


def paint_pieces(placed: Sequence[Placed], axes: Half, gap_mm: float) -> tuple[NDArray[np.uint8], Palette]:
    """Paint a person.

    Args:
        placed: the parts.
        axes: the grid.
        gap_mm: width of the fat between muscles.

    Returns:
        Marks, uint8 [z, y, x], and what they stand for.
    """
    palette = Palette()
    marks = np.zeros(axes.shape, dtype=np.uint8)
    for each in placed:
        piece = each.piece
        low, high = each.bounds_mm()
        if high[2] < axes.z[0] or low[2] > axes.z[-1]:
            continue
        muscle = piece.tissue in MUSCLES and not piece.wall_mm
        apart = palette.marks_of(MUSCLES) if muscle else np.zeros(MARKS, dtype=bool)
        inside = palette.own_mark(piece.inside) if muscle else palette.mark(piece.inside)
        layer = Layer(
            wall=palette.mark(piece.tissue) if piece.wall_mm else inside,
            wall_mm=piece.wall_mm,
            inside=inside,
            over=palette.marks_of(piece.over) if piece.over else np.ones(MARKS, dtype=bool),
            gap_mm=gap_mm if muscle else 0.0,
            seam=palette.mark(SEAM),
            apart=apart,
        )
        paint(marks, axes, each.shapes, layer)
    return marks, palette
