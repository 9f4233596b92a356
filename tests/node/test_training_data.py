"""What a training learns from: files and DICOM, read to the same pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_seg import write_label_map
from stubs.training import tiny

from dicom_io.errors import DicomIoError
from dicom_io.series import find_series, open_series
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from engine.evaluation.cases import LabelScheme
from engine.images import write_labels
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.training.errors import TrainingError
from engine.training.loop import RunPlan
from engine.training.pair_source import PairSource
from engine.training.pairs import Case, read_pair
from engine.volume import Volume
from node.training import ANY_STACK, DataPlan, read_any, training_data

SHAPE = (40, 40, 48)
Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def labels_of(*numbers: int) -> Labels:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for place, number in enumerate(numbers):
        labels[5:30, 6:30, 4 + 10 * place : 12 + 10 * place] = number
    return labels


def write_case(root: Path, name: str, labels: Labels, position: str = "HFS", seed: int = 0) -> None:
    """A DICOM series and its SEG."""
    hu = np.where(labels > 0, 40 + labels, -100).astype(np.int16)
    hu[:, :2] = -1000
    volume = Volume(hu, patient_grid(SHAPE, (6.0, 5.0, 5.0), position))
    write_series(volume, root / "images" / name, SyntheticStudy(seed=seed, patient_position=position))
    source = open_series(find_series(root / "images" / name)[0], ANY_STACK)
    (root / "labels").mkdir(exist_ok=True)
    write_label_map(root / "labels" / f"{name}.dcm", source.headers, labels)


def case_of(root: Path, name: str, suffix: str = ".dcm") -> Case:
    return Case(name, root / "images" / name, root / "labels" / f"{name}{suffix}")


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP"])
def test_a_series_and_its_seg_are_a_pair(tmp_path: Path, position: str) -> None:
    write_case(tmp_path, "a", labels_of(1, 2, 57), position)
    raw = read_any(case_of(tmp_path, "a"))
    assert raw.values is LabelScheme.SEGMENTS
    pair = read_pair(case_of(tmp_path, "a"), read_any, LabelScheme.STRUCTURES, thigh29())
    assert set(np.unique(pair.classes)) == {0, 1, 29}
    assert (pair.hu[pair.classes == 29] == 97).all() and set(np.unique(pair.hu[pair.classes == 1])) == {41, 42}


def test_a_series_goes_with_labels_in_a_file(tmp_path: Path) -> None:
    labels = labels_of(1, 2)
    write_case(tmp_path, "a", labels)
    grid = read_any(case_of(tmp_path, "a")).grid
    write_labels(tmp_path / "labels" / "a.nii.gz", Segmentation(labels, grid, thigh29()))
    pair = read_pair(case_of(tmp_path, "a", ".nii.gz"), read_any, LabelScheme.SEGMENTS, thigh29())
    assert (pair.hu[pair.classes == 1] > 40).all() and (pair.classes == 1).sum() == (labels > 0).sum()


def test_a_seg_without_its_series_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "a", labels_of(1), seed=1)
    write_case(tmp_path, "b", labels_of(1), seed=2)
    crossed = Case("a", tmp_path / "images" / "a", tmp_path / "labels" / "b.dcm")
    with pytest.raises(DicomIoError, match="frame of reference") as refused:
        read_any(crossed)
    assert "b.dcm" in refused.value.thing
    with pytest.raises(TrainingError, match="no DICOM series"):
        read_any(Case("a", tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.dcm"))


def test_a_folder_that_is_no_single_series_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path, "a", labels_of(1), seed=1)
    volume = Volume(np.zeros((3, 8, 8), np.int16), patient_grid((3, 8, 8), (1.0, 1.0, 1.0)))
    write_series(volume, tmp_path / "images" / "a" / "more", SyntheticStudy(seed=7))
    with pytest.raises(TrainingError, match="2 series"):
        read_any(case_of(tmp_path, "a"))
    for path in sorted((tmp_path / "images" / "a").glob("*.dcm")):
        path.unlink()
    middle = tmp_path / "images" / "a" / "more" / "0002.dcm"
    middle.unlink()
    middle.with_name("0003.dcm").unlink()
    with pytest.raises(TrainingError, match="1 slices") as refused:
        read_any(case_of(tmp_path, "a"))
    assert str(tmp_path / "images" / "a") in refused.value.thing


def test_a_folder_of_dicom_becomes_training_data(tmp_path: Path) -> None:
    for seed in range(3):
        write_case(tmp_path / "data", f"case{seed}", labels_of(2 * seed + 1, 8, 57), seed=seed)
    plan = RunPlan(tiny(), tmp_path / "run")
    seen: list[str] = []
    data = DataPlan(folder=tmp_path / "data", allow_missing=True, workers=0)
    source, identity = training_data(plan, data, lambda _done, _of, name: seen.append(name))
    assert isinstance(source, PairSource) and sorted(seen) == ["case0", "case1", "case2"]
    assert identity["data"]["cases"] == ["case0", "case1", "case2"]
    with pytest.raises(TrainingError, match="--allow-missing"):
        training_data(plan, DataPlan(folder=tmp_path / "data", workers=0), lambda *_: None)
