"""What steps leave for each other in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.volume import Grid, UnevenPlanes
from node.job_files import grid_json, grid_of, load_json, save_json

AFFINE = np.array([[0, 0.1, 0.7, -12.5], [0, 0.8, 0, 1 / 3], [2.5, 0, 0, -700.1], [0, 0, 0, 1]])


@pytest.mark.parametrize("places", [None, [0.0, 1 / 3, 2 / 3, 3.0]])
def test_a_grid_survives_from_step_to_step(tmp_path: Path, places: list[float] | None) -> None:
    grid = Grid((4, 3, 2), AFFINE, None if places is None else UnevenPlanes(0, np.array(places)))
    save_json(tmp_path / "grid.json", grid_json(grid))
    found = grid_of(load_json(tmp_path / "grid.json"), grid.shape)
    assert np.array_equal(found.affine, grid.affine) and found.shape == grid.shape
    if found.uneven is None or grid.uneven is None:
        assert found.uneven is grid.uneven
    else:
        assert found.uneven.axis == 0 and np.array_equal(found.uneven.places, grid.uneven.places)


def test_a_grid_written_before_slices_had_places_is_read(tmp_path: Path) -> None:
    save_json(tmp_path / "grid.json", {"affine": AFFINE.tolist()})
    assert grid_of(load_json(tmp_path / "grid.json"), (4, 3, 2)).uneven is None
