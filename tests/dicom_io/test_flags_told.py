"""The flags in the report and on the picture page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_io.codes import FLAG_UNITS
from dicom_io.errors import DicomIoError, NotUnderstood
from dicom_io.findings import ResultRequest
from dicom_io.page_text import width_of
from dicom_io.page_warnings import fitted_line, warnings_of
from dicom_io.pages import PAGE_SIZE, draw_page
from dicom_io.sr import write_sr
from dicom_io.sr_flags import flag_items, read_flags
from engine.flags import FLAG_KINDS, Flag, Policy, RaisedFlag, flag_of

MakeRequest = Callable[..., ResultRequest]
METAL = RaisedFlag(flag_of("metal", "There are 12.3 ml of metal in the body, over 40 slices.", 12.3), Policy.WARN)
CONTRAST = RaisedFlag(flag_of("contrast_medium", "The scan was made with a contrast medium."), Policy.NOTE)
LONG_CODE = RaisedFlag(flag_of("height_implausible", "The height is stated as 172 m.", 172.0), Policy.WARN)
LINE = (0, PAGE_SIZE[1] - 78, PAGE_SIZE[0], PAGE_SIZE[1] - 52)


@pytest.fixture(scope="module")
def request_of_one(make_request: MakeRequest) -> ResultRequest:
    """A request with one structure."""
    labels = np.zeros((6, 16, 24), dtype=np.uint8)
    labels[2:4, 3:6, 3:6] = 1
    return make_request(labels=labels)


def flagged(request: ResultRequest, *raised: RaisedFlag) -> ResultRequest:
    return replace(request, findings=replace(request.findings, flags=raised))


def written(request: ResultRequest, folder: Path) -> Path:
    path = folder / "sr.dcm"
    with path.open("wb") as file:
        write_sr(request, file)
    return path


def test_the_report_tells_policy_words_and_number(request_of_one: ResultRequest, tmp_path: Path) -> None:
    path = written(flagged(request_of_one, METAL, CONTRAST, LONG_CODE), tmp_path)
    assert read_flags(path) == (METAL, CONTRAST, LONG_CODE)


def test_a_report_without_flags_has_none(request_of_one: ResultRequest, tmp_path: Path) -> None:
    assert read_flags(written(request_of_one, tmp_path)) == ()


def test_a_flag_of_another_version_is_not_understood(request_of_one: ResultRequest, tmp_path: Path) -> None:
    path = written(flagged(request_of_one, METAL), tmp_path)
    dataset = dcmread(path)
    item = dataset.ContentSequence[-1].ContentSequence[-1]
    item.ConceptCodeSequence[0].CodeValue = "rust"
    dataset.save_as(path)
    with pytest.raises(NotUnderstood, match="unknown kind"):
        read_flags(path)


def test_every_kind_has_a_unit_with_a_code() -> None:
    assert {kind.unit for kind in FLAG_KINDS.values()} <= set(FLAG_UNITS)
    strange = RaisedFlag(Flag("metal", "Metal.", 1.0, "furlong"), Policy.NOTE)
    with pytest.raises(DicomIoError, match="furlong"):
        flag_items([strange])


def test_other_programs_read_the_flags(
    request_of_one: ResultRequest, tmp_path: Path, output_of: Callable[..., str]
) -> None:
    before = output_of("dciodvfy", written(request_of_one, tmp_path))
    path = written(flagged(request_of_one, METAL, CONTRAST, LONG_CODE), tmp_path)
    after = output_of("dciodvfy", path)
    errors = [line for line in after.splitlines() if line.startswith("Error") and line not in before.splitlines()]
    assert errors == []
    dump = output_of("dsrdump", "+Pl", path)
    for words in ("Metal in the body", METAL.flag.words, "Warning", '"12.3" (ml,UCUM', "implausible"):
        assert words in dump


def test_the_page_warns_in_one_line(request_of_one: ResultRequest) -> None:
    plain = draw_page(request_of_one)
    warned = draw_page(flagged(request_of_one, METAL))
    assert warned.crop(LINE).tobytes() != plain.crop(LINE).tobytes()
    assert warned.crop((0, 0, PAGE_SIZE[0], 1090)).tobytes() == plain.crop((0, 0, PAGE_SIZE[0], 1090)).tobytes()


def test_the_line_of_warnings_fits_and_tells_how_many_it_leaves_out() -> None:
    width = 1520.0
    assert warnings_of((CONTRAST,)) == ()
    few, _ = fitted_line(warnings_of((METAL, CONTRAST)), width)
    assert few == "! Fitness for measurement:  Metal in the body (12.3 ml)"
    everything = tuple(flag_of(code, "Words.", 123.456) for code in FLAG_KINDS)
    for flags in (everything, everything[:2], everything[:5]):
        line, style = fitted_line(flags, width)
        assert width_of(line, style) <= width
    many, _ = fitted_line(everything, width)
    shown = many.count(";")
    assert many.endswith(f"and {len(everything) - shown} more, see the report")
    assert shown >= 2
    assert fitted_line(everything, 400.0)[0].endswith("see the report")
