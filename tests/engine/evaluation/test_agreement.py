"""Agreement against published figures and identities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr

from engine.evaluation.agreement import Icc, agreement, bland_altman, concordance, intraclass, pearson
from engine.volume import FloatArray

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Six cases by four raters: Shrout and Fleiss 1979, table 2."""

volumes = arrays(np.float64, st.integers(3, 12), elements=st.floats(1, 1000).map(lambda value: round(value, 2)))


def numbers(icc: Icc) -> tuple[float, float, float]:
    assert icc.value is not None and icc.low is not None and icc.high is not None
    return icc.value, icc.low, icc.high


def test_icc_of_shrout_and_fleiss() -> None:
    """Table 4 of the paper; the intervals are those that R's psych package prints for the same data."""
    found = intraclass(SHROUT_FLEISS)
    assert found is not None
    assert numbers(found.icc11) == pytest.approx((0.166, -0.133, 0.723), abs=0.001)
    assert numbers(found.icc21) == pytest.approx((0.290, 0.019, 0.761), abs=0.001)
    assert numbers(found.icc31) == pytest.approx((0.715, 0.342, 0.946), abs=0.001)


def test_a_constant_offset_costs_absolute_agreement_only() -> None:
    truth = np.array([100.0, 150.0, 220.0, 310.0])
    found = intraclass(np.column_stack([truth + 50, truth]))
    assert found is not None
    assert numbers(found.icc31) == (1, 1, 1)
    value, low, high = numbers(found.icc21)
    assert low < value < 1 and value < high <= 1
    assert pearson(truth + 50, truth) == pytest.approx(1)
    ccc = concordance(truth + 50, truth)
    assert ccc == pytest.approx(2 * truth.var() / (2 * truth.var() + 50**2))


def test_perfect_agreement() -> None:
    truth = np.array([100.1, 150.2, 220.3, 310.4])
    found = agreement(truth, truth.copy())
    assert found is not None and found.icc is not None
    for icc in (found.icc.icc11, found.icc.icc21, found.icc.icc31):
        assert numbers(icc) == pytest.approx((1, 1, 1))
    assert found.pearson == pytest.approx(1) and found.ccc == pytest.approx(1)
    assert (found.bland_altman.bias, found.bland_altman.sd) == (0, 0)


def test_bland_altman_by_hand() -> None:
    """Differences 1, 2, 3 and -2: bias 1, sample variance 14 / 3."""
    found = bland_altman(np.array([11.0, 22.0, 33.0, 38.0]), np.array([10.0, 20.0, 30.0, 40.0]))
    assert found.bias == 1
    assert found.sd == pytest.approx(np.sqrt(14 / 3))
    assert (found.lower, found.upper) == pytest.approx((1 - 1.96 * np.sqrt(14 / 3), 1 + 1.96 * np.sqrt(14 / 3)))


def test_what_is_not_defined_is_none() -> None:
    nothing = np.array([])
    assert agreement(nothing, nothing) is None
    few = agreement(np.array([1.0, 2.0]), np.array([1.5, 2.0]))
    assert few is not None and few.cases == 2
    assert (few.pearson, few.icc, few.ccc) == (None, None, None)
    assert bland_altman(np.array([3.0]), np.array([1.0])).sd is None
    same = np.full(4, 7.0)
    assert pearson(same, np.arange(4.0)) is None and concordance(same, same) is None
    assert intraclass(np.column_stack([same, same])) is None
    constant = intraclass(np.column_stack([same, same + 1]))  # two raters, no case differs from another
    assert constant is not None and constant.icc31 == Icc(None, None, None) and constant.icc21.value == 0


@given(volumes, st.integers(0, 2**32 - 1))
def test_ranges_symmetry_and_the_factors_of_ccc(truth: FloatArray, seed: int) -> None:
    prediction = truth + np.random.default_rng(seed).normal(0, 20, len(truth))
    assume(np.ptp(truth) > 1)
    r, ccc = pearson(prediction, truth), concordance(prediction, truth)
    assert r is not None and ccc is not None
    assert r == pytest.approx(float(pearsonr(prediction, truth).statistic), abs=1e-9)
    scale = prediction.std() / truth.std()
    shift = (prediction.mean() - truth.mean()) / np.sqrt(prediction.std() * truth.std())
    assert ccc == pytest.approx(r * 2 / (scale + 1 / scale + shift**2), abs=1e-9)  # accuracy C_b of Lin 1989
    assert abs(ccc) <= abs(r) + 1e-12
    assert concordance(truth, prediction) == pytest.approx(ccc)


@given(volumes, st.integers(0, 2**32 - 1), st.floats(-500, 500))
def test_icc_lies_in_its_interval_and_does_not_depend_on_the_unit(truth: FloatArray, seed: int, shift: float) -> None:
    """Where cases differ more than raters do; below 0 the approximate interval of ICC(2,1) may pass -1."""
    assume(np.ptp(truth) > 200)
    prediction = truth + np.random.default_rng(seed).normal(0, 20, len(truth))
    ratings = np.column_stack([prediction, truth])
    found, moved, swapped = intraclass(ratings), intraclass(ratings * 3 + shift), intraclass(ratings[:, ::-1])
    assert found is not None and moved is not None and swapped is not None
    for form in ("icc11", "icc21", "icc31"):
        value, low, high = numbers(getattr(found, form))
        assert -1 - 1e-9 <= low <= value + 1e-9 and value <= high + 1e-9 and high <= 1 + 1e-9
        assert numbers(getattr(moved, form)) == pytest.approx((value, low, high), abs=1e-5)
        assert numbers(getattr(swapped, form)) == pytest.approx((value, low, high), abs=1e-9)


@given(volumes, st.integers(0, 2**32 - 1))
def test_absolute_agreement_and_concordance_meet_as_cases_grow(truth: FloatArray, seed: int) -> None:
    """Of many cases ICC(2,1) and CCC are one number (Carrasco and Jover 2003, Biometrics 59:849)."""
    assume(np.ptp(truth) > 1)
    many = np.tile(truth, 400)
    prediction = many + 5 + np.random.default_rng(seed).normal(0, 20, len(many))
    icc, ccc = intraclass(np.column_stack([prediction, many])), concordance(prediction, many)
    assert icc is not None and ccc is not None
    assert icc.icc21.value == pytest.approx(ccc, abs=0.005)
