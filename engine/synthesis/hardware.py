"""What implants consist of: stems, heads, cups, nails, screws and plates, measured to the femur that bears them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.synthesis.solids import Ball, Bowl, Cone, Path, Rod, Solid
from engine.volume import FloatArray

NECK_RISE = 0.78
"""Rise of the neck over its way inwards: tangent of 38 degrees."""
PLASTIC_HU = -60.0
"""Polyethylene between head and cup, or on the tibia."""
CEMENT_HU = (500.0, 1600.0)
"""PMMA with barium or zirconium."""


@dataclass(frozen=True, eq=False)
class Femur:
    """One femur and what is measured on it, mm.

    Attributes:
        sign: of x towards the outside: -1 right, 1 left.
        hip: centre of the femoral head (x, y, z): that of the largest ball inside the bone.
        head_mm: radius of that ball.
        knee: centre of the knee joint.
        shaft: the middle of the femur's shaft, from there to the greater trochanter and on straight.
        points: its voxels (x, y, z), [n, 3].
        rng: source of the implant's measures.
    """

    sign: float
    hip: FloatArray
    head_mm: float
    knee: FloatArray
    shaft: Path
    points: FloatArray
    rng: np.random.Generator

    @property
    def root(self) -> FloatArray:
        """Where the neck's axis leaves the shaft's middle, at an angle of about 128 degrees."""
        offset = abs(self.hip[0] - self.shaft.at(self.hip[2] - 28.0)[0])
        return self.shaft.at(self.hip[2] - NECK_RISE * offset)

    @property
    def neck(self) -> FloatArray:
        """Unit vector from the root to the head's centre."""
        way = self.hip - self.root
        return np.asarray(way / np.linalg.norm(way))

    def lateral_mm(self, z_mm: float) -> float:
        """How far outside the shaft's middle the bone's outer surface lies at a level."""
        near = np.abs(self.points[:, 2] - z_mm) < 2.0
        if not near.any():
            return 14.0
        return float((self.sign * (self.points[near, 0] - self.shaft.at(z_mm)[0])).max())

    def draw(self, low: float, high: float) -> float:
        """A measure, uniform in a range."""
        return float(self.rng.uniform(low, high))


@dataclass(frozen=True, eq=False)
class Shell:
    """A metal shell on the end of a bone: what of it lies in `within` and is lost when it is shifted by (z, y) mm."""

    within: Solid
    shifts_mm: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Parts:
    """What an implant consists of: solids of metal, and others with their HU; where bone was sawn off."""

    metal: tuple[Solid, ...] = ()
    other: tuple[tuple[Solid, float], ...] = ()
    sawn: tuple[Solid, ...] = ()
    shells: tuple[Shell, ...] = ()


def _stem(bone: Femur) -> tuple[Solid, ...]:
    """A stem in the shaft and its neck up to the hip's centre."""
    shoulder = bone.hip[2] - bone.draw(38, 48)
    tip = shoulder - bone.draw(95, 150)
    width = bone.draw(5.0, 6.5)
    root = bone.shaft.at(shoulder)
    middle = root + (bone.hip - root) * 0.3
    return (
        Rod(bone.shaft, tip, shoulder, (width * 0.7, width * 1.25)),
        Cone(bone.shaft.at(shoulder - 25), middle, (width, 7.5)),
        Cone(middle, bone.hip, (7.5, bone.draw(5.5, 7.0))),
    )


def _sawn(bone: Femur) -> Cone:
    """Head and neck, which are taken out."""
    return Cone(bone.hip - bone.neck * bone.draw(30, 40), bone.hip + bone.neck * 40, (19.0, 34.0))


def _total_hip(bone: Femur) -> Parts:
    """Stem, head, plastic and cup."""
    cup = bone.head_mm + bone.draw(3.0, 6.5)
    inner = cup - bone.draw(2.5, 4.5)
    head = min(18.0, inner - bone.draw(3.0, 7.0))
    dome = np.array([-bone.sign * 0.68, 0.25, 0.69]) + bone.rng.normal(0, 0.08, 3)
    dome /= np.linalg.norm(dome)
    metal = (*_stem(bone), Ball(bone.hip, head), Bowl(bone.hip, inner, cup, dome))
    return Parts(metal, ((Bowl(bone.hip, head, inner, dome), PLASTIC_HU), *_cement(bone)), (_sawn(bone),))


def _half_hip(bone: Femur) -> Parts:
    """Stem and a head as large as the one it replaces."""
    head = Ball(bone.hip, bone.head_mm + bone.draw(0.0, 2.0))
    return Parts((*_stem(bone), head), _cement(bone), (_sawn(bone),))


def _cement(bone: Femur) -> tuple[tuple[Solid, float], ...]:
    """Cement around a stem, in 40 %."""
    if bone.rng.random() >= 0.4:
        return ()
    mantle = Rod(bone.shaft, bone.hip[2] - 160, bone.hip[2] - 45, (7.0, 10.0))
    return ((mantle, bone.draw(*CEMENT_HU)),)


def _lag_screw(bone: Femur, radius_mm: float, aside: FloatArray) -> Cone:
    """A screw from the outer cortex through the neck into the head."""
    root, neck = bone.root, bone.neck
    outside = -neck * (bone.lateral_mm(root[2] - 14) / max(abs(neck[0]), 0.5) + bone.draw(0, 5))
    inside = neck * (bone.head_mm - bone.draw(6, 14))
    return Cone(root + outside + aside, bone.hip + inside + aside, (radius_mm, radius_mm))


