"""How far apart the levels of a grid lie, evenly or not."""

from __future__ import annotations

import numpy as np

from engine.volume import FloatArray, Grid


def steps_mm(grid: Grid) -> FloatArray:
    """Distances of neighbours along a grid's first axis, mm; a grid of one level has its spacing."""
    if grid.shape[0] < 2:
        return np.array(grid.spacing_mm[:1])
    index = np.zeros((grid.shape[0], 3))
    index[:, 0] = np.arange(grid.shape[0])
    return np.asarray(np.linalg.norm(np.diff(grid.to_patient(index), axis=0), axis=-1))
