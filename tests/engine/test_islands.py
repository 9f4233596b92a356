from __future__ import annotations

import numpy as np

from engine.islands import remove_islands, remove_specks


def test_small_parts_go_and_large_parts_and_small_structures_stay() -> None:
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[:10, :10, :10] = 7
    labels[15:17, 15:17, 15:17] = 7  # 8 of 1000 voxels: an island
    labels[12:20, :8, :4] = 7  # 256 of 1000: a part of its own
    labels[0, 19, 19] = 9  # small, but all there is
    cleaned = remove_islands(labels)
    expected = labels.copy()
    expected[15:17, 15:17, 15:17] = 0
    assert np.array_equal(cleaned, expected)


def test_nothing_stays_nothing() -> None:
    assert not remove_islands(np.zeros((4, 5, 6), dtype=np.uint8)).any()


def test_a_structure_too_small_to_be_one_goes_whole() -> None:
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[:10, :10, :10] = 7
    labels[15:17, 15:17, 15:17] = 9  # 8 voxels of 4.5 mm3
    expected = np.where(labels == 9, 0, labels)
    assert np.array_equal(remove_specks(labels, voxel_volume_mm3=4.5), expected)
    assert np.array_equal(remove_specks(labels, voxel_volume_mm3=200.0), labels)  # 1.6 ml is a structure
