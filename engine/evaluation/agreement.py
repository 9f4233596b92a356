"""Agreement of two measurements of the same cases, as predicted and true volume.

None stands where a number is not defined: too few cases, or cases that do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

from engine.volume import FloatArray

LIMITS_SD = 1.96
LEAST_CASES = 3  # for correlation and intervals; with two every correlation is 1


@dataclass(frozen=True)
class Icc:
    """An intraclass correlation with its 95 % confidence interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class IntraclassCorrelations:
    """The three forms for single ratings (Shrout and Fleiss 1979, Psychol Bull 86:420).

    Attributes:
        icc11: one-way random.
        icc21: two-way random, absolute agreement: the one to report for predicted against true volume.
        icc31: two-way mixed, consistency: blind to a constant offset.
    """

    icc11: Icc
    icc21: Icc
    icc31: Icc


@dataclass(frozen=True)
class BlandAltman:
    """Bias and limits of agreement (Bland and Altman 1986, Lancet 1:307); prediction less truth, in the unit given.

    Attributes:
        bias: mean difference.
        sd: sample standard deviation of the differences; None for one case.
        lower: bias - 1.96 sd.
        upper: bias + 1.96 sd.
    """

    bias: float
    sd: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Agreement:
    """Predicted against true volume over the cases, ml.

    Attributes:
        cases: number of cases.
        pearson: correlation r, the volume correlation (VC) of the papers.
        icc: intraclass correlations.
        ccc: Lin's concordance.
        bland_altman: bias and limits, ml.
    """

    cases: int
    pearson: float | None
    icc: IntraclassCorrelations | None
    ccc: float | None
    bland_altman: BlandAltman


@dataclass(frozen=True)
class _MeanSquares:
    """Analysis of variance of n cases by k raters."""

    n: int
    k: int
    rows: float
    columns: float
    within: float
    error: float


def agreement(prediction: FloatArray, truth: FloatArray) -> Agreement | None:
    """All of it for two measurements [n] of the same cases; None without a case."""
    if not len(truth):
        return None
    return Agreement(
        cases=len(truth),
        pearson=pearson(prediction, truth),
        icc=intraclass(np.column_stack([prediction, truth])),
        ccc=concordance(prediction, truth),
        bland_altman=bland_altman(prediction, truth),
    )


def pearson(x: FloatArray, y: FloatArray) -> float | None:
    """Pearson's r; None with fewer than three cases, or where one of them does not vary."""
    if len(x) < LEAST_CASES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1].clip(-1.0, 1.0))


def concordance(x: FloatArray, y: FloatArray) -> float | None:
    """Lin's CCC, 2 s_xy / (s_x^2 + s_y^2 + (mean_x - mean_y)^2) with moments over n (Lin 1989, Biometrics 45:255)."""
    if len(x) < LEAST_CASES:
        return None
    scale = float(np.var(x) + np.var(y) + (x.mean() - y.mean()) ** 2)
    if scale == 0:
        return None
    return 2.0 * float(np.mean((x - x.mean()) * (y - y.mean()))) / scale


def bland_altman(x: FloatArray, y: FloatArray) -> BlandAltman:
    """Bias of x against y and its limits of agreement, from at least one case."""
    difference = x - y
    bias = float(difference.mean())
    if len(difference) < 2:
        return BlandAltman(bias, None, None, None)
    sd = float(difference.std(ddof=1))
    return BlandAltman(bias, sd, bias - LIMITS_SD * sd, bias + LIMITS_SD * sd)


def intraclass(ratings: FloatArray) -> IntraclassCorrelations | None:
    """The three ICC of ratings [n cases, k raters]; None with fewer than three cases or where nothing varies.

    Intervals after McGraw and Wong 1996 (Psychol Methods 1:30), tables 4 and 7.
    """
    if len(ratings) < LEAST_CASES or np.ptp(ratings) == 0:
        return None
    ms = _mean_squares(ratings)
    return IntraclassCorrelations(_icc11(ms), _icc21(ms), _icc31(ms))


def _mean_squares(ratings: FloatArray) -> _MeanSquares:
    n, k = ratings.shape
    middle = ratings.mean()
    by_case, by_rater = ratings.mean(axis=1, keepdims=True), ratings.mean(axis=0, keepdims=True)
    # Raters who agree to the last voxel must have an error of 0, not of 1e-30.
    error = float(np.sum((ratings - by_case - by_rater + middle) ** 2))
    error = 0.0 if error < 1e-18 * float(np.sum(ratings**2)) else error
    return _MeanSquares(
        n=n,
        k=k,
        rows=k * float(np.sum((by_case - middle) ** 2)) / (n - 1),
        columns=n * float(np.sum((by_rater - middle) ** 2)) / (k - 1),
        within=float(np.sum((ratings - by_case) ** 2)) / (n * (k - 1)),
        error=error / ((n - 1) * (k - 1)),
    )


def _icc11(ms: _MeanSquares) -> Icc:
    return _one_error(ms.rows, ms.within, ms.k, (ms.n - 1, ms.n * (ms.k - 1)))


def _icc31(ms: _MeanSquares) -> Icc:
    return _one_error(ms.rows, ms.error, ms.k, (ms.n - 1, (ms.n - 1) * (ms.k - 1)))


def _one_error(rows: float, error: float, k: int, freedom: tuple[int, int]) -> Icc:
    if rows == 0 and error == 0:
        return Icc(None, None, None)
    value = (rows - error) / (rows + (k - 1) * error)
    if error == 0:
        return Icc(value, value, value)
    low = rows / error / _f(*freedom)
    high = rows / error * _f(freedom[1], freedom[0])
    return Icc(value, (low - 1) / (low + k - 1), (high - 1) / (high + k - 1))


def _icc21(ms: _MeanSquares) -> Icc:
    n, k = ms.n, ms.k
    value = (ms.rows - ms.error) / (ms.rows + (k - 1) * ms.error + k * (ms.columns - ms.error) / n)
    if value >= 1:
        return Icc(value, value, value)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    parts = (a * ms.columns) ** 2 / (k - 1) + (b * ms.error) ** 2 / ((n - 1) * (k - 1))
    if parts == 0:
        return Icc(value, None, None)
    freedom = (a * ms.columns + b * ms.error) ** 2 / parts
    if freedom <= 0:
        return Icc(value, None, None)
    spread = k * ms.columns + (k * n - k - n) * ms.error
    low, high = _f(n - 1, freedom), _f(freedom, n - 1)
    return Icc(
        value,
        n * (ms.rows - low * ms.error) / (low * spread + n * ms.rows),
        n * (high * ms.rows - ms.error) / (spread + n * high * ms.rows),
    )


def _f(above: float, below: float) -> float:
    """The 97.5th percentile of F."""
    return float(f_distribution.ppf(0.975, above, below))
