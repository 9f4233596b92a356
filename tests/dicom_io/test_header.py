"""The header check must know a whole instance from a damaged one, and survive anything."""

from __future__ import annotations

import errno
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
)

from dicom_io import header as header_module
from dicom_io.errors import DicomIoError, NotUnderstood
from dicom_io.guard import QUIETLY
from dicom_io.header import InstanceHeader, read_header
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.volume import Volume

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one small CT slice in each transfer syntax."""
    shape = (2, 8, 10)
    hu = np.random.default_rng(1).integers(-1024, 2000, shape).astype(np.int16)
    volume = Volume(hu, patient_grid(shape, (5.0, 0.8, 0.7)))
    found = {}
    for number, syntax in enumerate(SYNTAXES):
        folder = tmp_path_factory.mktemp(f"syntax{number}")
        ref = write_series(volume, folder, SyntheticStudy(transfer_syntax_uid=syntax))
        found[str(syntax)] = ref.files[0].read_bytes()
    return found


@pytest.fixture
def ct(slices: dict[str, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "ct.dcm"
    path.write_bytes(slices[ExplicitVRLittleEndian])
    return path


def edited(path: Path, edit: Callable[[FileDataset], object]) -> Path:
    with QUIETLY:
        dataset = dcmread(path)
        edit(dataset)
        dataset.save_as(path)
    return path


def document(path: Path, sop_class: str) -> Path:
    dataset = Dataset()
    dataset.SOPClassUID = UID(sop_class)
    dataset.SOPInstanceUID = UID("1.2.3")
    dataset.Modality = "SR"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID("1.2.4"), UID("1.2.5")
    item = Dataset()
    item.TextValue = "a finding"
    dataset.ContentSequence = [item, item]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_whole_image_is_understood(slices: dict[str, bytes], tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "ct.dcm"
    path.write_bytes(slices[syntax])
    study = SyntheticStudy()
    assert read_header(path) == InstanceHeader(
        sop_class_uid=CTImageStorage,
        sop_instance_uid=study.uid("series", 2, "instance", 1),
        study_uid=study.uid("study"),
        series_uid=study.uid("series", 2),
        modality="CT",
        transfer_syntax_uid=str(syntax),
    )


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_rare_native_encodings_are_understood(ct: Path, syntax: str) -> None:
    dataset = dcmread(ct)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    little = syntax != ExplicitVRBigEndian
    dcmwrite(ct, dataset, implicit_vr=False, little_endian=little, enforce_file_format=True)
    assert read_header(ct).transfer_syntax_uid == syntax
    whole = ct.read_bytes()
    ct.write_bytes(whole[: len(whole) - 40])
    with pytest.raises(NotUnderstood):
        read_header(ct)


@pytest.mark.parametrize("sop_class", [ComprehensiveSRStorage, KeyObjectSelectionDocumentStorage])
def test_documents_need_no_pixels(tmp_path: Path, sop_class: str) -> None:
    path = document(tmp_path / "sr.dcm", sop_class)
    assert read_header(path).sop_class_uid == sop_class
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(NotUnderstood, match="cut off"):
        read_header(path)


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_cut_image_is_refused_wherever_it_is_cut(
    slices: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, syntax: str, data: st.DataObject
) -> None:
    whole = slices[syntax]
    path = tmp_path_factory.getbasetemp() / "cut.dcm"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(NotUnderstood):
        read_header(path)


@given(content=st.binary(max_size=400), prefix=st.booleans())
@settings(max_examples=200, deadline=None)
def test_garbage_is_not_understood(tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.dcm"
    path.write_bytes(bytes(128) + b"DICM" + content if prefix else content)
    with pytest.raises(NotUnderstood):
        read_header(path)


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(changes=st.dictionaries(st.integers(0, 100_000), st.binary(min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_damaged_image_is_read_or_refused(
    slices: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, syntax: str, changes: dict[int, bytes]
) -> None:
    content = bytearray(slices[syntax])
    for place, change in changes.items():
        start = place % len(content)
        content[start : start + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(content)
    try:
        found = read_header(path)
    except NotUnderstood as error:
        assert error.reason and error.remedy
    else:
        assert found.sop_instance_uid.replace(".", "").isdigit()


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "../../etc/cron.d/x", "1..2", "1.2\\1.3", "1." + "2" * 64, "1.2.a"])
def test_an_image_needs_conformant_uids(ct: Path, keyword: str, value: str) -> None:
    edited(ct, lambda dataset: setattr(dataset, keyword, value.split("\\") if "\\" in value else value))
    with pytest.raises(NotUnderstood, match=keyword):
        read_header(ct)


def test_an_absent_uid_is_named(ct: Path) -> None:
    edited(ct, lambda dataset: dataset.pop("StudyInstanceUID"))
    with pytest.raises(NotUnderstood, match="no StudyInstanceUID"):
        read_header(ct)


def test_a_modality_may_be_absent(ct: Path) -> None:
    edited(ct, lambda dataset: dataset.pop("Modality"))
    assert read_header(ct).modality is None


def test_short_pixel_data_is_refused_though_its_own_length_is_right(ct: Path) -> None:
    edited(ct, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-2]))
    with pytest.raises(NotUnderstood, match="158 bytes where the image needs 160"):
        read_header(ct)


@pytest.mark.parametrize("keyword", ["Rows", "BitsAllocated", "PhotometricInterpretation"])
def test_pixel_data_needs_its_sizes(ct: Path, keyword: str) -> None:
    edited(ct, lambda dataset: dataset.pop(keyword))
    with pytest.raises(NotUnderstood, match=keyword):
        read_header(ct)


def test_an_image_needs_pixel_data(ct: Path) -> None:
    edited(ct, lambda dataset: dataset.pop("PixelData"))
    with pytest.raises(NotUnderstood, match="without pixel data"):
        read_header(ct)


def test_compression_must_be_what_the_transfer_syntax_says(ct: Path) -> None:
    content = ct.read_bytes()
    ct.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1))
    with pytest.raises(NotUnderstood, match="disagree"):
        read_header(ct)


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.2.3"])
def test_an_unknown_transfer_syntax_is_refused(ct: Path, syntax: str) -> None:
    content = ct.read_bytes()
    ct.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0"), 1))
    with pytest.raises(NotUnderstood, match="transfer syntax"):
        read_header(ct)


def test_every_frame_needs_a_fragment(slices: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "rle.dcm"
    path.write_bytes(slices[RLELossless])
    edited(path, lambda dataset: setattr(dataset, "NumberOfFrames", 3))
    with pytest.raises(NotUnderstood, match="1 fragments for 3 frames"):
        read_header(path)


def test_a_length_of_four_gigabytes_is_no_promise(slices: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "huge.dcm"
    content = slices[ImplicitVRLittleEndian]
    element = content.index(struct.pack("<HH", 0x0008, 0x0018))
    path.write_bytes(content[: element + 4] + struct.pack("<L", 0xFFFFFFF0) + content[element + 8 :])
    with pytest.raises(NotUnderstood, match="cut off"):
        read_header(path)


def test_sequences_without_end_are_refused(ct: Path) -> None:
    start = ct.read_bytes()
    level = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    ct.write_bytes(start[: start.index(b"\x28\x00\x02\x00")] + level * 3000)
    with pytest.raises(NotUnderstood):
        read_header(ct)


def test_a_deflated_bomb_is_refused(ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dcmread(ct)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(ct, enforce_file_format=True)
    monkeypatch.setattr(header_module, "MAX_INFLATED_BYTES", 500)
    with pytest.raises(NotUnderstood, match="larger than 500 bytes"):
        read_header(ct)


def test_a_missing_file_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(DicomIoError, match="cannot be opened") as caught:
        read_header(tmp_path / "absent.dcm")
    assert not isinstance(caught.value, NotUnderstood)


def test_a_failing_disk_is_not_called_damaged(ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(header_module, "read_preamble", fail)
    with pytest.raises(DicomIoError, match="Input/output error") as caught:
        read_header(ct)
    assert not isinstance(caught.value, NotUnderstood)


def test_a_seek_before_the_start_is_damage(ct: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seek_back(reader: BinaryIO, **_: object) -> None:
        reader.seek(-1)

    monkeypatch.setattr(header_module, "read_preamble", seek_back)
    with pytest.raises(NotUnderstood):
        read_header(ct)


def test_quiet_restores_the_filters_whatever_the_order_of_leaving() -> None:
    before = list(warnings.filters)
    second_may_leave = threading.Event()

    def second() -> None:
        with QUIETLY:
            second_entered.set()
            second_may_leave.wait(5)

    second_entered = threading.Event()
    thread = threading.Thread(target=second)
    with QUIETLY:
        thread.start()
        assert second_entered.wait(5)
    warnings.warn("still quiet while another thread is inside", UserWarning, stacklevel=1)
    second_may_leave.set()
    thread.join()
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("loud again", UserWarning, stacklevel=1)
