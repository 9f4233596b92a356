from __future__ import annotations

import numpy as np

from engine.islands import remove_islands, remove_islands_and_specks, remove_specks
from engine.labels import LabelSet


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
    assert np.array_equal(remove_specks(labels, voxel_volume_mm3=4.5, least_ml=0.5), expected)
    assert np.array_equal(remove_specks(labels, voxel_volume_mm3=200.0, least_ml=0.5), labels)  # 1.6 ml is enough


def test_of_a_small_structure_only_what_the_scan_cuts_off_stays() -> None:
    known = LabelSet("small", (), least_volume_ml=0.02, least_whole_ml=0.1)
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[5:11, 5:11, 5:11] = 3  # 216 voxels of 1 mm3, and an edge is nowhere near
    labels[13:15, 3:6, 3:6] = 3  # 18 of them: a part of the same
    labels[13:16, 12:15, 12:15] = 5  # 27 voxels within the scan
    labels[18:, 2:6, 2:6] = 7  # 32 voxels at the last slice
    labels[12:15, 2:5, 15:18] = 7  # 27 voxels of the same, but within
    labels[19, 19, 19] = 9  # at an edge, but next to nothing
    expected = labels.copy()
    expected[13:16, 12:15, 12:15] = expected[12:15, 2:5, 15:18] = expected[19, 19, 19] = 0
    assert np.array_equal(remove_islands_and_specks(labels, 1.0, known), expected)
    lenient = LabelSet("lenient", (), least_volume_ml=0.0, least_whole_ml=0.0)
    assert np.array_equal(remove_islands_and_specks(labels, 1.0, lenient), labels)
