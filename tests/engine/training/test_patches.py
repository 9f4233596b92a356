"""Training patches and the compositions that the transformer learns first."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training.patches import PatchSource, TrainingSubject, load_subject
from engine.training.tokens import BLOCK, composition

WINDOW = (32, 32, 32)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """One subject: class 1 in a bar, air elsewhere."""
    classes = np.zeros((60, 50, 70), dtype=np.uint8)
    classes[:, 20:30, 10:20] = 1
    hu = np.where(classes > 0, 50, -1000).astype(np.int16)
    voxels = np.argwhere(classes == 1)[::97]
    aims = np.column_stack([np.ones(len(voxels)), voxels]).astype(np.int32)
    path = tmp_path / "1.npz"
    np.savez(path, hu=hu, classes=classes, aims=aims)
    return [path]


def test_a_patch_fits_the_window_and_its_image_fits_its_classes(files: list[Path]) -> None:
    seen = 0
    for patch in islice(PatchSource(files, 3, WINDOW), 12):
        assert patch.hu.shape == patch.classes.shape == WINDOW
        assert patch.hu.dtype == np.float32 and patch.classes.dtype == np.uint8
        if (patch.classes == 1).any() and (patch.classes == 0).any():
            seen += 1
            assert patch.hu[patch.classes == 1].mean() > patch.hu[patch.classes == 0].mean() + 500
    assert seen > 6


def test_a_seed_repeats_its_patches(files: list[Path]) -> None:
    first, again = (next(iter(PatchSource(files, 9, WINDOW))) for _ in range(2))
    np.testing.assert_array_equal(first.hu, again.hu)


def test_a_subject_is_read_as_it_was_kept(files: list[Path]) -> None:
    subject = load_subject(files[0])
    assert isinstance(subject, TrainingSubject)
    assert (subject.classes[tuple(subject.aims[:, 1:].T)] == subject.aims[:, 0]).all()


@given(st.integers(0, 2**32 - 1))
def test_a_composition_counts_every_voxel_of_every_block(seed: int) -> None:
    classes = np.random.default_rng(seed).integers(0, 5, (32, 32, 32), dtype=np.uint8)
    counts = composition(classes, 5)
    assert counts.shape == (8, 64, 5)
    assert (counts.sum(axis=-1) == BLOCK**3).all()
    np.testing.assert_array_equal(counts.sum(axis=(0, 1), dtype=np.int64), np.bincount(classes.ravel(), minlength=5))


def test_a_block_stands_in_the_patch_that_holds_it() -> None:
    classes = np.zeros((32, 32, 32), dtype=np.uint8)
    classes[16:20, 4:8, 28:32] = 1  # patch (1, 0, 1), block (0, 1, 3) inside it
    counts = composition(classes, 2)
    assert counts[5, 7, 1] == BLOCK**3
    assert counts[..., 1].sum() == BLOCK**3
