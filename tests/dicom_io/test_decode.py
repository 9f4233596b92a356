"""Stored values become Hounsfield units: rescale, signs, padding, unused bits, compression."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.decode import PADDING_HU, read_slices, write_slices
from dicom_io.errors import DicomIoError, SeriesParked
from dicom_io.guard import QUIETLY
from dicom_io.header import read_header
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.volume import Volume

SHAPE = (2, 40, 36)  # the JPEG 2000 encoder needs more than 32 a side
Edit = Callable[[FileDataset], None]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return write_series(Volume(hu, patient_grid(SHAPE, (5.0, 1.0, 1.0))), tmp_path, SyntheticStudy()).files


def rewrite(path: Path, edit: Edit) -> None:
    with QUIETLY:
        dataset = dcmread(path)
        edit(dataset)
        dataset.save_as(path)


def stored(values: list[int], dtype: str, **attributes: object) -> Edit:
    """Replace the pixels by these stored values, repeated, and the attributes."""

    def edit(dataset: FileDataset) -> None:
        dataset.PixelData = np.resize(np.array(values).astype(dtype), SHAPE[1:]).tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


def decode(files: tuple[Path, ...], workers: int = 2) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Decode the files in all ways, which must agree."""
    headers, starts = opened(files)
    found = read_slices(headers, SHAPE, workers)
    assert np.array_equal(found, read_slices(headers, SHAPE, workers, starts))
    path = files[0].with_name("volume.npy")
    with path.open("wb") as file:
        write_slices(headers, SHAPE, file, workers, starts)
    assert np.array_equal(found, np.load(path))
    return found


def opened(files: tuple[Path, ...]) -> tuple[list[FileDataset], dict[str, int]]:
    headers, starts = [], {}
    for path in files:
        with open(str(path), "rb") as file:  # noqa: PTH123 - see dicom_io.series
            headers.append(dcmread(file, stop_before_pixels=True))
            starts[str(path)] = file.tell()
    return headers, starts


def first_values(files: tuple[Path, ...], edit: Edit, count: int) -> list[int]:
    rewrite(files[0], edit)
    return [int(value) for value in decode(files)[0].ravel()[:count]]


def test_each_slice_has_its_own_rescale(files: tuple[Path, ...]) -> None:
    rewrite(files[1], stored([100, 200], "<u2", RescaleSlope="2", RescaleIntercept="-50"))
    hu = decode(files)
    assert hu[0].ravel()[:3].tolist() == [0, 1, 2]
    assert hu[1].ravel()[:2].tolist() == [150, 350]


def test_a_fractional_rescale_is_rounded(files: tuple[Path, ...]) -> None:
    edit = stored([0, 1, 2, 3], "<u2", RescaleSlope="0.5", RescaleIntercept="-1000.25")
    assert first_values(files, edit, 4) == [-1000, -1000, -999, -999]


def test_signed_pixels_keep_their_sign(files: tuple[Path, ...]) -> None:
    edit = stored([-1000, -1, 0, 3000], "<i2", PixelRepresentation=1, RescaleIntercept="0")
    assert first_values(files, edit, 4) == [-1000, -1, 0, 3000]


def test_values_beyond_int16_are_clipped(files: tuple[Path, ...]) -> None:
    assert first_values(files, stored([0, 65535], "<u2", RescaleIntercept="-40000"), 2) == [-32768, 25535]
    assert first_values(files, stored([0, 65535], "<u2", RescaleIntercept="0"), 2) == [0, 32767]


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_becomes_air_however_its_sign_is_written(files: tuple[Path, ...], padding: int) -> None:
    def edit(dataset: FileDataset) -> None:
        stored([-2000, -1500, 24], "<i2", PixelRepresentation=1)(dataset)
        dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)

    assert first_values(files, edit, 3) == [PADDING_HU, -2524, -1000]


