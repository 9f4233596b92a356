"""The picture page: what lies where, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.colours import structure_colour
from dicom_io.errors import DicomIoError
from dicom_io.findings import Findings, ResultRequest
from dicom_io.page_table import split_in_two, table_rows
from dicom_io.page_text import AMBER, Style, width_of, wrapped
from dicom_io.pages import FOOTNOTE, FOOTNOTE_MARK, PAGE_SIZE, draw_page, write_page
from dicom_io.planes import Box, axial_levels, axial_plane, box_of, coronal_plane, picture
from engine.labels import Side, thigh29
from engine.measure import Measurements, SegmentMeasurement
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume

MakeRequest = Callable[..., ResultRequest]

LOW, HIGH = np.array([-30.0, -20.0, -40.0]), np.array([30.0, 20.0, 40.0])
FLIPS = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)]


def findings_of(flip: tuple[int, int, int]) -> Findings:
    """A box of 60 x 40 x 80 mm; its right, front, upper eighth is the right sartorius, whatever the grid."""
    spacing = np.array([4.0, 2.0, 1.0])  # z, y, x
    shape = (20, 20, 60)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, world in enumerate((2, 1, 0)):
        affine[world, axis] = spacing[axis] * flip[axis]
        half = spacing[axis] / 2
        affine[world, 3] = LOW[world] + half if flip[axis] > 0 else HIGH[world] - half
    grid = Grid(shape, affine)
    points = grid.to_patient(np.moveaxis(np.indices(shape), 0, -1).astype(np.float64))
    inside = (points[..., 0] < 0) & (points[..., 1] < 0) & (points[..., 2] > 0)
    volume = Volume(np.full(shape, 40, dtype=np.int16), grid)
    return Findings(volume, Segmentation(inside.astype(np.uint8), grid, thigh29()), Measurements(()))


def coloured(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Where the picture is not grey."""
    return np.asarray(np.ptp(pixels.astype(int), axis=-1) > 20)


@pytest.mark.parametrize("flip", FLIPS)
def test_the_patient_s_right_and_front_lie_at_the_left_and_top(flip: tuple[int, int, int]) -> None:
    plane = axial_plane(20.0, Box(LOW, HIGH), 0.5, (120, 80))
    found = coloured(picture(findings_of(flip), plane))
    expected = np.zeros((80, 120), dtype=bool)
    expected[:40, :60] = True
    assert np.mean(found != expected) < 0.02
    assert not coloured(picture(findings_of(flip), axial_plane(-20.0, Box(LOW, HIGH), 0.5, (120, 80)))).any()


@pytest.mark.parametrize("flip", FLIPS)
def test_the_head_lies_at_the_top_and_a_millimetre_is_as_long_in_both_directions(flip: tuple[int, int, int]) -> None:
    found = coloured(picture(findings_of(flip), coronal_plane(-10.0, Box(LOW, HIGH), 0.5, (120, 160))))
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (rows[0], columns[0]) == (0, 0)
    assert abs(len(rows) - 80) <= 2  # 40 mm
    assert abs(len(columns) - 60) <= 2  # 30 mm


def test_a_row_of_the_coronal_picture_is_found_by_its_height() -> None:
    plane = coronal_plane(0.0, Box(LOW, HIGH), 0.5, (120, 160))
    assert plane.row_of(np.array([0.0, 0.0, 40.0])) == pytest.approx(-0.5)
    assert plane.row_of(np.array([0.0, 0.0, 0.0])) == pytest.approx(79.5)


@pytest.mark.parametrize("flip", FLIPS)
def test_the_box_encloses_the_structures(flip: tuple[int, int, int]) -> None:
    segmentation = findings_of(flip).segmentation
    box = box_of(segmentation)
    assert box is not None
    assert box.low == pytest.approx([-29.5, -19.0, 2.0])
    assert box.high == pytest.approx([-0.5, -1.0, 38.0])
    assert box_of(segmentation, frozenset({"femur"})) is None


def test_the_page_has_its_size_and_no_patient(make_request: MakeRequest) -> None:
    def rename(header: Dataset) -> None:
        header.PatientName, header.PatientID = "Other^Name", "OTHER"

    page = draw_page(make_request())
    assert page.size == PAGE_SIZE
    assert page.tobytes() == draw_page(make_request(change=rename)).tobytes()


