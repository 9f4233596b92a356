from __future__ import annotations

import numpy as np
import pytest

from engine.volume import Grid


def test_a_grid_keeps_its_own_affine_and_leaves_its_callers_alone() -> None:
    affine = np.eye(4)
    grid = Grid((2, 3, 4), affine)
    affine[0, 3] = 5.0
    assert grid.affine[0, 3] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 5.0
