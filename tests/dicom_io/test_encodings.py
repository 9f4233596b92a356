"""One scan in every encoding that other programs write is one and the same volume."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as its own manual names it
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_io.decode import PADDING_HU
from dicom_io.guard import QUIETLY
from dicom_io.header import read_header
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from dicom_io.synthetic_frames import write_enhanced
from engine.volume import Volume

SHAPE = (2, 40, 36)
ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)


@dataclass(frozen=True)
class Rewriting:
    """A program of DCMTK, what it makes of a file, and how far a value may then be off."""

    program: str
    options: tuple[str, ...]
    syntax: UID
    off_hu: int = 0

    def __str__(self) -> str:
        return self.syntax.keyword


PROGRAMS = [
    Rewriting("dcmconv", ("+ti",), ImplicitVRLittleEndian),
    Rewriting("dcmconv", ("+tb",), ExplicitVRBigEndian),
    Rewriting("dcmconv", ("+td",), DeflatedExplicitVRLittleEndian),
    Rewriting("dcmcrle", (), RLELossless),
    Rewriting("dcmcjpeg", ("+el",), JPEGLossless),
    Rewriting("dcmcjpeg", ("+e1",), JPEGLosslessSV1),
    Rewriting("dcmcjpls", ("+el",), JPEGLSLossless),
    Rewriting("dcmcjpls", ("+en", "+md", "3"), JPEGLSNearLossless, 3),
]
# A ramp of 40 x 36 values, row * 20 + column * 15, made once by imagecodecs 2026.3.6 (OpenJPH): no encoder of HTJ2K is
# among our packages.
HTJ2K_RAMP = (
    b"|4;u>04YEK0000a0000e00000000000000a0000e0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdT"
    b"mwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000%K!oYlfVEg01W`?`a}F5_X5K-0KfneKmZbe?JIKt_x>_70KfneKmZc}DB^Sgwd"
    b"x9YQ~<yL6%YUgX#an(DCy#M0JOBUw6ydP{viRrxB$Qa7L))1Y5+n(5DG#;C<yQ1zhAG{;EQ?ySPa8348yShFaZ&SAba)@f$Y5izyK|n00q#1%*"
    b"@Qp%*@Qp%*^}$0H>#?r>Cc<r>DYy0H!g<7-Nhv#u#Ia`Tu)>1K0ouzhD3!{eS>__5cCwwE_Rx"
)


def series(folder: Path, signed: bool, bits: int) -> SeriesRef:
    """Values that a loss would change, signed or not, of so many bits."""
    values = np.random.default_rng(1).integers(-1024, min((1 << (bits - 1)) - 1024, 3000), SHAPE).astype(np.int16)
    ref = write_series(Volume(values, patient_grid(SHAPE, (5.0, 0.8, 0.7))), folder, SyntheticStudy())

    def change(dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        if signed:
            stored = np.frombuffer(dataset.PixelData, "<u2").astype(int) - 1024
            dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
            dataset.PixelData = stored.astype("<i2").tobytes()

    for path in ref.files:
        edit(path, change)
    return ref


def edit(path: Path, change: Callable[[Dataset], object]) -> None:
    with QUIETLY:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)


def hu_of(ref: SeriesRef) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    for path in ref.files:
        read_header(path)
    return read_volume(open_series(ref, ANY)).hu.astype(np.int64)


@pytest.mark.parametrize(
    ("how", "signed", "bits"),
    [
        (how, signed, bits)
        for how in PROGRAMS
        for signed in (False, True)
        for bits in (12, 16)
        if not (how.off_hu and signed)  # DCMTK leaves signed values as they are rather than lose some of them
    ],
    ids=str,
)
def test_what_dcmtk_rewrites_is_the_same_volume(
    output_of: Callable[..., str], tmp_path: Path, how: Rewriting, signed: bool, bits: int
) -> None:
    ref = series(tmp_path, signed, bits)
    expected = hu_of(ref)
    output_of(how.program, *how.options, ref.files[1], ref.files[1])
    assert dcmread(ref.files[1]).file_meta.TransferSyntaxUID == how.syntax
    error = np.abs(hu_of(ref) - expected)
    assert error.max() <= how.off_hu
    assert (error.max() > 0) == (how.off_hu > 0)


@pytest.mark.parametrize("how", PROGRAMS, ids=str)
def test_frames_that_dcmtk_rewrites_are_the_same_volume(
    output_of: Callable[..., str], tmp_path: Path, how: Rewriting
) -> None:
    single = series(tmp_path / "single", not how.off_hu, 16)
    ref = write_enhanced(single.files, tmp_path / "enhanced.dcm")
    output_of(how.program, *how.options, ref.files[0], ref.files[0])
    assert dcmread(ref.files[0]).file_meta.TransferSyntaxUID == how.syntax
    assert np.abs(hu_of(ref) - hu_of(single)).max() <= how.off_hu


@pytest.mark.parametrize("error", [1, 5])
def test_near_lossless_keeps_its_promise(tmp_path: Path, error: int) -> None:
    ref = series(tmp_path, False, 16)
    expected = hu_of(ref)
    for path in ref.files:
        edit(path, lambda each: each.compress(JPEGLSNearLossless, jls_error=error, generate_instance_uid=False))
    assert 0 < np.abs(hu_of(ref) - expected).max() <= error


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000_is_decoded(tmp_path: Path, syntax: UID) -> None:
    ref = series(tmp_path, False, 16)

    def change(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate([base64.b85decode(HTJ2K_RAMP)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax

    edit(ref.files[1], change)
    ramp = np.add.outer(np.arange(40) * 20, np.arange(36) * 15) - 1024
    np.testing.assert_array_equal(hu_of(ref)[1], ramp)


def by_simple_itk(ref: SeriesRef) -> Volume:
    """What SimpleITK reads of the files, in the order of our slices."""
    source = open_series(ref, ANY)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(header.filename) for header in source.headers])
    image = reader.Execute()
    column, row, along = np.array(image.GetDirection()).reshape(3, 3).T * np.array(image.GetSpacing())[:, None]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack([along, row, column], axis=1), image.GetOrigin()
    np.testing.assert_allclose(source.grid.affine, affine, atol=1e-3)
    return Volume(sitk.GetArrayFromImage(image).astype(np.int16), source.grid)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("position", ["HFS", "FFP"])
def test_simple_itk_reads_the_same_volume(tmp_path: Path, syntax: UID, position: str) -> None:
    values = np.random.default_rng(2).integers(-1024, 3000, (5, 40, 36)).astype(np.int16)
    study = SyntheticStudy(patient_position=position, transfer_syntax_uid=syntax)
    ref = write_series(Volume(values, patient_grid((5, 40, 36), (5.0, 0.8, 0.7), position)), tmp_path, study)
    np.testing.assert_array_equal(read_volume(open_series(ref, ANY)).hu, by_simple_itk(ref).hu)


def test_simple_itk_reads_the_same_of_a_real_series(shared_data: Path) -> None:
    files = tuple(sorted((shared_data / "dicom" / "ge-lightspeed-3-slices").glob("*.dcm")))
    header = read_header(files[0])
    ref = SeriesRef(header.study_uid, header.series_uid, files)
    ours, theirs = read_volume(open_series(ref, ANY)).hu, by_simple_itk(ref).hu
    seen = ours > PADDING_HU  # what lies outside of the scan is air to us, and a value of its own to them
    assert seen.mean() > 0.5
    np.testing.assert_array_equal(ours[seen], theirs[seen])