def test_every_page_says_what_it_is_for(make_request: MakeRequest) -> None:
    request, banner = make_request(), (40, 166, 1560, 210)
    page = draw_page(request)
    assert page.getpixel((60, 175)) == AMBER
    use = replace(request.provenance, intended_use="For something else")
    training = replace(request.provenance, training_phrase="trained on something else")
    for told in (use, training):
        other = draw_page(replace(request, provenance=told))
        assert other.crop(banner).tobytes() != page.crop(banner).tobytes()


def test_the_attribution_is_drawn_below_the_title(make_request: MakeRequest) -> None:
    request, statement = make_request(), (40, 100, 1560, 162)
    own = replace(request, provenance=replace(request.provenance, attribution=""))
    assert draw_page(own).crop(statement).tobytes() != draw_page(request).crop(statement).tobytes()


def test_a_statement_is_drawn_whole_or_refused(make_request: MakeRequest) -> None:
    request = make_request()
    long = replace(request, provenance=replace(request.provenance, training_statement="many words " * 40))
    assert draw_page(long).tobytes() != draw_page(request).tobytes()
    longer = replace(request, provenance=replace(request.provenance, training_statement="many words " * 120))
    with pytest.raises(DicomIoError, match="do not fit the page"):
        draw_page(longer)


def test_the_table_sums_groups_and_marks_what_is_cut() -> None:
    rows = tuple(
        SegmentMeasurement(segment, 10 * segment.number, float(segment.number), 30.0, 5.0, segment.number == 1)
        if segment.side is Side.RIGHT
        else SegmentMeasurement(segment, 0, 0.0, None, None, False)
        for segment in thigh29().segments
    )
    tables = table_rows(Measurements(rows), thigh29())
    assert [len(table) - 1 for table in tables] == [5, 5, 3, 8, 6, 2]
    anterior = tables[0][0]
    assert anterior.right.volume_ml == pytest.approx(1 + 3 + 5 + 7 + 9)
    assert anterior.right.mean_hu == pytest.approx(30.0)
    assert anterior.right.partial and tables[0][1].right.partial
    assert not tables[1][0].right.partial
    assert anterior.left.volume_ml is None and not anterior.left.partial
    left, right = split_in_two(tables)
    assert left + right == tuple(row for table in tables for row in table)
    assert abs(len(left) - len(right)) <= 5


def test_a_group_s_mean_is_weighted_with_the_voxels() -> None:
    rows = []
    for segment in thigh29().segments:
        voxels, mean = {1: (10, 0.0), 3: (30, 40.0)}.get(segment.number, (0, 0.0))
        rows.append(SegmentMeasurement(segment, voxels, voxels / 10, mean if voxels else None, 1.0, False))
    assert table_rows(Measurements(tuple(rows)), thigh29())[0][0].right.mean_hu == pytest.approx(30.0)


def test_a_sum_without_one_of_its_members_is_marked() -> None:
    rows = [SegmentMeasurement(segment, 100, 100.0, 40.0, 5.0, False) for segment in thigh29().segments]
    rows[2] = SegmentMeasurement(rows[2].segment, 0, 0.0, None, None, False)  # rectus femoris, right
    anterior, medial, *_ = table_rows(Measurements(tuple(rows)), thigh29())
    assert anterior[0].right.volume_ml == pytest.approx(400.0)
    assert anterior[0].right.partial
    assert not any(cell.partial for cell in (anterior[0].left, medial[0].right, medial[0].left))
    assert not any(row.right.partial for row in anterior[1:])  # of one structure it is known: not found


def test_an_amber_star_marks_a_truncated_volume(make_request: MakeRequest) -> None:
    labels = np.zeros((6, 16, 24), dtype=np.uint8)
    labels[2:4, 4:14, 4:8] = np.arange(1, 11)[:, None]  # all of the first group
    whole = make_request(labels=labels)
    cut_rows = tuple(replace(row, truncated=row.voxels > 0) for row in whole.findings.measurements.segments)
    cut = replace(whole, findings=replace(whole.findings, measurements=Measurements(cut_rows)))
    table = (40, 1096, 800, 1260)

    def amber_pixels(request: ResultRequest) -> int:
        return int((np.asarray(draw_page(request).crop(table)) == AMBER).all(axis=-1).sum())

    assert amber_pixels(whole) == 0
    assert amber_pixels(cut) > 20


