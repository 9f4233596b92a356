"""Encoded elements: as pydicom writes them, and with other values as if they had been written so."""

from __future__ import annotations

from collections import Counter
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from dicom_io.encoding import encoded, encoded_value, filled, item, references, sequence
from dicom_io.errors import DicomIoError
from dicom_io.heading import encoded_sources, save, state_sources

UIDS = st.integers(0, 2**127).map(lambda number: f"2.25.{number}")


def nested(uid: str, text: str, instances: list[str]) -> Dataset:
    inner = Dataset()
    inner.TextValue = text  # a long form, UT
    inner.UID = uid
    inner.ReferencedSOPSequence = _referring(instances)
    outer = Dataset()
    outer.CodeMeaning = "constant"
    outer.ContentSequence = [inner, Dataset(), inner]
    return outer


def _referring(instances: list[str]) -> list[Dataset]:
    items = []
    for instance in instances:
        each = Dataset()
        each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID = CTImageStorage, instance
        items.append(each)
    return items


def _headers() -> list[Dataset]:
    """Three instances of one series."""
    headers = []
    for number in range(3):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID = CTImageStorage, f"1.2.{number}", "1.22"
        headers.append(header)
    return headers


@given(UIDS, st.text("abc ", min_size=1), st.lists(UIDS, max_size=4))
def test_filled_is_what_would_have_been_encoded(uid: str, text: str, instances: list[str]) -> None:
    prototype = nested("2.25.1", "mark", ["2.25.2"])
    marks = {
        encoded_value("UID", "2.25.1"): [encoded_value("UID", uid)],
        encoded_value("TextValue", "mark"): [encoded_value("TextValue", text)],
        encoded(_referring(["2.25.2"])[0]): [encoded(each) for each in _referring(instances)],
    }
    result = filled(encoded(prototype), marks, Counter(list(marks) * 2))
    assert result == encoded(nested(uid, text, instances))


@pytest.mark.parametrize("times", [0, 1, 3])
def test_marks_met_more_or_less_often_are_refused(times: int) -> None:
    mark = encoded_value("UID", "2.25.1")
    with pytest.raises(DicomIoError, match="marks"):
        filled(encoded(nested("2.25.1", "x", [])), {mark: [mark]}, Counter([mark] * times))


def test_items_and_sequences_are_pydicom_s() -> None:
    headers = _headers()
    whole = Dataset()
    whole.SourceImageSequence = _referring(["1.2.0", "1.2.1", "1.2.2"])
    assert references(0x00082112, headers) == encoded(whole)
    assert sequence(0x00082112, [encoded(each) for each in whole.SourceImageSequence]) == encoded(whole)
    assert item(b"ab") == b"\xfe\xff\x00\xe0\x02\x00\x00\x00ab"


def test_a_file_with_ready_elements_is_the_file_of_pydicom() -> None:
    headers = _headers()
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID = CTImageStorage
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID = UID("1.2.3")
    result.SpecificCharacterSet = "ISO_IR 192"
    result.PatientName = "Müller^Änne"
    result.BitsAllocated, result.PixelRepresentation = 16, 1
    result.SmallestImagePixelValue = -5  # of ambiguous VR
    result.PixelData = bytes(2)
    ours, stock = BytesIO(), BytesIO()
    save(result, ours, encoded_sources(headers))
    state_sources(result, headers)
    dcmwrite(stock, result, enforce_file_format=True)
    assert ours.getvalue() == stock.getvalue()
