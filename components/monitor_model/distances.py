"""How far two distributions of counts are apart, and whether chance would explain it."""

from dataclasses import dataclass
from functools import cache
from math import lgamma
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_RESAMPLES = 200
_CONFIDENCE = 0.95
_SMALLEST_EXPECTED = 5.0
"""Cells in which fewer rows are expected are counted together, so that the chi-squared distribution holds (Cochran,
Some Methods for Strengthening the Common χ² Tests, Biometrics 1954)."""


@dataclass(frozen=True)
class Measured:
    """The distance of two distributions."""

    jensen_shannon: tuple[float, float, float]
    """Value, and its interval: low, high."""
    l_infinity: tuple[float, float, float]
    p_value: float


def measure(one: Array, other: Array, seed: int) -> Measured:
    """Compares counts of two sets of rows over the same cells.

    The divergence is that of equal weights, in bits, as TFDV measures it. Of two samples of one distribution it is a
    chi-squared variable of k - 1 degrees of freedom over 8 ln 2 · nm / (n + m) (Grosse et al., Analysis of symbolic
    sequences using the Jensen-Shannon divergence, Phys. Rev. E 65, 2002); its expectation is taken off, so that few
    rows do not look far away. Intervals are by resampling both sets.

    Args:
        one: int [cells].
        other: int [cells]; both have rows.
        seed: of the resampling.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    occurs = (one + other) > 0
    one, other = one[occurs], other[occurs]
    bias = _bias(one, other)
    divergence, largest = _divergence(one, other), _largest(one, other)
    generator = np.random.default_rng(seed)
    draws = [generator.multinomial(int(cells.sum()), cells / cells.sum(), _RESAMPLES) for cells in (one, other)]
    # A resample is as much further away from the sample as that is from the truth.
    divergences = _divergence(*draws) - 2 * bias
    tail = (1 - _CONFIDENCE) / 2
    shift = _largest(*draws) - largest
    return Measured(
        jensen_shannon=_clipped(divergence - bias, np.quantile(divergences, (tail, 1 - tail))),
        l_infinity=_clipped(largest, largest - np.quantile(shift, (1 - tail, tail))),
        p_value=homogeneity(one, other),
    )


def homogeneity(one: Array, other: Array) -> float:
    """Gives the p-value of Pearson's chi-squared test that two sets of rows are of one distribution.

    The G-test, whose statistic is a Jensen-Shannon divergence, finds too much where many cells hold few rows.

    Args:
        one: counts [cells].
        other: counts [cells].
    """
    one, other = _pooled(np.asarray(one, np.float64), np.asarray(other, np.float64))
    if len(one) < 2:
        return 1.0
    total = one + other
    statistic = 0.0
    for part in (one, other):
        expected = total * part.sum() / total.sum()
        statistic += float(((part - expected) ** 2 / expected).sum())
    return chi_squared_tail(statistic, len(one) - 1)


def proportions(hits: int, rows: int, other_hits: int, other_rows: int) -> float:
    """Gives the p-value of the test that two shares are the same: chi-squared, or with few hits Fisher's exact one."""
    if not rows or not other_rows:
        return 1.0
    marked, total = hits + other_hits, rows + other_rows
    if min(marked, total - marked) * min(rows, other_rows) / total >= _SMALLEST_EXPECTED:
        return homogeneity(np.array([hits, rows - hits]), np.array([other_hits, other_rows - other_hits]))
    if marked > total - marked:
        hits, marked = rows - hits, total - marked
    low, high = max(0, marked - other_rows), min(marked, rows)
    logs = [_log_choose(marked, k) + _log_choose(total - marked, rows - k) for k in range(low, high + 1)]
    likelihoods = np.exp(np.array(logs) - _log_choose(total, rows))
    # Two-sided: all tables that are no likelier, rounding left out.
    return min(1.0, float(likelihoods[likelihoods <= likelihoods[hits - low] * (1 + 1e-7)].sum()))


def share_interval(hits: int, rows: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Gives the interval of a share (Wilson, Probable inference, JASA 1927)."""
    if not rows:
        return 0.0, 1.0
    z = _quantile((1 + confidence) / 2)
    share = hits / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    reach = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, float(middle - reach)), min(1.0, float(middle + reach))


def significant(p_values: Array, rate: float) -> Array:
    """Tells which tests are significant when so many were made (Benjamini, Hochberg, JRSS B 57, 1995).

    Args:
        p_values: [tests].
        rate: share of false ones among the significant ones, at most.

    Returns:
        bool [tests].
    """
    p_values = np.asarray(p_values, np.float64)
    if not p_values.size:
        return np.zeros(0, np.bool_)
    order = np.sort(p_values)
    passing = np.flatnonzero(order <= rate * np.arange(1, len(order) + 1) / len(order))
    return p_values <= order[passing[-1]] if passing.size else np.zeros(len(order), np.bool_)


def chi_squared_tail(statistic: float, freedom: int) -> float:
    """Gives how likely a chi-squared variable exceeds a value."""
    return _regularized_gamma(freedom / 2, max(statistic, 0.0) / 2)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _regularized_gamma(shape: float, x: float) -> float:
    # SciPy is not where TFDV runs on an older libc; TensorFlow, which TFDV brings, has this function.
    import tensorflow as tf

    return float(tf.math.igammac(np.float64(shape), np.float64(x)))


@cache
def _quantile(probability: float) -> float:
    """Gives the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)


def _bias(one: Array, other: Array) -> float:
    return float((len(one) - 1) / (8 * np.log(2)) * (1 / one.sum() + 1 / other.sum()))


def _divergence(one: Array, other: Array) -> Any:
    """Computes the Jensen-Shannon divergence of counts along the last axis, in bits."""
    p, q = one / one.sum(axis=-1, keepdims=True), other / other.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(x > 0, x * np.log2(x / middle), 0.0).sum(axis=-1) for x in (p, q)]
    return (parts[0] + parts[1]) / 2


def _largest(one: Array, other: Array) -> Any:
    """Computes the largest difference of one cell's share along the last axis."""
    return np.abs(one / one.sum(axis=-1, keepdims=True) - other / other.sum(axis=-1, keepdims=True)).max(axis=-1)


def _pooled(one: Array, other: Array) -> tuple[Array, Array]:
    """Counts cells together in which few rows are expected."""
    smaller = min(one.sum(), other.sum())
    expected = (one + other) * smaller / max((one + other).sum(), 1.0)
    rare = expected < _SMALLEST_EXPECTED
    if not rare.any():
        return one, other
    kept = [np.append(cells[~rare], cells[rare].sum()) for cells in (one, other)]
    if expected[rare].sum() < _SMALLEST_EXPECTED and len(kept[0]) > 1:
        # Still few: they join the rarest of the others.
        place = int(np.argmin((kept[0] + kept[1])[:-1]))
        for cells in kept:
            cells[place] += cells[-1]
        kept = [cells[:-1] for cells in kept]
    return kept[0], kept[1]


def _clipped(value: float, interval: Array) -> tuple[float, float, float]:
    value = float(np.clip(value, 0, 1))
    low, high = (float(one) for one in np.clip(interval, 0, 1))
    return value, min(low, value), max(high, value)
