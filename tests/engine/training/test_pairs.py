"""Folders of scans with labels: what is found, refused, prepared and drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stubs.training import tiny

from engine.errors import VastusError
from engine.evaluation.cases import LabelScheme
from engine.images import write_image, write_labels
from engine.labels import thigh29
from engine.preprocessing import normalise
from engine.segmentation import Segmentation
from engine.training.draws import Start
from engine.training.errors import TrainingError
from engine.training.pair_source import PairData, PairSource
from engine.training.pairs import Case, find_cases, read_files, read_pair, split
from engine.training.preset import Preset, load_preset
from engine.volume import Grid, Volume

Labels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
LABEL_SET = thigh29()
SHAPE = (40, 36, 60)


def grid_of(spacing_mm: tuple[float, float, float] = (6.0, 5.0, 5.0), signs: tuple[int, int, int] = (1, 1, 1)) -> Grid:
    """An axial grid; a sign of -1 turns an axis round."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = np.array(spacing_mm) * signs
    affine[:, 3] = (-120.0, -80.0, 40.0, 1.0)
    return Grid(SHAPE, affine)


def labels_of(seed: int, highest: int = 58) -> Labels:
    """Boxes of all labels, air about them."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    box = np.random.default_rng(seed).permutation(np.arange(4 * 4 * 6) % (highest + 1)).reshape(4, 4, 6)
    labels[4:36, 2:34, 6:54] = box.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return labels


def hu_of(labels: Labels) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Brighter with the class; air outside."""
    return np.where(labels > 0, (labels.astype(np.int16) + 1) // 2 * 10 - 120, -1000).astype(np.int16)


@dataclass(frozen=True)
class Folder:
    """A folder of pairs."""

    root: Path

    def add(
        self, name: str, labels: Labels, grid: Grid | None = None, ends: tuple[str, str] = (".nii.gz", ".nrrd")
    ) -> None:
        """Write a pair."""
        there = grid or grid_of()
        for kind in ("images", "labels"):
            (self.root / kind).mkdir(parents=True, exist_ok=True)
        write_image(self.root / "images" / f"{name}{ends[0]}", Volume(hu_of(labels), there))
        write_labels(self.root / "labels" / f"{name}{ends[1]}", Segmentation(labels, there, LABEL_SET))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Four pairs."""
    made = Folder(tmp_path / "data")
    for number in range(4):
        made.add(f"case{number}", labels_of(number))
    return made


def source_of(
    folder: Folder, preset: Preset | None = None, workers: int = 0, values: LabelScheme = LabelScheme.SEGMENTS
) -> PairSource:
    chosen = preset or tiny()
    train, held_out = split(find_cases(folder.root), 2, 0, 0)
    data = PairData(train, held_out, read_files, values, LABEL_SET, allow_missing=False)
    return PairSource(data, chosen, 1, workers, folder.root / "prepared")


def quiet(_done: int, _of: int, _name: str) -> None:
    """Says nothing."""


def test_pairs_are_found_by_name(folder: Folder) -> None:
    (folder.root / "images" / ".hidden.nii.gz").write_bytes(b"")
    (folder.root / "images" / "notes.txt").write_text("no image")
    cases = find_cases(folder.root)
    assert [case.name for case in cases] == ["case0", "case1", "case2", "case3"]
    assert cases[0].image.name == "case0.nii.gz" and cases[0].labels.name == "case0.nrrd"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "labels" / "case1.nrrd").unlink(), "nothing of that name lies in"),
        (lambda root: (root / "images" / "case2.nii.gz").unlink(), "nothing of that name lies in"),
        (lambda root: (root / "labels" / "case1.nii").write_bytes(b"x"), "of the same case"),
        (lambda root: (root / "images").rename(root / "scans"), "cannot be listed"),
    ],
)
def test_a_folder_with_a_gap_is_refused(folder: Folder, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(folder.root)
    with pytest.raises(TrainingError, match=reason):
        find_cases(folder.root)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    with pytest.raises(TrainingError, match="nothing that can be read"):
        find_cases(tmp_path)


@given(st.integers(2, 80), st.integers(2, 7), st.integers(0, 99))
def test_every_case_validates_once(count: int, folds: int, seed: int) -> None:
    cases = tuple(Case(f"{number:03d}", Path("i"), Path("l")) for number in range(count))
    if count < folds:
        with pytest.raises(TrainingError, match="cannot be divided"):
            split(cases, folds, seed, 0)
        return
    parts = [split(cases, folds, seed, fold) for fold in range(folds)]
    assert sorted(case.name for _, held_out in parts for case in held_out) == [case.name for case in cases]
    for train, held_out in parts:
        assert held_out and not set(train) & set(held_out) and len(train) + len(held_out) == count
    assert max(len(part[1]) for part in parts) - min(len(part[1]) for part in parts) <= 1


def test_72_cases_are_split_as_in_the_paper() -> None:
    cases = tuple(Case(f"{number:03d}", Path("i"), Path("l")) for number in range(72))
    plan = load_preset("paper").pairs
    train, held_out = split(cases, plan.folds, plan.split_seed, 5)
    assert (len(train), len(held_out)) == (60, 12)
    with pytest.raises(TrainingError, match="fold 6"):
        split(cases, plan.folds, plan.split_seed, 6)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_a_pair_is_turned_upright(tmp_path: Path, signs: tuple[int, int, int]) -> None:
    made, labels = Folder(tmp_path), labels_of(1)
    made.add("a", labels, grid_of(signs=signs))
    pair = read_pair(find_cases(tmp_path)[0], read_files, LabelScheme.SEGMENTS, LABEL_SET)
    turned = labels[:: signs[0], :: signs[1], :: signs[2]]
    np.testing.assert_array_equal(pair.classes, (turned + 1) // 2)
    np.testing.assert_array_equal(pair.hu, hu_of(turned))
    assert pair.spacing_mm == pytest.approx((6, 5, 5))


def test_labels_in_another_order_of_axes_belong_to_the_scan(tmp_path: Path) -> None:
    """A series and labels from other software may run in different directions over the same voxels."""
    made, labels = Folder(tmp_path), labels_of(1)
    made.add("a", labels)
    grid = grid_of()
    affine = np.array(grid.affine)
    affine[:3, 3] += affine[:3, 0] * (SHAPE[0] - 1)
    affine[:3, 0] *= -1
    write_labels(tmp_path / "labels" / "a.nrrd", Segmentation(labels[::-1].copy(), Grid(SHAPE, affine), LABEL_SET))
    pair = read_pair(find_cases(tmp_path)[0], read_files, LabelScheme.SEGMENTS, LABEL_SET)
    np.testing.assert_array_equal(pair.classes, (labels + 1) // 2)


def test_classes_without_sides_are_taken_as_they_are(tmp_path: Path) -> None:
    made, labels = Folder(tmp_path), labels_of(1, highest=29)
    made.add("a", labels)
    pair = read_pair(find_cases(tmp_path)[0], read_files, LabelScheme.STRUCTURES, LABEL_SET)
    np.testing.assert_array_equal(pair.classes, labels)


@pytest.mark.parametrize(("values", "highest"), [(LabelScheme.STRUCTURES, 30), (LabelScheme.SEGMENTS, 59)])
def test_a_label_that_is_none_is_refused_by_file(tmp_path: Path, values: LabelScheme, highest: int) -> None:
    made, labels = Folder(tmp_path), labels_of(1, highest=20)
    labels[0, 0, 0] = highest
    made.add("a", labels)
    with pytest.raises(TrainingError, match=f"the value {highest}") as refused:
        read_pair(find_cases(tmp_path)[0], read_files, values, LABEL_SET)
    assert str(tmp_path / "labels" / "a.nrrd") in refused.value.thing


@pytest.mark.parametrize(
    "grid", [grid_of(spacing_mm=(6.0, 5.0, 5.1)), Grid(SHAPE, grid_of().affine + np.eye(4)[:, [3, 3, 3, 0]] * 2)]
)
def test_labels_on_another_grid_are_refused_by_file(tmp_path: Path, grid: Grid) -> None:
    made, labels = Folder(tmp_path), labels_of(1)
    made.add("a", labels)
    write_labels(tmp_path / "labels" / "a.nrrd", Segmentation(labels, grid, LABEL_SET))
    with pytest.raises(TrainingError, match="its grid is not that of") as refused:
        read_pair(find_cases(tmp_path)[0], read_files, LabelScheme.SEGMENTS, LABEL_SET)
    assert "a.nrrd" in refused.value.thing and "a.nii.gz" in refused.value.reason


def test_a_damaged_file_is_refused_by_name_before_anything_else(folder: Folder) -> None:
    path = folder.root / "images" / "case2.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VastusError) as refused:
        source_of(folder).prepare(quiet)
    assert str(path) in refused.value.thing


def test_a_structure_that_no_file_shows_is_refused(folder: Folder) -> None:
    for number in range(4):
        labels = labels_of(number)
        labels[np.isin(labels, (13, 14))] = 0
        folder.add(f"case{number}", labels)
    source = source_of(folder)
    with pytest.raises(TrainingError, match=f"1 structures .* {LABEL_SET.structures[6].key}"):
        source.prepare(quiet)
    source._data = replace(source._data, allow_missing=True)
    source.prepare(quiet)


def test_classes_read_as_segments_are_noticed(folder: Folder) -> None:
    for number in range(4):
        folder.add(f"case{number}", labels_of(number, highest=29))
    with pytest.raises(TrainingError, match="--labels structures"):
        source_of(folder).prepare(quiet)
    source_of(folder, values=LabelScheme.STRUCTURES).prepare(quiet)


def test_the_input_is_what_the_service_would_show_the_network(folder: Folder) -> None:
    preset = tiny()
    preset = replace(preset, pairs=replace(preset.pairs, foreground_crop=False))
    source = source_of(folder, preset)
    source.prepare(quiet)
    shown = next(source.held_out())
    _, (case, _) = split(find_cases(folder.root), 2, 0, 0)
    pair = read_pair(case, read_files, LabelScheme.SEGMENTS, LABEL_SET)
    torch.testing.assert_close(shown.image[0, 0], normalise(torch.from_numpy(pair.hu), preset.preprocessing))
    assert torch.equal(shown.classes[0, 0], torch.from_numpy(pair.classes))


ORDERS: tuple[Literal["before_intensity", "after_intensity"], ...] = ("before_intensity", "after_intensity")


@pytest.mark.parametrize("order", ORDERS)
def test_preparation_follows_the_preset(folder: Folder, order: Literal["before_intensity", "after_intensity"]) -> None:
    preset = tiny()
    recipe = replace(preset.preprocessing, gamma=2.0, hu_low=-57.0, hu_high=164.0, spacing_mm=(12.0, 10.0, 10.0))
    preset = replace(preset, preprocessing=recipe, pairs=replace(preset.pairs, resample=order))
    source = source_of(folder, preset)
    source.prepare(quiet)
    shown = next(source.held_out())
    assert shown.image.shape[2:] == (32, 32, 32)  # half as many voxels, the foreground alone, and room for a window
    assert 0.2 < shown.image.max() <= 1 and shown.image.min() == 0
    assert int(shown.classes.max()) < 30


def test_a_scan_is_prepared_once_and_anew_when_it_changes(folder: Folder) -> None:
    source_of(folder).prepare(quiet)
    kept = {path: path.stat().st_mtime_ns for path in (folder.root / "prepared").iterdir()}
    assert len(kept) == 4
    source_of(folder).prepare(quiet)
    assert kept == {path: path.stat().st_mtime_ns for path in (folder.root / "prepared").iterdir()}
    folder.add("case1", labels_of(9))
    source_of(folder).prepare(quiet)
    assert len(list((folder.root / "prepared").iterdir())) == 5


def test_draws_go_on_the_same_wherever_they_begin(folder: Folder) -> None:
    source = source_of(folder)
    source.prepare(quiet)
    assert source.epoch_steps(2) == 1 and source.epoch_steps(1) == 2
    whole = list(islice(source.batches(Start(2, 1, 0)), 5))
    for workers in (0, 1):
        later = list(islice(source_of(folder, workers=workers).batches(Start(2, 1, 3)), 2))
        for one, other in zip(whole[3:], later, strict=True):
            assert torch.equal(one.image, other.image) and torch.equal(one.classes, other.classes)
    assert not torch.equal(whole[0].image, whole[2].image)
    assert not torch.equal(whole[0].image, next(source.batches(Start(1, 1, 0))).image)


def test_a_draw_has_the_presets_windows(folder: Folder) -> None:
    plain = {"mirror": 0.0, "turn_deg": 0.0, "scale": 0.0, "shift": 0.0, "noise_sd": 0.0}
    preset = tiny()
    preset = replace(preset, augmentation=replace(preset.augmentation, **plain))
    source = source_of(folder, preset)
    source.prepare(quiet)
    batch = next(source.batches(Start(0, 2, 0)))
    assert batch.image.shape == batch.classes.shape == (4, 1, 32, 32, 32)
    expected = normalise(batch.classes.float() * 10 - 120, preset.preprocessing)
    inside = batch.classes > 0
    assert inside.any()
    torch.testing.assert_close(batch.image[inside], expected[inside])
