"""Synthetic series are valid CT, and every geometry survives the way through files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.errors import DicomIoError
from dicom_io.series import SeriesRules, find_series, open_series, read_volume
from dicom_io.synthetic import PATIENT_AXES, SyntheticStudy, patient_grid, write_series
from engine.volume import Grid, Volume

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]
ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)


def noise(grid: Grid, seed: int = 0) -> Volume:
    hu = np.random.default_rng(seed).integers(-1024, 3071, grid.shape).astype(np.int16)
    return Volume(hu, grid)


def blob_centre_mm(volume: Volume) -> NDArray[np.float64]:
    """Centroid in the patient of what is brighter than water, LPS mm."""
    index = np.argwhere(volume.hu > 0).astype(np.float64)
    weights = volume.hu[volume.hu > 0].astype(np.float64)
    return np.asarray(np.average(volume.grid.to_patient(index), axis=0, weights=weights))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_series_is_valid_and_comes_back(tmp_path: Path, syntax: str) -> None:
    volume = noise(patient_grid((2, 40, 48), (5.0, 0.8, 0.7)))
    ref = write_series(volume, tmp_path, SyntheticStudy(transfer_syntax_uid=syntax))
    assert find_series(tmp_path) == (ref,)
    np.testing.assert_array_equal(read_volume(open_series(ref, ANY)).hu, volume.hu)
    assert dcmread(ref.files[0], stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("known", [True, False], ids=["known patient", "unknown patient"])
def test_dciodvfy_finds_no_error(tmp_path: Path, syntax: str, known: bool) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    study = SyntheticStudy(transfer_syntax_uid=syntax)
    if not known:
        study = SyntheticStudy(transfer_syntax_uid=syntax, patient_sex="", patient_age_years=None, patient_size_m=None)
    ref = write_series(noise(patient_grid((2, 40, 48), (5.0, 0.8, 0.7), "FFP", 7.0)), tmp_path, study)
    run = subprocess.run([validator, str(ref.files[1])], capture_output=True, text=True, timeout=60, check=False)
    assert "CTImage" in run.stderr + run.stdout
    assert "Error" not in run.stderr + run.stdout


def test_the_same_seed_gives_the_same_files_and_another_one_other_uids(tmp_path: Path) -> None:
    volume = noise(patient_grid((2, 4, 4), (5.0, 1.0, 1.0)))
    refs = [write_series(volume, tmp_path / name, SyntheticStudy(seed=3)) for name in ("a", "b")]
    contents = [[path.read_bytes() for path in ref.files] for ref in refs]
    assert contents[0] == contents[1]
    other = write_series(volume, tmp_path / "c", SyntheticStudy(seed=4))
    sibling = write_series(volume, tmp_path / "d", SyntheticStudy(seed=3, series_number=5))
    assert other.study_uid != refs[0].study_uid
    assert (sibling.study_uid, sibling.series_uid != refs[0].series_uid) == (refs[0].study_uid, True)
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in (other.study_uid, other.series_uid))


def test_the_patient_is_as_the_study_says(tmp_path: Path) -> None:
    study = SyntheticStudy(seed=7, patient_sex="M", patient_age_years=45, patient_size_m=1.82, patient_position="FFS")
    header = dcmread(write_series(noise(patient_grid((2, 4, 4), (5.0, 1.0, 1.0))), tmp_path, study).files[0])
    assert (header.PatientName, header.PatientID) == ("Synthetic^Phantom", "SYNTH-7")
    assert (header.PatientSex, header.PatientAge, header.PatientSize) == ("M", "045Y", 1.82)
    assert header.PatientPosition == "FFS"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    grid = patient_grid((2, 4, 4), (5.0, 1.0, 1.0))
    dark = Volume(np.full(grid.shape, -1025, dtype=np.int16), grid)
    with pytest.raises(DicomIoError, match="-1024 HU"):
        write_series(dark, tmp_path, SyntheticStudy())
    sheared = np.array(grid.affine)
    sheared[0, 1] = 0.1
    with pytest.raises(DicomIoError, match="not perpendicular"):
        write_series(noise(Grid(grid.shape, sheared)), tmp_path, SyntheticStudy())


@pytest.mark.parametrize("position", PATIENT_AXES)
def test_patient_positions_agree_with_their_names(position: str) -> None:
    grid = patient_grid((3, 4, 5), (5.0, 1.0, 2.0), position, centre_mm=(1.0, 2.0, 3.0))
    down = {"S": (0, 1, 0), "P": (0, -1, 0), "DR": (-1, 0, 0), "DL": (1, 0, 0)}[position[2:]]
    np.testing.assert_allclose(grid.affine[:3, 1], down, atol=1e-12)
    assert np.sign(grid.affine[2, 0]) == (1 if position.startswith("HF") else -1)
    assert grid.spacing_mm == pytest.approx((5.0, 1.0, 2.0))
    np.testing.assert_allclose(grid.to_patient(np.array([1.0, 1.5, 2.0])), (1.0, 2.0, 3.0), atol=1e-12)


@st.composite
def phantoms(draw: st.DrawFn) -> tuple[Volume, str]:
    """A small volume in any patient position, turned, shifted, its slices along or against the normal."""
    position = draw(st.sampled_from(sorted(PATIENT_AXES)))
    spacing_mm = draw(st.tuples(st.floats(0.5, 7.0), st.floats(0.2, 1.5), st.floats(0.2, 1.5)))
    centre_mm = draw(st.tuples(*[st.floats(-900, 900)] * 3))
    grid = patient_grid((7, 9, 8), spacing_mm, position, draw(st.floats(-180, 180)), centre_mm)
    affine = np.array(grid.affine)
    if draw(st.booleans()):
        affine[:3, 3] += 6 * affine[:3, 0]
        affine[:3, 0] *= -1
    return phantom(Grid(grid.shape, affine), draw(st.integers(0, 99))), position


@given(case=phantoms(), order=st.sampled_from(["ascending", "descending"]))
@settings(max_examples=40, deadline=None)
def test_any_geometry_comes_back_through_files(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[Volume, str],
    order: Literal["ascending", "descending"],
) -> None:
    volume, position = case
    folder = tmp_path_factory.mktemp("geometry")
    ref = write_series(volume, folder, SyntheticStudy(patient_position=position, instance_order=order))
    source = open_series(ref, ANY)
    found = read_volume(source)
    along = np.linalg.det(volume.grid.affine[:3, :3]) < 0
    expected = volume.hu if along else volume.hu[::-1]
    np.testing.assert_array_equal(found.hu, expected)
    distance = np.linalg.norm(blob_centre_mm(found) - blob_centre_mm(volume))
    assert distance < 0.1 * min(volume.grid.spacing_mm)
    for index, header in enumerate(source.headers):
        np.testing.assert_allclose(
            header.ImagePositionPatient, source.grid.to_patient(np.array([index, 0.0, 0.0])), atol=1e-6
        )


def phantom(grid: Grid, seed: int) -> Volume:
    """Air with a bright block somewhere off the middle."""
    random = np.random.default_rng(seed)
    hu = np.full(grid.shape, -1000, dtype=np.int16)
    start = random.integers(0, [4, 5, 5])
    block = tuple(slice(first, first + 3) for first in start)
    hu[block] = random.integers(100, 1500, (3, 3, 3))
    return Volume(hu, grid)
