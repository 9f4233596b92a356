"""The colour of every structure: one hue for a group, its shades for the structures, the same left and right."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from types import MappingProxyType

from engine.labels import LabelSet, Structure

Rgb = tuple[int, int, int]

# Hue in degrees and saturation. Neighbouring groups lie far apart; bone is ivory.
_GROUPS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "anterior": (4.0, 0.72),
        "medial": (212.0, 0.68),
        "posterior": (128.0, 0.50),
        "gluteal": (38.0, 0.82),
        "else": (284.0, 0.48),
        "bone": (48.0, 0.22),
    }
)
_UNKNOWN_GROUP = (180.0, 0.35)
_HUE_SPREAD_DEGREES = 22.0
_LIGHTNESS = (0.42, 0.74)


def group_colour(group: str) -> Rgb:
    """The colour that stands for a whole group, as in a legend; sRGB, 0..255."""
    hue, saturation = _GROUPS.get(group, _UNKNOWN_GROUP)
    return _rgb(hue, sum(_LIGHTNESS) / 2, saturation)


def structure_colour(structure: Structure, label_set: LabelSet) -> Rgb:
    """The shade of a structure, sRGB, 0..255.

    Neighbours in the list are mostly neighbours in the body, so the shades alternate between dark and light.
    """
    members = [other.value for other in label_set.structures if other.group == structure.group]
    place, count = members.index(structure.value), len(members)
    hue, saturation = _GROUPS.get(structure.group, _UNKNOWN_GROUP)
    if count == 1:
        return group_colour(structure.group)
    half = (count + 1) // 2
    step = place // 2 + (half if place % 2 else 0)  # even places take the darker half, odd places the lighter
    low, high = _LIGHTNESS
    lightness = low + (high - low) * step / (count - 1)
    return _rgb(hue + _HUE_SPREAD_DEGREES * (place / (count - 1) - 0.5), lightness, saturation)


def _rgb(hue_degrees: float, lightness: float, saturation: float) -> Rgb:
    red, green, blue = colorsys.hls_to_rgb(hue_degrees / 360 % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)
