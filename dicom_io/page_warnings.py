"""The line of warnings on the picture page: what a reader must know before the figures are used."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import ImageDraw

from dicom_io.page_text import AMBER, Style, width_of, write
from engine.flags import FLAG_KINDS, Flag, Policy, RaisedFlag

WARNING_HEIGHT = 30
"""Pixels that the line takes of the page."""
MARK = "!"
_SIZES = (20, 17, 14)
WITHOUT_NUMBER = frozenset({"hip_missing", "knee_missing"})
"""Their number is the length that is shown; here it would be taken for what is missing."""


def warnings_of(raised: Sequence[RaisedFlag]) -> tuple[Flag, ...]:
    """The flags that the page tells."""
    return tuple(each.flag for each in raised if each.policy is not Policy.NOTE)


def draw_warnings(draw: ImageDraw.ImageDraw, place: tuple[float, float], flags: Sequence[Flag], width: float) -> None:
    """Draw the warnings as one line; what has no room is told by its number.

    Args:
        draw: the page.
        place: left end and middle of the line.
        flags: what is told; at least one.
        width: pixels that the line may have.
    """
    text, style = fitted_line(flags, width)
    write(draw, place, text, style)


def fitted_line(flags: Sequence[Flag], width: float) -> tuple[str, Style]:
    """The line in the largest type in which it fits, with as many flags as fit the smallest."""
    for size in _SIZES:
        style = Style(size, AMBER, bold=True)
        if width_of(line := _line(flags, len(flags)), style) <= width:
            return line, style
    shown = next((n for n in range(len(flags) - 1, 0, -1) if width_of(_line(flags, n), style) <= width), 0)
    return _line(flags, shown), style


def _line(flags: Sequence[Flag], shown: int) -> str:
    told = [_words(flag) for flag in flags[:shown]]
    if shown < len(flags):
        told.append(f"and {len(flags) - shown} more, see the report" if shown else f"{len(flags)}, see the report")
    return f"{MARK} Fitness for measurement:  {';  '.join(told)}"


def _words(flag: Flag) -> str:
    """The kind of a flag, with its number."""
    what, unit = FLAG_KINDS[flag.code].what, {"1": "", "[hnsf'U]": " HU", "a": " years"}
    if flag.number is None or flag.code in WITHOUT_NUMBER:
        return what
    return f"{what} ({flag.number:.3g}{unit.get(flag.unit, f' {flag.unit}')})"