@pytest.mark.parametrize(("value", "limit"), [(0, 10), (10, 0)])
def test_padding_may_be_a_range_in_either_order(files: tuple[Path, ...], value: int, limit: int) -> None:
    def edit(dataset: FileDataset) -> None:
        stored([0, 5, 10, 11], "<u2", RescaleIntercept="100")(dataset)
        dataset.add_new("PixelPaddingValue", "US", value)
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)

    assert first_values(files, edit, 4) == [PADDING_HU, PADDING_HU, PADDING_HU, 111]


def test_unused_bits_are_ignored(files: tuple[Path, ...]) -> None:
    unsigned = stored([0xF000 | 1024, 0x8FFF], "<u2", BitsStored=12, HighBit=11)
    assert first_values(files, unsigned, 2) == [0, 3071]
    signed = stored([0x0FFF, 0x07FF], "<u2", BitsStored=12, HighBit=11, PixelRepresentation=1, RescaleIntercept="0")
    assert first_values(files, signed, 2) == [-1, 2047]


def test_eight_bit_pixels_are_read(files: tuple[Path, ...]) -> None:
    def edit(dataset: FileDataset) -> None:
        stored([0, 255], "<u1", BitsAllocated=8, BitsStored=8, HighBit=7)(dataset)
        dataset["PixelData"].VR = "OB"

    assert first_values(files, edit, 2) == [-1024, -769]


def test_big_endian_pixels_are_read(files: tuple[Path, ...]) -> None:
    expected = decode(files)
    dataset = dcmread(files[0])
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dcmwrite(files[0], dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(decode(files), expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [12, 16])
def test_lossless_compression_changes_no_value(files: tuple[Path, ...], syntax: str, bits: int) -> None:
    signed = stored([-1000, 0, 2047, -2000], "<i2", PixelRepresentation=1, BitsStored=bits, HighBit=bits - 1)
    rewrite(files[0], signed)
    expected = decode(files)
    rewrite(files[0], lambda dataset: dataset.compress(syntax, generate_instance_uid=False))
    np.testing.assert_array_equal(decode(files), expected)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(files: tuple[Path, ...], workers: int) -> None:
    np.testing.assert_array_equal(decode(files, workers).ravel(), np.arange(np.prod(SHAPE)))


def broken_codestream(dataset: FileDataset) -> None:
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.PixelData = dataset.PixelData[:16] + bytes(len(dataset.PixelData) - 16)


def broken_rle(dataset: FileDataset) -> None:
    """The second segment starts inside the first one, so that it holds too much: the decoder panics."""
    content = (64).to_bytes(4, "little") + (66).to_bytes(4, "little")  # where the segments start (PS3.5 Annex G.5)
    literal = bytes([127, *range(128)])
    dataset.PixelData = encapsulate([(2).to_bytes(4, "little") + content + bytes(52) + literal * 24])
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset["PixelData"].VR = "OB"


@pytest.mark.parametrize(
    "edit",
    [
        broken_codestream,
        broken_rle,
        lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:10]),
        lambda dataset: setattr(dataset, "Rows", 20),
        lambda dataset: dataset.pop("PixelData"),
        lambda dataset: setattr(dataset, "RescaleSlope", None),
    ],
    ids=["codestream", "rle", "short", "other size", "no pixels", "no rescale"],
)
def test_an_undecodable_slice_is_named(files: tuple[Path, ...], edit: Edit) -> None:
    rewrite(files[1], edit)
    with pytest.raises(SeriesParked) as caught:
        decode(files)
    assert caught.value.code == "undecodable"
    assert str(dcmread(files[1], stop_before_pixels=True).SOPInstanceUID) in caught.value.reason


