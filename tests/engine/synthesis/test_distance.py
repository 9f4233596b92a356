"""Distances of volumes equal SciPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from engine.synthesis.distance import distance_mm


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)), st.sampled_from([1.0, 1.5, 2.0]))
@settings(max_examples=50)
def test_equal_to_scipy(body: NDArray[np.bool_], spacing_mm: float) -> None:
    found = distance_mm(body, spacing_mm)
    if body.any():
        np.testing.assert_allclose(found, distance_transform_edt(~body, sampling=spacing_mm), atol=1e-4)
    else:
        assert np.isinf(found).all()
