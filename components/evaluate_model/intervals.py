"""Confidence intervals by resampling rows."""

import warnings

import numpy as np
from scipy import stats

from components.predictions import Array
from components.resampled_metrics import Statistic
from components.settings import Bootstrap

RESOLUTION = 2048
"""Scores that a group keeps apart while resampling. On a year of flights (82,609 rows, 67 slices) it moves the
bounds of PR-AUC by 3 % of the interval's width at most, all others by 0.2 %, and halves the time."""
_VALUES_AT_ONCE = 500_000


def distribution(statistic: Statistic, rows: int, bootstrap: Bootstrap) -> Array:
    """Computes a statistic of resamples: as many rows, drawn with replacement.

    The same seed draws the same rows, so that distributions of two models can be compared pair by pair.

    Returns:
        float64 [metrics, groups, resamples], NaN: undefined; no resamples of a single row.
    """
    if rows < 2 or not bootstrap.resamples:
        return statistic(np.arange(rows)[np.newaxis])[..., :0]
    with warnings.catch_warnings():
        # SciPy's own interval is not used: one undefined resample would make it undefined.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(rows),),
            lambda draws, axis: statistic(draws),
            n_resamples=bootstrap.resamples,
            batch=max(1, _VALUES_AT_ONCE // rows),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(bootstrap.seed),
        )
    return result.bootstrap_distribution


def interval(values: Array, point: Array, confidence: float) -> tuple[Array, Array]:
    """Gives the percentile interval (Efron 1979) of what is defined, along the last axis.

    It always holds the point: resampling shifts metrics that measure a distance, such as the calibration
    error, so far up that the percentiles alone may miss it.

    Returns:
        low and high, shaped like `point`; NaN: undefined.
    """
    if not values.shape[-1]:
        return np.full_like(point, np.nan), np.full_like(point, np.nan)
    tail = (1 - confidence) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(values, (tail, 1 - tail), axis=-1)
    return np.minimum(low, point), np.maximum(high, point)