def test_a_vanished_file_is_the_machine_s_fault(files: tuple[Path, ...]) -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    files[0].unlink()
    with pytest.raises(DicomIoError, match="No such file") as caught:
        read_slices(headers, SHAPE, 2)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EIO, "Input/output error"), DicomIoError),
        (OSError(errno.EMFILE, "Too many open files"), DicomIoError),
        (MemoryError(), MemoryError),
        (OSError("broken data stream when reading image file"), SeriesParked),  # as Pillow says it of damaged bytes
        (EOFError(), SeriesParked),
    ],
    ids=["disk", "handles", "memory", "broken image", "cut off"],
)
def test_only_damaged_bytes_park_a_series(
    files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dicom_io.pixels._read_into", fail)
    with pytest.raises(expected):
        decode(files)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_uncompressed_slice_is_read_from_where_its_pixels_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID
) -> None:
    volume = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), patient_grid(SHAPE, (2.0, 1.0, 1.0)))
    ref = write_series(volume, tmp_path / "series", SyntheticStudy(transfer_syntax_uid=syntax))
    headers, starts = opened(ref.files)
    monkeypatch.setattr("dicom_io.pixels.dcmread", None)
    assert np.array_equal(read_slices(headers, SHAPE, 2, starts), volume.hu)
    with pytest.raises(SeriesParked):  # elsewhere is no element Pixel Data: the file would go the general way
        read_slices(headers, SHAPE, 2, {name: start - 1 for name, start in starts.items()})


def test_pixels_that_end_early_are_undecodable(files: tuple[Path, ...]) -> None:
    headers, starts = opened(files)
    files[1].write_bytes(files[1].read_bytes()[:-2])
    with pytest.raises(SeriesParked) as caught:
        read_slices(headers, SHAPE, 2, starts)
    assert str(headers[1].SOPInstanceUID) in caught.value.reason


def test_deflated_files_are_read(files: tuple[Path, ...]) -> None:
    expected, size = decode(files), files[0].stat().st_size
    dataset = dcmread(files[0])
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(files[0], enforce_file_format=True)
    assert files[0].stat().st_size < size
    assert read_header(files[0]).transfer_syntax_uid == DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(decode(files), expected)


def test_jpeg_of_12_bits_is_decoded(files: tuple[Path, ...], output_of: Callable[..., str]) -> None:
    """JPEG Extended (process 4): smooth values come back to 2 HU."""
    rewrite(files[0], stored(list(range(SHAPE[1] * SHAPE[2])), "<u2", BitsStored=12, HighBit=11))
    expected = decode(files)
    plain = files[0].with_name("plain.dcm")
    files[0].rename(plain)
    output_of("dcmcjpeg", "+ee", "+bt", plain, files[0])
    assert dcmread(files[0]).file_meta.TransferSyntaxUID == JPEGExtended12Bit
    assert np.abs(decode(files).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000_has_a_decoder(syntax: UID) -> None:
    assert get_decoder(syntax).is_available


def test_real_compressed_samples_equal_the_uncompressed_one(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "wg04-transfer-syntaxes"
    names = ["CT1_UNC.dcm", "CT1_J2KR.dcm", "CT1_JLSL.dcm", "CT1_JPLL.dcm", "CT1_RLE.dcm"]
    headers = [dcmread(folder / name, stop_before_pixels=True) for name in names]
    hu = read_slices(headers, (len(names), 512, 512), 2)
    for decoded in hu[1:]:
        np.testing.assert_array_equal(decoded, hu[0])
    assert hu[0].min() >= PADDING_HU - 1


@pytest.mark.parametrize(
    ("name", "worst_hu", "mean_hu"),
    [
        ("CT1_JLSN.dcm", 4, 3.0),  # near-lossless: no stored value is further off
        ("CT1_J2KI.dcm", 400, 30.0),  # a sample that was compressed 69 to 1
    ],
)
def test_real_lossy_samples_are_near_the_uncompressed_one(
    shared_data: Path, name: str, worst_hu: int, mean_hu: float
) -> None:
    folder = shared_data / "dicom" / "wg04-transfer-syntaxes"
    headers = [dcmread(folder / each, stop_before_pixels=True) for each in ("CT1_UNC.dcm", name)]
    exact, lossy = read_slices(headers, (2, 512, 512), 2).astype(int)
    shown = exact > PADDING_HU  # the loss reaches the padding too, so that it is not the padding value any more
    error = np.abs(lossy - exact)[shown]
    assert shown.sum() > 100_000
    assert error.max() <= worst_hu
    assert error.mean() <= mean_hu
    assert lossy[~shown].max() <= PADDING_HU + worst_hu
