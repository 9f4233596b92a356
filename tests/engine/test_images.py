"""Image files: what is written is read, and what ITK would guess is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import VolumeError
from engine.images import ImageError, case_name, image_files, read_image, read_labels, write_image, write_labels
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.volume import Grid, UnevenPlanes, Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd")


def grid_of(shape: tuple[int, int, int], turn: float = 0.3, spacing: tuple[float, ...] = (3.0, 0.8, 0.7)) -> Grid:
    """A grid whose rows and columns are turned about z."""
    cosine, sine = np.cos(turn), np.sin(turn)
    affine = np.eye(4)
    affine[:3, 0] = (0, 0, spacing[0])
    affine[:3, 1] = np.array((-sine, cosine, 0)) * spacing[1]
    affine[:3, 2] = np.array((cosine, sine, 0)) * spacing[2]
    affine[:3, 3] = (10, -20, 30)
    return Grid(shape, affine)


def labels_on(grid: Grid) -> Segmentation:
    values = np.random.default_rng(1).integers(0, 59, grid.shape).astype(np.uint8)
    return Segmentation(values, grid, thigh29())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_and_their_place_come_back(tmp_path: Path, suffix: str) -> None:
    written = labels_on(grid_of((4, 5, 6)))
    write_labels(tmp_path / f"a{suffix}", written)
    labels, grid = read_labels(tmp_path / f"a{suffix}")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, written.labels)
    np.testing.assert_allclose(grid.affine, written.grid.affine, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
def test_hounsfield_units_come_back(tmp_path: Path, suffix: str) -> None:
    grid = grid_of((3, 4, 5))
    hu = np.random.default_rng(2).integers(-1024, 3072, grid.shape).astype(np.int16)
    write_image(tmp_path / f"a{suffix}", Volume(hu, grid))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").hu, hu)


@settings(max_examples=20, deadline=None)
@given(
    turn=st.floats(-3.1, 3.1),
    spacing=st.tuples(st.floats(0.4, 6), st.floats(0.4, 2), st.floats(0.4, 2)),
    feet_first=st.booleans(),
)
def test_any_turned_or_mirrored_grid_comes_back(
    tmp_path_factory: pytest.TempPathFactory, turn: float, spacing: tuple[float, ...], feet_first: bool
) -> None:
    grid = grid_of((2, 3, 4), turn, (-spacing[0] if feet_first else spacing[0], *spacing[1:]))
    path = tmp_path_factory.mktemp("grids") / "a.nii.gz"
    write_labels(path, labels_on(grid))
    np.testing.assert_allclose(read_labels(path)[1].affine, grid.affine, atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_label_lies_where_itk_says_it_does(tmp_path: Path, suffix: str) -> None:
    grid = grid_of((4, 5, 6))
    written = labels_on(grid)
    write_labels(tmp_path / f"a{suffix}", written)
    image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    assert image.GetPixel(5, 3, 2) == written.labels[2, 3, 5]
    place = image.TransformIndexToPhysicalPoint((5, 3, 2))
    np.testing.assert_allclose(grid.to_patient(np.array([2.0, 3.0, 5.0])), place, atol=1e-4)


def test_a_nifti_itself_is_in_ras(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii", labels_on(grid_of((2, 3, 4), turn=0.0)))
    header = (tmp_path / "a.nii").read_bytes()[:348]
    np.testing.assert_allclose(struct.unpack_from("<4f", header, 280), (-0.7, 0, 0, -10), atol=1e-6)  # srow_x


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sheared_axes_are_kept(tmp_path: Path, suffix: str) -> None:
    """As of a scan with a tilted gantry."""
    affine = np.array(grid_of((3, 4, 5)).affine)
    affine[:3, 0] = (0, 0.9, 3.0)
    write_labels(tmp_path / f"a{suffix}", labels_on(Grid((3, 4, 5), affine)))
    np.testing.assert_allclose(read_labels(tmp_path / f"a{suffix}")[1].affine, affine, atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_labels(path, labels_on(grid_of((9, 20, 20))))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match="Write it again"):
        read_labels(path)


@pytest.mark.parametrize("unit", [1, 3])
def test_a_nifti_in_metres_or_micrometres_is_refused(tmp_path: Path, unit: int) -> None:
    write_labels(tmp_path / "a.nii", labels_on(grid_of((3, 4, 5))))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[123] = unit
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ImageError, match="in mm"):
        read_labels(tmp_path / "a.nii")


def test_a_nifti_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii", labels_on(grid_of((3, 4, 5))))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<hh", content, 252, 0, 0)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ImageError, match="does not say where"):
        read_labels(tmp_path / "a.nii")


def test_an_nrrd_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    header = b"NRRD0004\ntype: unsigned char\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 1\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + bytes(8))
    with pytest.raises(ImageError, match="does not say where"):
        read_labels(tmp_path / "a.nrrd")


@pytest.mark.parametrize("value", [-1.0, 256.0, 1.5, float("nan")])
def test_values_that_are_no_labels_are_refused(tmp_path: Path, value: float) -> None:
    image = sitk.GetImageFromArray(np.full((2, 3, 4), value))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match=r"a\.nii\.gz"):
        read_labels(tmp_path / "a.nii.gz")


def test_labels_saved_as_floats_are_read(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), 29.0)), str(tmp_path / "a.nii.gz"))
    assert (read_labels(tmp_path / "a.nii.gz")[0] == 29).all()


def test_fractions_of_hu_are_rounded_and_nonsense_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), 40.6)), str(tmp_path / "a.nii.gz"))
    assert (read_image(tmp_path / "a.nii.gz").hu == 41).all()


@pytest.mark.parametrize("suffix", SUFFIXES[:3])
@pytest.mark.parametrize("value", [40000.0, float("nan")])
def test_values_that_are_no_hu_are_refused(tmp_path: Path, suffix: str, value: float) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), value)), str(tmp_path / f"b{suffix}"))
    with pytest.raises(ImageError, match=rf"b\{suffix}: its values"):
        read_image(tmp_path / f"b{suffix}")


def test_what_is_not_one_volume_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 2)), isVector=True), str(tmp_path / "a.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 2, 3, 4), np.uint8)), str(tmp_path / "b.nii.gz"))
    (tmp_path / "c.nii.gz").write_bytes(b"junk")
    for name in "abcd":
        with pytest.raises(ImageError, match=rf"{name}\.nii\.gz"):
            read_labels(tmp_path / f"{name}.nii.gz")


def test_nothing_is_left_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    labels = labels_on(grid_of((2, 3, 4)))
    with pytest.raises(ImageError, match="absent"):
        write_labels(tmp_path / "absent" / "a.nii.gz", labels)
    with pytest.raises(ImageError, match=r"a\.mha"):
        write_labels(tmp_path / "a.mha", labels)
    assert not list(tmp_path.iterdir())


def test_cases_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.seg.nrrd", "notes.txt", ".hidden.nii"):
        (tmp_path / name).touch()
    assert list(image_files(tmp_path)) == ["a", "b"]
    assert case_name(Path("Case.v2.NII.GZ")) == "Case.v2"
    assert case_name(Path(".nii.gz")) is None
    (tmp_path / "a.nii").touch()
    with pytest.raises(ImageError, match="same case"):
        image_files(tmp_path)
    with pytest.raises(ImageError, match="cannot be listed"):
        image_files(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no NIfTI"):
        image_files(tmp_path / "empty")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_slices_at_different_distances_fit_no_such_file(tmp_path: Path, suffix: str) -> None:
    even = grid_of((4, 3, 5))
    grid = Grid(even.shape, even.affine, UnevenPlanes(0, np.array([0.0, 0.5, 1.0, 3.0])))
    with pytest.raises(VolumeError, match=r"varies from 1\.50 to 6\.00 mm"):
        write_labels(tmp_path / f"a{suffix}", labels_on(grid))
    assert not list(tmp_path.iterdir())
