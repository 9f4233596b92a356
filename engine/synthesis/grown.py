"""Parts of a body that a table of shapes is too short for: the spine, the ribs, branching vessels, teeth, fingers.

Coordinates as in `shapes`, mm: x to the left, y to the back, z upward; sided parts are those of the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator

from engine.synthesis.shapes import Ball, Column, Path, Shape
from engine.volume import FloatArray

Grow = Callable[[np.random.Generator], list[Shape]]

# z of the lower end plates from the third lumbar to the second cervical vertebra.
END_PLATES_MM = (
    -36,
    -2,
    31,
    61,
    88,
    113,
    137,
    160,
    182,
    204,
    225,
    245,
    265,
    284,
    302,
    320,
    337,
    354,
    370,
    386,
    402,
    420,
)
DISC_SHARE = 0.16
CURVE_MM = np.array(
    # z; y of the middle of the vertebral bodies; half their width; half their depth
    [
        [-50, 25, 24, 17],
        [0, 25, 23, 17],
        [60, 31, 20, 16],
        [130, 42, 17, 15],
        [190, 53, 15.5, 14],
        [245, 55, 14, 12],
        [300, 42, 14, 10],
        [335, 26, 13, 8.5],
        [370, 12, 12, 8],
        [420, 6, 11, 8],
        [446, 6, 11, 8],
    ]
)
CAGE_MM = np.array(
    # z; y of the middle; half axes of the ring of ribs
    [
        [40, 6, 126, 86],
        [70, 4, 127, 86],
        [100, 6, 134, 91],
        [160, 10, 135, 91],
        [210, 11, 129, 89],
        [250, 15, 117, 79],
        [285, 20, 92, 61],
        [310, 26, 66, 43],
        [328, 30, 46, 28],
    ]
)
FIRST_RIB = 14
"""Place of the first thoracic vertebra among the end plates."""
RIBS = (
    # drop from the spine to the front end, mm; angle of that end, degrees from the side, forward positive
    (20, 66), (40, 64), (55, 62), (66, 60), (74, 56), (80, 50), (84, 44), (82, 34), (76, 24), (68, 10), (52, -20),
    (34, -45),
)  # fmt: skip
STERNAL_RIBS = 7


def spine(rng: np.random.Generator) -> list[Shape]:
    """Bodies, arches and processes of the vertebrae."""
    found: list[Shape] = []
    for number, (low, high) in enumerate(pairwise(END_PLATES_MM)):
        top = high - DISC_SHARE * (high - low)
        middle = (low + top) / 2
        y, wide, deep = _course(CURVE_MM, middle)
        slip = (y - _course(CURVE_MM, top)[0]) * 0.8
        ring = [(low, 1.0), (low + 3, 1.0), (middle, 0.92), (top - 3, 1.0), (top, 1.0)]
        body = [[z, 0, y - slip * (z - middle) / (top - middle + 1), wide * w, deep * w, 0] for z, w in ring]
        found.append(Column(np.array(body)))
        found += _arch(number, middle, (y, wide, deep), top - low)
    ring_mm = _course(CURVE_MM, 432)[0]
    atlas = [(0, ring_mm - 9), (14, ring_mm - 4), (24, ring_mm + 8), (16, ring_mm + 22), (0, ring_mm + 30)]
    for sign in (-1, 1):
        found.append(Path(np.array([[sign * x, y, 432, 4.5] for x, y in atlas])))
        found.append(Path(np.array([[sign * 18, ring_mm + 4, 428, 9], [sign * 38, ring_mm + 6, 432, 5]])))
    found.append(Path(np.array([[0, ring_mm, 415, 6], [0, ring_mm - 2, 440, 5]])))
    return found


def _arch(number: int, z: float, body: tuple[float, float, float], height: float) -> list[Shape]:
    """Pedicles, joints, transverse processes, laminae and spinous process of one vertebra."""
    y, wide, deep = body
    back = y + deep
    thoracic, cervical = 3 <= number <= FIRST_RIB, number > FIRST_RIB
    side = wide * (0.95 if cervical else 0.72)
    reach = wide + (26 if number < 3 else 8 if cervical else 20)
    canal = 20.0 if cervical else 18.0
    tip = 30.0 if number < 3 else 20.0 if cervical else 34.0
    droop = -0.9 * height if thoracic else -0.25 * height
    found: list[Shape] = [
        Path(np.array([[0, back + canal, z - 4, 4], [0, back + canal + tip * 0.6, z - 4 + droop * 0.6, 3.2]])),
        Path(
            np.array([[0, back + canal + tip * 0.6, z - 4 + droop * 0.6, 3.2], [0, back + canal + tip, z + droop, 4]])
        ),
    ]
    for sign in (-1, 1):
        pillar = 6.5 if cervical else 7.5
        found += [
            Path(np.array([[sign * side, back - 4, z + 3, 4.5], [sign * side, back + 9, z + 2, 5.5]])),
            Path(
                np.array([[sign * side, back + 10, z - height / 2, pillar], [sign * side, back + 9, z + height / 2, 5]])
            ),
            Path(np.array([[sign * side, back + 10, z, 4.5], [sign * 2, back + canal, z - 3, 4]])),
        ]
        ahead = -8 if cervical else 4 if number < 3 else 14
        found.append(Path(np.array([[sign * side, back + 8, z + 2, 5], [sign * reach, back + ahead, z + 3, 4]])))
    return found


def discs(rng: np.random.Generator) -> list[Shape]:
    """The discs between the vertebrae."""
    found: list[Shape] = []
    for low, high in pairwise(END_PLATES_MM):
        start = high - DISC_SHARE * (high - low)
        y, wide, deep = _course(CURVE_MM, (start + high) / 2)
        found.append(Column(np.array([[start, 0, y, wide, deep, 0], [high, 0, y, wide, deep, 0]])))
    return found


def canal(rng: np.random.Generator) -> list[Shape]:
    """The dural sac."""
    return [Column(np.array([[z, 0, y + deep + 9, 9.5, 7, 0] for z, y, _, deep in CURVE_MM]))]


def cord(rng: np.random.Generator) -> list[Shape]:
    """The spinal cord; below the first lumbar vertebra the nerve roots."""
    points = [[0, y + deep + 9, z, 2.5 if z < 30 else 4.2] for z, y, _, deep in CURVE_MM]
    return [Path(np.array([*points, [0, 4, 470, 6]]))]


def ribs(rng: np.random.Generator) -> list[Shape]:
    """The bony ribs of one side."""
    return [Path(np.column_stack([_rib(number), np.full(RIB_POINTS, 4.2)])) for number in range(len(RIBS))]


def costal(rng: np.random.Generator) -> list[Shape]:
    """The cartilages that join the ribs to the sternum."""
    found: list[Shape] = []
    for number in range(STERNAL_RIBS + 3):
        end = _rib(number)[-1]
        goal = max(min(end[2] + 24, 280 - 22 * number), 132)
        middle = [end[0] * 0.5, min(end[1] - 8, -40), (end[2] * 2 + goal) / 3]
        at = np.array([end, middle, [14, -78 + 0.22 * max(0, goal - 210), goal]])
        found.append(Path(np.column_stack([at, [4.5, 5, 5]])))
    return found


RIB_POINTS = 16


def _rib(number: int) -> FloatArray:
    """The middle line of a rib, [RIB_POINTS, 3]."""
    plate = FIRST_RIB - number
    z = float(END_PLATES_MM[plate + 1]) - 3
    y, wide, deep = _course(CURVE_MM, z)
    drop, last_deg = RIBS[number]
    share = np.linspace(0, 1, RIB_POINTS - 2)
    level = z - 4 - drop * share**1.2
    angle = np.radians(-64 + (last_deg + 64) * share)
    middle, half_x, half_y = (PchipInterpolator(CAGE_MM[:, 0], column)(level) for column in CAGE_MM.T[1:])
    ring = np.column_stack([half_x * np.cos(angle), middle - half_y * np.sin(angle), level])
    neck = np.array([[wide + 2, y + deep - 2, z], [wide + 16, y + deep + 9, z - 1]])
    return np.vstack([neck, ring])


def lung_vessels(rng: np.random.Generator) -> list[Shape]:
    """Vessels that fan out from the hilum of the left lung."""
    return _tree(rng, (np.array([40.0, 4, 222]), np.array([100.0, 95, 120])), 70, (3.6, 1.0))


def airways(rng: np.random.Generator) -> list[Shape]:
    """Bronchi of the lung."""
    return _tree(rng, (np.array([36.0, 14, 228]), np.array([55.0, 60, 70])), 9, (4.6, 2.2))


def liver_veins(rng: np.random.Generator) -> list[Shape]:
    """Hepatic veins and branches of the portal vein."""
    hepatic = _tree(rng, (np.array([-24.0, -2, 150]), np.array([90.0, 80, 90])), 10, (4.5, 1.5))
    return hepatic + _tree(rng, (np.array([-34.0, -12, 92]), np.array([90.0, 70, 60])), 14, (4.5, 1.5))


def _tree(
    rng: np.random.Generator, room: tuple[FloatArray, FloatArray], count: int, radii: tuple[float, float]
) -> list[Shape]:
    """Bent lines from a root in all directions, each with a branch."""
    root, reach = room
    found: list[Shape] = []
    for _ in range(count):
        way = rng.normal(size=3)
        way *= reach * rng.uniform(0.6, 1.1) / np.linalg.norm(way)
        share = np.linspace(0, 1, 6)[:, None]
        bend = rng.normal(0, 0.12, 3) * reach
        line = root + way * share + bend * (share * (1 - share) * 4)
        thick = radii[0] * rng.uniform(0.7, 1.0)
        found.append(Path(np.column_stack([line, np.interp(share[:, 0], [0, 1], [thick, radii[1]])])))
        fork = line[2 + rng.integers(2)]
        aside = way * 0.5 + rng.normal(0, 0.22, 3) * reach
        found.append(Path(np.column_stack([[fork, fork + aside], [thick * 0.6, radii[1] * 0.8]])))
    return found


def mastoid_cells(rng: np.random.Generator) -> list[Shape]:
    """Bony bubbles behind the ear."""
    places = rng.normal(0, 1, (16, 3)) * (5, 8, 8) + (62, 26, 460)
    return [Ball(place, np.full(3, radius)) for place, radius in zip(places, rng.uniform(2, 4.5, 16), strict=True)]


def sulci(rng: np.random.Generator) -> list[Shape]:
    """Furrows that wander over the left hemisphere."""
    found: list[Shape] = []
    depth = rng.uniform(0.5, 1.6)
    for _ in range(42):
        way = rng.normal(size=3)
        way[0], way[2] = abs(way[0]) + 0.1, abs(way[2]) - 0.15
        turn = rng.normal(0, 0.16, 3)
        line = []
        for _ in range(7):
            way = way / np.linalg.norm(way) + turn + rng.normal(0, 0.06, 3)
            line.append(way / np.linalg.norm(way))
        inwards = rng.uniform(0.86, 0.99)
        place = np.array(line) * np.array([62.5, 81.5, 58.6]) * inwards + (0, -10, 514)
        found.append(Path(np.column_stack([place, np.full(7, depth * rng.uniform(0.6, 1.4))])))
    return found


def eye_muscles(rng: np.random.Generator) -> list[Shape]:
    """The four straight muscles of the left eye."""
    tip, ball = np.array([14, -46, 485]), np.array([32, -90, 484])
    found: list[Shape] = []
    for aside in ([-10, 0, 0], [11, 0, 0], [0, 0, 10], [0, 0, -10]):
        belly = (tip + ball) / 2 + np.array(aside) * 0.9
        found.append(Path(np.column_stack([[tip, belly, ball + aside], [1.2, 2.2, 1.2]])))
    return found


def ethmoid(rng: np.random.Generator) -> list[Shape]:
    """Air cells between nose and orbit."""
    return [
        Ball(np.array([9.0, -y, z]), np.array([6.0, 6.5, 7.0]) * rng.uniform(0.85, 1.15))
        for y in (50, 61, 72, 83)
        for z in (474, 486)
    ]


def teeth(rng: np.random.Generator) -> list[Shape]:
    """Two rows of teeth; some have gone."""
    found: list[Shape] = []
    missing = rng.choice([0.03, 0.2, 0.8], p=[0.6, 0.3, 0.1])
    angles = np.radians(np.linspace(8, 78, 7))
    for z, (half_x, half_y) in ((425.0, (26, 42)), (411.0, (26, 40))):
        for sign in (-1, 1):
            for angle in angles[rng.random(len(angles)) > missing]:
                place = np.array([sign * half_x * np.sin(angle) ** 0.8, -54 - half_y * np.cos(angle), z])
                found.append(Ball(place, np.array([3.6, 3.8, 8.5])))
    return found


def tarsals(rng: np.random.Generator) -> list[Shape]:
    """Small bones of the foot."""
    middle = ((-10, 44, -414), (12, 26, -428), (-12, 58, -420), (-2, 60, -419), (7, 58, -422))
    radii = ((12, 8, 12), (10, 14, 9), (7, 9, 10), (5.5, 8, 9), (5.5, 8, 8))
    return [
        Ball(np.array([x, -y, z]), np.array(r, dtype=np.float64)) for (x, y, z), r in zip(middle, radii, strict=True)
    ]


def metatarsals(rng: np.random.Generator) -> list[Shape]:
    """Metatarsals and toes."""
    found: list[Shape] = []
    for number, (start, x) in enumerate(zip((68, 70, 69, 60, 46), (-16, -5, 4, 13, 22), strict=True)):
        thick = 6.5 if number == 0 else 4.0
        head = np.array([x * 1.5 - 2, -(128 - 5 * number), -452])
        base = np.array([x * 0.9, -start, -424 - 2.5 * number])
        ball = np.append(head, thick + 1.2)
        found.append(Path(np.array([[*base, thick + 1], [*(base + head) / 2, thick - 1], ball])))
        tip = head + np.array([2, -46 + 5 * number, -2])
        found.append(Path(np.array([[*head, thick - 0.8], [*tip, thick - 1.4]])))
    return found


FINGERS = (
    # x and z of the knuckle, x and z of the tip, half thickness, mm
    (-27, 96, -33, 24, 7.6),
    (-9, 94, -10, 6, 8.0),
    (9, 96, 11, 14, 7.6),
    (26, 102, 32, 36, 6.6),
)


def fingers(rng: np.random.Generator) -> list[Shape]:
    """The flesh of fingers and thumb, bent as they rest."""
    found: list[Shape] = [Path(np.array([*([*at, 8.5] for at in _finger(*each[:4]))])) for each in FINGERS]
    return [*found, Path(np.array([[-30, -4, 140, 11], [-46, -10, 112, 10], [-56, -12, 76, 8.5]]))]


def hand_bones(rng: np.random.Generator) -> list[Shape]:
    """Metacarpals and phalanges."""
    found: list[Shape] = []
    for x, z, tip_x, tip_z, half in FINGERS:
        found.append(Path(np.array([[x * 0.45, 0, 154, 6], [x * 0.8, 0, 124, 4], [x, 0, z + 6, 6]])))
        line = _finger(x, z, tip_x, tip_z)
        for (start, end), thick in zip(pairwise(line), (0.68, 0.6, 0.5), strict=True):
            gap = (end - start) * 0.07
            found.append(Path(np.array([[*(start + gap), half * thick], [*(end - gap), half * thick * 0.9]])))
    found.append(Path(np.array([[-18, -3, 152, 6], [-40, -8, 122, 5.5]])))
    return [
        *found,
        Path(np.array([[-42, -9, 117, 5], [-50, -11, 95, 4.5]])),
        Path(np.array([[-51, -11, 90, 4.4], [-55, -12, 76, 3.6]])),
    ]


def _finger(x: float, z: float, tip_x: float, tip_z: float) -> FloatArray:
    """Knuckle, two joints and tip."""
    share = np.array([0, 0.46, 0.77, 1.0])
    y = -np.array([0, 5.0, 15.0, 24.0])
    return np.column_stack([x + share * (tip_x - x), y, z + share * (tip_z - z)])


def carpals(rng: np.random.Generator) -> list[Shape]:
    """The two rows of the wrist."""
    found: list[Shape] = []
    for z, places in ((177.0, (-14, -2, 10, 17)), (163.0, (-16, -6, 4, 14))):
        for x in places:
            found.append(Ball(np.array([x, rng.normal(0, 1), z]), np.array([6.5, 7.5, 7.2])))
    return found


GROWN: Mapping[str, Grow] = {
    "airways": airways,
    "branches": liver_veins,
    "bronchi": lung_vessels,
    "canal": canal,
    "carpals": carpals,
    "cells": mastoid_cells,
    "cord": cord,
    "costal": costal,
    "discs": discs,
    "ethmoid": ethmoid,
    "eye_muscles": eye_muscles,
    "fingers": fingers,
    "hand_bones": hand_bones,
    "metatarsals": metatarsals,
    "ribs": ribs,
    "spine": spine,
    "sulci": sulci,
    "tarsals": tarsals,
    "teeth": teeth,
}


def _course(table: FloatArray, z: float) -> FloatArray:
    return np.array([np.interp(z, table[:, 0], column) for column in table.T[1:]])
