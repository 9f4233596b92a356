"""Folders of files: pairs by name, and everything that does not fit refused with its file's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_bodies import plain_grid

from engine.errors import VastusError
from engine.evaluation.cases import EvaluationError, LabelScheme
from engine.evaluation.folders import CaseFolders, FolderSource
from engine.images import ImageError, Labels, write_image, write_labels
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume

GRID = plain_grid((4, 6, 6), (3.0, 1.0, 1.0))


def put(path: Path, value: int = 58, grid: Grid = GRID) -> Path:
    """A label volume with 1 and another value in it."""
    path.parent.mkdir(exist_ok=True)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[1, 1:3], labels[2, 1:3] = 1, value
    write_labels(path, Segmentation(labels, grid, thigh29()))
    return path


def put_image(path: Path, grid: Grid = GRID) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_image(path, Volume(np.full(grid.shape, 40, dtype=np.int16), grid))
    return path


def source_of(folder: Path, images: bool = False, scheme: LabelScheme | None = None) -> FolderSource:
    folders = CaseFolders(folder / "p", folder / "t", folder / "i" if images else None)
    return FolderSource(folders, thigh29(), scheme)


def test_files_of_one_name_are_one_case_whatever_their_format(tmp_path: Path) -> None:
    put(tmp_path / "p" / "b.nii.gz"), put(tmp_path / "t" / "b.nrrd"), put_image(tmp_path / "i" / "b.nii")
    put(tmp_path / "p" / "a.seg.nrrd"), put(tmp_path / "t" / "a.nii"), put_image(tmp_path / "i" / "a.nrrd")
    source = source_of(tmp_path, images=True)
    assert source.names == ("a", "b") and source.scheme is LabelScheme.SEGMENTS and source.has_images
    case = source.load("b")
    np.testing.assert_array_equal(case.prediction, case.truth)
    assert case.hu is not None and (case.hu == 40).all()
    assert source_of(tmp_path).load("a").hu is None


def test_a_case_without_its_prediction_is_refused_not_left_out(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.nii"), put(tmp_path / "t" / "a.nii"), put(tmp_path / "t" / "lost.nii")
    with pytest.raises(EvaluationError, match=r"/p: .*lost\.nii"):
        source_of(tmp_path)
    put(tmp_path / "p" / "lost.nii"), put(tmp_path / "p" / "extra.nii")
    with pytest.raises(EvaluationError, match=r"/t: .*extra\.nii"):
        source_of(tmp_path)


def test_many_missing_files_are_not_all_named(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.nii")
    for number in range(8):
        put(tmp_path / "t" / f"{number}.nii")
    with pytest.raises(EvaluationError, match="and 3 more"):
        source_of(tmp_path)


def test_a_case_without_its_ct_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.nii"), put(tmp_path / "t" / "a.nii"), put_image(tmp_path / "i" / "other.nii")
    with pytest.raises(EvaluationError, match=r"/i: .*a\.nii"):
        source_of(tmp_path, images=True)


@pytest.mark.parametrize(("scheme", "value"), [(LabelScheme.SEGMENTS, 59), (LabelScheme.STRUCTURES, 30)])
def test_values_outside_the_set_are_refused_with_the_file_and_the_values(
    tmp_path: Path, scheme: LabelScheme, value: int
) -> None:
    put(tmp_path / "t" / "a.nii", 20), put(tmp_path / "p" / "a.nii", value)
    with pytest.raises(EvaluationError, match=rf"p/a\.nii: .*{scheme.value}.*: {value}"):
        source_of(tmp_path, scheme=scheme).load("a")


def moved(millimetres: float) -> Grid:
    affine = np.array(GRID.affine)
    affine[1, 3] += millimetres
    return Grid(GRID.shape, affine)


@pytest.mark.parametrize("other", [plain_grid((4, 6, 7), (3.0, 1.0, 1.0)), moved(0.01)])
def test_grids_that_differ_are_refused_with_both_files(tmp_path: Path, other: Grid) -> None:
    put(tmp_path / "p" / "a.nii", grid=other), put(tmp_path / "t" / "a.nii"), put_image(tmp_path / "i" / "a.nii")
    with pytest.raises(EvaluationError, match=r"p/a\.nii: .*t/a\.nii"):
        source_of(tmp_path).load("a")
    put(tmp_path / "p" / "a.nii"), put_image(tmp_path / "i" / "a.nii", grid=other)
    with pytest.raises(EvaluationError, match=r"i/a\.nii: .*t/a\.nii"):
        source_of(tmp_path, images=True).load("a")


def test_what_single_precision_costs_is_no_difference(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.nii", grid=moved(0.0005)), put(tmp_path / "t" / "a.nii")
    assert source_of(tmp_path).load("a").grid.shape == GRID.shape


def test_a_scheme_that_the_files_leave_open_must_be_said(tmp_path: Path) -> None:
    put(tmp_path / "p" / "a.nii", 29), put(tmp_path / "t" / "a.nii", 29)
    with pytest.raises(EvaluationError, match="--labels"):
        source_of(tmp_path)
    for scheme in LabelScheme:
        assert source_of(tmp_path, scheme=scheme).scheme is scheme


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path / "t" / "a.nii"), put(tmp_path / "p" / "a.nii")
    (tmp_path / "p" / "a.nii").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"p/a\.nii"):
        source_of(tmp_path).load("a")
    with pytest.raises(VastusError, match="absent"):
        FolderSource(CaseFolders(tmp_path / "absent", tmp_path / "t"), thigh29())


def test_another_reader_can_be_given(tmp_path: Path) -> None:
    put(tmp_path / "t" / "a.nii"), put(tmp_path / "p" / "a.nii")
    read: list[Path] = []

    def reader(path: Path) -> tuple[Labels, Grid]:
        read.append(path)
        return np.full(GRID.shape, 3, dtype=np.uint8), GRID

    folders = CaseFolders(tmp_path / "p", tmp_path / "t")
    case = FolderSource(folders, thigh29(), LabelScheme.SEGMENTS, reader).load("a")
    assert (case.truth == 3).all() and read == [tmp_path / "p" / "a.nii", tmp_path / "t" / "a.nii"]