def test_the_footnote_fits_the_page() -> None:
    assert width_of(FOOTNOTE_MARK + FOOTNOTE, Style(20)) <= PAGE_SIZE[0] - 80


def femora(first: int, last: int) -> Segmentation:
    """Two femora from one slice to another on a grid of 100 slices, 4 mm apart from z = 0."""
    labels = np.zeros((100, 8, 12), dtype=np.uint8)
    femur = thigh29().structure("femur").value
    labels[first : last + 1, 3:5, 2:4] = 2 * femur - 1
    labels[first : last + 1, 3:5, 8:10] = 2 * femur
    affine = np.diag([0.0, 5.0, 0.0, 1.0])
    affine[2, 0], affine[0, 2] = 4.0, 5.0
    return Segmentation(labels, Grid(labels.shape, affine), thigh29())


@pytest.mark.parametrize(("first", "last", "named"), [(1, 98, True), (0, 98, False), (1, 99, False), (0, 99, False)])
def test_levels_have_names_only_on_a_whole_femur(first: int, last: int, named: bool) -> None:
    levels = axial_levels(femora(first, last))
    names = [level.name for level in levels]
    heights = [f"z {round(level.z_mm)} mm (LPS)" for level in levels]
    assert names == (["Hip", "Proximal", "Mid", "Distal"] if named else heights)
    top_mm, length_mm = 4.0 * last, 4.0 * (last - first)
    assert levels[0].z_mm == pytest.approx(top_mm - 0.05 * length_mm)


def test_a_femur_cut_at_the_side_keeps_its_levels() -> None:
    whole = femora(10, 90)
    labels = whole.labels.copy()
    labels[:, :, :2] = labels[:, :, 2:3]
    assert labels[:, :, 0].any()
    assert axial_levels(replace(whole, labels=labels))[0].name == "Hip"


def test_the_ends_of_a_coronal_scan_are_its_first_and_last_rows() -> None:
    axial = femora(0, 98)
    labels, affine = np.ascontiguousarray(axial.labels.transpose(1, 0, 2)), axial.grid.affine[:, [1, 0, 2, 3]]
    coronal = Segmentation(labels, Grid(labels.shape, affine), thigh29())
    assert axial_levels(coronal)[0].name.startswith("z ")


def test_levels_without_a_femur_are_heights() -> None:
    levels = axial_levels(findings_of((1, 1, 1)).segmentation)
    assert all(level.name.startswith("z ") for level in levels)


def test_words_wrap_within_the_width() -> None:
    style = Style(20)
    lines = wrapped("one two three four five six seven eight nine ten", style, 120)
    assert len(lines) > 2
    assert all(width_of(line, style) <= 120 for line in lines)
    assert " ".join(lines) == "one two three four five six seven eight nine ten"


def test_the_page_as_dicom(make_request: MakeRequest) -> None:
    request, out = make_request(), BytesIO()
    write_page(request, out)
    dataset = dcmread(BytesIO(out.getvalue()))
    assert np.array_equal(dataset.pixel_array, np.asarray(draw_page(request)))
    assert dataset.BurnedInAnnotation == "NO"
    assert dataset.ConversionType == "SYN"
    assert dataset.SOPInstanceUID == request.uids.sc_instance
    sources = [header.SOPInstanceUID for header in request.source.headers]
    assert [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence] == sources
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == request.source.headers[0].SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == sources
    assert (dataset.ImageLaterality, "Laterality" in dataset) == ("B", False)
    again = BytesIO()
    write_page(make_request(), again)
    assert again.getvalue() == out.getvalue()


def test_dciodvfy_finds_no_fault(make_request: MakeRequest, output_of: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "sc.dcm"
    with path.open("wb") as file:
        write_page(make_request(), file)
    output = output_of("dciodvfy", path)
    assert "SCImage" in output
    assert "Error" not in output
    assert "Laterality" not in output


def test_nothing_found_is_no_page(make_request: MakeRequest) -> None:
    with pytest.raises(DicomIoError, match="no voxel"):
        draw_page(make_request(labels=np.zeros((6, 16, 24), dtype=np.uint8)))


def test_an_unknown_group_still_has_colours() -> None:
    structure = replace(thigh29().structures[0], group="calf")
    label_set = replace(thigh29(), structures=(structure,))
    assert all(0 <= part <= 255 for part in structure_colour(structure, label_set))
