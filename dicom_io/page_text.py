"""Type and colours of the picture page, and the few ways in which it draws text.

The font is the one inside Pillow, so that the page looks the same on every machine. It has no more than ASCII.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PIL import ImageDraw, ImageFont

from dicom_io.colours import Rgb

BACKGROUND: Rgb = (13, 15, 19)
PANEL: Rgb = (0, 0, 0)
BAND: Rgb = (28, 32, 40)
RULE: Rgb = (52, 58, 70)
WHITE: Rgb = (240, 243, 247)
GREY: Rgb = (158, 167, 180)
FAINT: Rgb = (96, 104, 118)
AMBER: Rgb = (255, 186, 64)

_RIM = 3  # pixels


@dataclass(frozen=True)
class Style:
    """How a text looks: size in pixels, colour, and whether it is bold."""

    size: int
    colour: Rgb = WHITE
    bold: bool = False


def write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, style: Style, anchor: str = "lm") -> None:
    """Draw one line of text; `anchor` is Pillow's, `lm` being left and middle."""
    weight = 0.45 if style.bold else 0  # the font has one weight; a thin outline makes the second
    draw.text(place, text, fill=style.colour, font=_font(style.size), anchor=anchor, stroke_width=weight)


def write_over(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, style: Style, anchor: str = "lm"
) -> None:
    """Draw one line of text over a picture: a black rim keeps it readable on bright ground."""
    draw.text(place, text, fill=(0, 0, 0), font=_font(style.size), anchor=anchor, stroke_width=_RIM)
    write(draw, place, text, style, anchor)


def width_of(text: str, style: Style) -> float:
    """Width of one line of text, pixels."""
    return float(_font(style.size).getlength(text))


def wrapped(text: str, style: Style, width: float) -> list[str]:
    """The text in lines no wider than `width` pixels; a longer word stands alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", style) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def chip(draw: ImageDraw.ImageDraw, place: tuple[float, float], colour: Rgb, side: int) -> None:
    """Draw a square of colour; `place` is the middle of its left edge."""
    x, y = place
    draw.rounded_rectangle((x, y - side / 2, x + side, y + side / 2), radius=side // 5, fill=colour)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
