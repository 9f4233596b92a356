"""The picture page: one Secondary Capture that every viewer shows (PS3.3 A.8).

It shows where the structures were found, in the radiological convention, the figures of the report, and what they are
for. No patient attribute is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import highdicom as hd
import numpy as np
from PIL import Image, ImageDraw

from dicom_io.colours import group_colour
from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest
from dicom_io.heading import MAKER, adopt, encoded_sources, maker_attributes, neutral_source, save, state_loss
from dicom_io.page_table import Area, draw_table, group_name, groups_of, split_in_two, table_rows
from dicom_io.page_text import (
    AMBER,
    BACKGROUND,
    GREY,
    PANEL,
    RULE,
    WHITE,
    Style,
    chip,
    width_of,
    wrapped,
    write,
    write_over,
)
from dicom_io.page_warnings import WARNING_HEIGHT, draw_warnings, warnings_of
from dicom_io.planes import Level, Plane, axial_levels, axial_plane, box_of, coronal_plane, femora_of, picture

PAGE_SIZE = (1600, 2000)
_MARGIN = 40
_VIEWS_TOP, _VIEWS_HEIGHT = 226, 846
_STATEMENT_HEIGHT = 58
_CORONAL_WIDTH, _GAP = 600, 16
_AXIAL_HEIGHT = 350
_TABLE_TOP, _TABLE_BOTTOM = 1096, 1926
FOOTNOTE_MARK = "* not whole"
FOOTNOTE = (
    ": the structure touches an edge of the scan; or, in a sum, a member does or was not found.   "
    "- not found.   R / L: the patient's right / left."
)
_BODY_MARGIN_MM = 22.0  # of skin and fat around the structures


def write_page(request: ResultRequest, out: BinaryIO) -> None:
    """Write the page as a DICOM object.

    Raises:
        DicomIoError: no structure was found, or the training statement is too long for the page.
    """
    pixels = np.asarray(draw_page(request))
    source = neutral_source(request.source.headers[0])
    result = hd.sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "F"),  # demanded here, emptied below: a page has several orientations
        study_instance_uid=source.StudyInstanceUID,
        **maker_attributes(request, "sc"),
    )
    adopt(result, request)
    state_loss(result, request.source.headers)
    result.PatientOrientation = []
    # Both sides, which the Laterality of a series cannot say, or none (PS3.3 C.7.3.1, C.7.6.1).
    result.ImageLaterality = "B" if request.findings.segmentation.label_set.has_sides else "U"
    result.ConversionType = "SYN"  # synthetic image, PS3.3 C.8.6.1
    result.DateOfSecondaryCapture = result.InstanceCreationDate
    result.TimeOfSecondaryCapture = result.InstanceCreationTime
    result.BurnedInAnnotation = "NO"
    result.RecognizableVisualFeatures = "NO"
    save(result, out, encoded_sources(request.source.headers))


def draw_page(request: ResultRequest) -> Image.Image:
    """Draw the page, RGB.

    Raises:
        DicomIoError: no structure was found, or the training statement is too long for the page.
    """
    page = Image.new("RGB", PAGE_SIZE, BACKGROUND)
    draw = ImageDraw.Draw(page)
    _draw_heading(draw, request)
    _draw_views(page, draw, request)
    _draw_tables(draw, request)
    return page


def _draw_heading(draw: ImageDraw.ImageDraw, request: ResultRequest) -> None:
    provenance, right = request.provenance, PAGE_SIZE[0] - _MARGIN
    write(draw, (_MARGIN, 58), f"{request.findings.segmentation.label_set.title} on CT", Style(46, WHITE, bold=True))
    write(draw, (right, 44), f"{MAKER} {provenance.software_version}", Style(24, WHITE), "rm")
    model = f"model {provenance.model_name} {provenance.model_version}, {provenance.training_phrase}"
    write(draw, (right, 76), model, Style(21, GREY), "rm")
    statement = " ".join(part for part in (provenance.training_statement, provenance.attribution) if part)
    style, lines = _fitted(statement, right - _MARGIN)
    for number, line in enumerate(lines):
        write(draw, (_MARGIN, 104 + (number + 0.5) * _STATEMENT_HEIGHT / max(2, len(lines))), line, style)
    draw.rounded_rectangle((_MARGIN, 166, right, 210), radius=8, fill=AMBER)
    text = f"{provenance.intended_use.upper()}  -  {provenance.training_phrase}"
    write(draw, (PAGE_SIZE[0] / 2, 188), text, Style(25, BACKGROUND, bold=True), "mm")


def _fitted(statement: str, width: int) -> tuple[Style, list[str]]:
    """Training and attribution in the largest type in which they fit whole."""
    for size in (21, 18, 15):
        style = Style(size, GREY)
        lines = wrapped(statement, style, width)
        if len(lines) <= _STATEMENT_HEIGHT // (size * 1.1):
            return style, lines
    raise DicomIoError("training statement", f"its {len(statement)} characters do not fit the page", "Shorten it")


def _draw_views(page: Image.Image, draw: ImageDraw.ImageDraw, request: ResultRequest) -> None:
    segmentation = request.findings.segmentation
    everything = box_of(segmentation)
    if everything is None:
        raise DicomIoError("segmentation", "it holds no voxel of any structure", "Check that the scan shows them")
    femora = femora_of(segmentation) or everything
    body = everything.grown(_BODY_MARGIN_MM)
    levels = axial_levels(segmentation)

    size = (_CORONAL_WIDTH, _VIEWS_HEIGHT)
    width_mm, depth_mm, height_mm = body.high - body.low
    pixel_mm = max(width_mm / size[0], height_mm / size[1])
    coronal = coronal_plane(float(femora.low[1] + femora.high[1]) / 2, body, pixel_mm, size)
    _place(page, draw, request, coronal, (_MARGIN, _VIEWS_TOP))
    _draw_sides(draw, coronal, (_MARGIN, _VIEWS_TOP), 28)
    _draw_levels(draw, coronal, levels)

    axial_width = (PAGE_SIZE[0] - 2 * _MARGIN - _CORONAL_WIDTH - 2 * _GAP) // 2
    axial_mm = max(width_mm / axial_width, depth_mm / _AXIAL_HEIGHT)
    for number, level in enumerate(levels):
        left = _MARGIN + _CORONAL_WIDTH + _GAP + (number % 2) * (axial_width + _GAP)
        top = _VIEWS_TOP + (number // 2) * (_AXIAL_HEIGHT + _GAP)
        plane = axial_plane(level.z_mm, body, axial_mm, (axial_width, _AXIAL_HEIGHT))
        _place(page, draw, request, plane, (left, top))
        _draw_sides(draw, plane, (left, top), _AXIAL_HEIGHT / 2)
        write_over(draw, (left + 14, top + 22), level.name, Style(24, WHITE, bold=True))
    _draw_legend(draw, request)


def _place(
    page: Image.Image, draw: ImageDraw.ImageDraw, request: ResultRequest, plane: Plane, corner: tuple[int, int]
) -> None:
    """Put the picture of a plane on the page, with a scale of 5 cm."""
    (left, top), (width, height) = corner, plane.size
    page.paste(Image.fromarray(picture(request.findings, plane)), corner)
    draw.rectangle((left, top, left + width - 1, top + height - 1), outline=RULE)
    length = 50 / plane.pixel_mm
    x, y = left + width - 14 - length, top + height - 16
    draw.line((x, y, x + length, y), fill=WHITE, width=3)
    write_over(draw, (x + length / 2, y - 14), "5 cm", Style(17, WHITE), "mm")


def _draw_sides(draw: ImageDraw.ImageDraw, plane: Plane, corner: tuple[int, int], below_top: float) -> None:
    """Mark the patient's right and left; both planes look so that the right is on the left."""
    (left, top), mark = corner, Style(30, WHITE, bold=True)
    write_over(draw, (left + 14, top + below_top), "R", mark, "lm")
    write_over(draw, (left + plane.size[0] - 14, top + below_top), "L", mark, "rm")


