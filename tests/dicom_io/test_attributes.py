"""Numbers and text of headers that nobody vouches for."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.attributes import number, numbers, text


def header(keyword: str, vr: str, value: bytes | None) -> Dataset:
    tag = Tag(keyword)
    return Dataset({tag: RawDataElement(tag, vr, len(value or b""), value, 0, False, True)})


@pytest.mark.parametrize("value", [b"0.8\\0.7", b"0.8\\0.7 "])
def test_numbers_are_read_as_they_lie(value: bytes) -> None:
    dataset = header("PixelSpacing", "DS", value)
    assert numbers(dataset, "PixelSpacing", 2) == (0.8, 0.7)
    assert numbers(dataset, "PixelSpacing", 1) is None
    assert text(dataset, "PixelSpacing") == "0.8\\0.7"
    assert dataset.PixelSpacing == [0.8, 0.7]
    assert numbers(dataset, "PixelSpacing", 2) == (0.8, 0.7)


@pytest.mark.parametrize(
    ("vr", "value"), [("D\0", None), ("D\0", b"1"), ("DS", b"x"), ("DS", b"nan"), ("DS", b""), ("US", b"1")]
)
def test_what_is_no_number_is_none_and_no_error(vr: str, value: bytes | None) -> None:
    dataset = header("RescaleSlope", vr, value)
    assert numbers(dataset, "RescaleSlope", 1) is None
    assert isinstance(text(dataset, "RescaleSlope"), str)
    with pytest.raises(ValueError, match="RescaleSlope"):
        number(dataset, "RescaleSlope")
