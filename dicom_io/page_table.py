"""The table of the picture page: volume and mean attenuation of every structure and group, right and left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from PIL import ImageDraw

from dicom_io.colours import Rgb, group_colour, structure_colour
from dicom_io.findings import segment_figures
from dicom_io.page_text import AMBER, BAND, FAINT, GREY, WHITE, Style, chip, write
from engine.labels import BOTH_SIDES, LabelSet, Side, Structure
from engine.measure import Measurements, SegmentMeasurement

GROUP_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "anterior": "Anterior thigh",
        "medial": "Medial thigh",
        "posterior": "Posterior thigh",
        "gluteal": "Gluteal and hip rotators",
        "else": "Trunk and iliopsoas",
        "bone": "Bone",
    }
)

Rows = Mapping[tuple[str, Side | None], SegmentMeasurement]

# Right edges of the four columns of figures, as parts of the table's width: volume R, L; mean HU R, L.
_EDGES = (0.605, 0.745, 0.875, 0.985)


@dataclass(frozen=True)
class Cell:
    """One side of one row.

    Attributes:
        volume_ml: None where nothing was found.
        mean_hu: None where nothing was found.
        partial: the volume is not whole: the edge of the scan cuts what was found, or a sum lacks a member.
    """

    volume_ml: float | None
    mean_hu: float | None
    partial: bool


@dataclass(frozen=True)
class Row:
    """One row: a structure, or a group with the sums of its structures.

    Attributes:
        name: for people.
        colour: of the structure or the group.
        is_group: whether it is a sum.
        right: of the patient's right.
        left: of the patient's left.
        middle: stands in place of both where the structure, or all of the group, has no side.
    """

    name: str
    colour: Rgb
    is_group: bool
    right: Cell
    left: Cell
    middle: Cell | None = None


@dataclass(frozen=True)
class Area:
    """A rectangle on the page: left, top and width in pixels, and the height of a row."""

    left: int
    top: int
    width: int
    row_height: int


def group_name(group: str) -> str:
    """Name of a group for people."""
    return GROUP_NAMES.get(group, group.replace("_", " ").capitalize())


def groups_of(label_set: LabelSet) -> tuple[str, ...]:
    """The groups in the order in which they first occur."""
    return tuple(dict.fromkeys(structure.group for structure in label_set.structures))


def table_rows(measurements: Measurements, label_set: LabelSet) -> tuple[tuple[Row, ...], ...]:
    """The rows of each group: the group's sums first, then its structures."""
    by_structure: Rows = {(row.segment.structure.key, row.segment.side): row for row in measurements.segments}
    tables = []
    for group in groups_of(label_set):
        members = [structure for structure in label_set.structures if structure.group == group]
        rows = [Row(group_name(group), group_colour(group), True, *_cells(members, by_structure))]
        for member in members:
            cells = _cells([member], by_structure)
            rows.append(Row(member.display, structure_colour(member, label_set), False, *cells))
        tables.append(tuple(rows))
    return tuple(tables)


def split_in_two(tables: Sequence[tuple[Row, ...]]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The rows for the left and the right half of the page, groups kept whole and the halves about equal."""
    total, left, right = sum(map(len, tables)), list[Row](), list[Row]()
    for rows in tables:
        (left if not right and len(left) + len(rows) / 2 <= total / 2 else right).extend(rows)
    return tuple(left), tuple(right)


def draw_table(draw: ImageDraw.ImageDraw, rows: Sequence[Row], area: Area) -> None:
    """Draw the heading and the rows."""
    edges = [area.left + edge * area.width for edge in _EDGES]
    small = Style(19, GREY)
    write(draw, ((edges[0] + edges[1]) / 2 - 22, area.top + 14), "Volume, ml", small, "mm")
    write(draw, ((edges[2] + edges[3]) / 2 - 22, area.top + 14), "Mean, HU", small, "mm")
    if any(row.middle is None for row in rows):
        for edge, side in zip(edges, "RLRL", strict=True):
            write(draw, (edge - 12, area.top + 42), side, Style(20, WHITE, bold=True), "rm")
    y = area.top + 60
    for row in rows:
        _draw_row(draw, row, area, y)
        y += area.row_height


def _draw_row(draw: ImageDraw.ImageDraw, row: Row, area: Area, top: int) -> None:
    middle, right_edge = top + area.row_height / 2, area.left + area.width
    if row.is_group:
        draw.rectangle((area.left, top + 2, right_edge, top + area.row_height - 2), fill=BAND)
        draw.rectangle((area.left, top + 2, area.left + 6, top + area.row_height - 2), fill=row.colour)
        write(draw, (area.left + 18, middle), row.name, Style(22, WHITE, bold=True))
    else:
        draw.line((area.left, top + area.row_height, right_edge, top + area.row_height), fill=(24, 27, 34))
        chip(draw, (area.left + 18, middle), row.colour, 18)
        write(draw, (area.left + 48, middle), row.name, Style(21, WHITE))
    sides = ((row.right, 0.0), (row.left, 1.0)) if row.middle is None else ((row.middle, 0.5),)
    for cell, column in sides:
        volume_at = (area.left + _edge(column) * area.width - 12, middle)
        _draw_figure(draw, volume_at, cell.volume_ml, Style(21, AMBER if cell.partial else WHITE, row.is_group))
        if cell.partial:
            write(draw, (volume_at[0] + 3, middle), "*", Style(21, AMBER, row.is_group))
        hu_at = (area.left + _edge(column + 2) * area.width - 12, middle)
        _draw_figure(draw, hu_at, cell.mean_hu, Style(21, WHITE, row.is_group))


def _draw_figure(draw: ImageDraw.ImageDraw, place: tuple[float, float], value: float | None, style: Style) -> None:
    if value is None:
        write(draw, place, "-", Style(21, FAINT), "rm")
    else:
        write(draw, place, f"{value:.1f}", style, "rm")


def _edge(column: float) -> float:
    """Right edge of a column of figures; a half lies between two of them."""
    return (_EDGES[math.floor(column)] + _EDGES[math.ceil(column)]) / 2


def _cells(members: Sequence[Structure], by_structure: Rows) -> tuple[Cell, Cell, Cell | None]:
    """Right, left and middle of a row: of a group that has both kinds of structure, those with sides."""
    paired = [member.key for member in members if member.paired]
    if not paired:
        nothing = Cell(None, None, False)
        return nothing, nothing, _sum([by_structure[each.key, None] for each in members])
    right, left = (_sum([by_structure[key, side] for key in paired]) for side in BOTH_SIDES)
    return right, left, None


def _sum(rows: Sequence[SegmentMeasurement]) -> Cell:
    """Volumes added, means weighted with the voxels; of what was found."""
    found = [row for row in rows if row.voxels > 0]
    figures = [{figure.quantity: figure.value for figure in segment_figures(row)} for row in found]
    if not found:
        return Cell(None, None, False)
    voxels = sum(row.voxels for row in found)
    mean_hu = sum(row.voxels * figure["mean_hu"] for row, figure in zip(found, figures, strict=True)) / voxels
    partial = len(found) < len(rows) or any(row.truncated for row in found)
    return Cell(sum(figure["volume"] for figure in figures), mean_hu, partial)