def _draw_levels(draw: ImageDraw.ImageDraw, coronal: Plane, levels: Sequence[Level]) -> None:
    """Mark on the coronal picture where the axial ones lie."""
    for level in levels:
        y = _VIEWS_TOP + coronal.row_of(np.array([0.0, 0.0, level.z_mm]))
        for x in range(_MARGIN + 8, _MARGIN + _CORONAL_WIDTH - 8, 14):
            draw.line((x, y, x + 5, y), fill=GREY, width=1)
        write_over(draw, (_MARGIN + 12, y - 13), level.name, Style(18, WHITE))


def _draw_legend(draw: ImageDraw.ImageDraw, request: ResultRequest) -> None:
    left, right = _MARGIN + _CORONAL_WIDTH + _GAP, PAGE_SIZE[0] - _MARGIN
    top = _VIEWS_TOP + 2 * (_AXIAL_HEIGHT + _GAP)
    draw.rectangle((left, top, right, _VIEWS_TOP + _VIEWS_HEIGHT - 1), fill=PANEL, outline=RULE)
    for number, group in enumerate(groups_of(request.findings.segmentation.label_set)):
        x, y = left + 22 + (number % 3) * (right - left) / 3, top + 38 + (number // 3) * 40
        chip(draw, (x, y), group_colour(group), 22)
        write(draw, (x + 34, y), group_name(group), Style(21, WHITE))


def _draw_tables(draw: ImageDraw.ImageDraw, request: ResultRequest) -> None:
    findings = request.findings
    halves = split_in_two(table_rows(findings.measurements, findings.segmentation.label_set))
    width = (PAGE_SIZE[0] - 2 * _MARGIN - 40) // 2
    warnings = warnings_of(findings.flags)
    bottom = _TABLE_BOTTOM - (WARNING_HEIGHT if warnings else 0)
    row_height = min(40, (bottom - _TABLE_TOP - 60) // max(map(len, halves)))
    for rows, left in zip(halves, (_MARGIN, _MARGIN + width + 40), strict=True):
        draw_table(draw, rows, Area(left, _TABLE_TOP, width, row_height))
    if warnings:
        draw_warnings(draw, (_MARGIN, PAGE_SIZE[1] - 66), warnings, PAGE_SIZE[0] - 2 * _MARGIN)
    y = PAGE_SIZE[1] - 34
    write(draw, (_MARGIN, y), FOOTNOTE_MARK, Style(20, AMBER, bold=True))
    write(draw, (_MARGIN + width_of(FOOTNOTE_MARK, Style(20)) + 2, y), FOOTNOTE, Style(20, GREY))