def _across(bone: Femur, z_mm: float, radius_mm: float, head_mm: float = 2.0) -> Cone:
    """A screw from the outside through the shaft."""
    middle = bone.shaft.at(z_mm)
    out = np.array([bone.sign, 0.0, 0.0])
    reach = bone.lateral_mm(z_mm)
    return Cone(middle + out * (reach + head_mm), middle - out * (reach + bone.draw(0, 3)), (radius_mm, radius_mm))


def _nail(bone: Femur) -> Parts:
    """A nail in the shaft with a screw through the neck and one or two locks at its end."""
    top = bone.hip[2] + bone.draw(-4, 8)
    long = bone.rng.random() < 0.4
    low = bone.knee[2] + bone.draw(45, 90) if long else top - bone.draw(170, 240)
    radius = bone.draw(4.6, 6.0)
    thick = bone.draw(7.2, 8.6)
    locks = [low + 12, low + 32][: int(bone.rng.integers(1, 3))]
    return Parts(
        (
            Rod(bone.shaft, low, top - 90, (radius, radius)),
            Rod(bone.shaft, top - 90, top, (radius, thick)),
            _lag_screw(bone, bone.draw(4.8, 5.5), np.zeros(3)),
            *(_across(bone, level, 2.5) for level in locks),
        )
    )


def _neck_screws(bone: Femur) -> Parts:
    """Two or three parallel screws in the neck."""
    up = np.cross(bone.neck, np.array([0.0, 1.0, 0.0]))
    up /= np.linalg.norm(up)
    front = np.cross(bone.neck, up)
    apart = bone.draw(6.0, 8.5)
    corners = [(0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)][: int(bone.rng.integers(2, 4))]
    radius = bone.draw(2.9, 3.7)
    return Parts(tuple(_lag_screw(bone, radius, apart * (a * front + b * up)) for a, b in corners))


def _plate(bone: Femur, low: float, high: float) -> tuple[Solid, ...]:
    """A plate on the outer surface of the shaft, with screws across."""
    levels = np.linspace(low, high, max(4, int((high - low) / 12)))
    thick = bone.draw(4.0, 5.8) / 2
    side = [bone.sign * (bone.lateral_mm(float(level)) + thick) for level in levels]
    surface = bone.shaft.at(levels)
    surface[:, 0] += np.convolve(np.pad(side, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    screws = np.arange(low + 8, high - 4, bone.draw(16, 24))
    kept = [level for level in screws if bone.rng.random() < 0.8]
    plate = Rod(Path(surface), low, high, (thick, thick), flat=(1.0, bone.draw(1.6, 2.1) * 2))
    return (plate, *(_across(bone, float(level), bone.draw(1.9, 2.4), 4.0) for level in kept))


def _shaft_plate(bone: Femur) -> Parts:
    room = bone.hip[2] - bone.knee[2]
    low = bone.knee[2] + bone.draw(0.15, 0.35) * room
    return Parts(_plate(bone, low, low + bone.draw(0.3, 0.45) * room))


def _hip_screw(bone: Femur) -> Parts:
    """A sliding screw in the neck and a short plate below it."""
    high = bone.hip[2] - 45
    low = high - bone.draw(70, 120)
    return Parts((_lag_screw(bone, bone.draw(4.0, 6.0), np.zeros(3)), *_plate(bone, low, high)))


def _knee(bone: Femur) -> Parts:
    """A shield on the condyles, a tray with its keel on the tibia, plastic between."""
    x, y, z = bone.knee
    gap = z - bone.draw(0, 3)
    thick = bone.draw(5.5, 8.0)
    box = Cone(np.array([x, y, gap - 4]), np.array([x, y, z + bone.draw(38, 52)]), (52.0, 52.0))
    straight = Path(np.array([[x, y, z - 80.0], [x, y, z]]))
    tray = gap - bone.draw(9, 13)
    oval = (1.0, bone.draw(0.6, 0.68))
    width = bone.draw(32, 37)
    return Parts(
        metal=(
            Rod(straight, tray - 4, tray, (width, width), flat=oval),
            Rod(straight, tray - bone.draw(35, 60), tray, (5.0, 8.0)),
        ),
        other=((Rod(straight, tray, gap + 2, (width - 2, width - 2), flat=oval), PLASTIC_HU),),
        shells=(Shell(box, ((thick, 0.0), (0.0, thick), (0.0, -thick))),),
    )


@dataclass(frozen=True)
class Kind:
    """A kind of implant.

    Attributes:
        share: of all implants.
        titanium: share that is made of it; the others are of steel or cobalt.
        build: its parts for a femur.
    """

    share: float
    titanium: float
    build: Callable[[Femur], Parts]


KINDS = {
    # Shares are chosen, not measured: replaced hips are common where thighs are scanned, and hardest to segment.
    "total_hip": Kind(0.42, 0.5, _total_hip),
    "half_hip": Kind(0.10, 0.4, _half_hip),
    "nail": Kind(0.18, 0.8, _nail),
    "hip_screw": Kind(0.08, 0.3, _hip_screw),
    "neck_screws": Kind(0.06, 0.5, _neck_screws),
    "plate": Kind(0.04, 0.5, _shaft_plate),
    "knee": Kind(0.12, 0.1, _knee),
}
