"""Precision and recall where only so many rows can be looked at: those with the highest scores.

Precision at k is what a team of investigators sees of a model, unlike measures over all thresholds (Dal Pozzolo,
Boracchi, Caelen, Alippi, Bontempi: Credit Card Fraud Detection: A Realistic Modeling and a Novel Learning Strategy,
IEEE Transactions on Neural Networks and Learning Systems 29, 2018). Rows that share the score at the edge are taken in
random order: the figures are what that gives on average.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from components.settings import AlertBudget

Array = npt.NDArray[Any]

_ROUNDING = 1e-9


def alerts_of(rows: Array, budget: AlertBudget) -> Array:
    """Gives how many of some rows raise an alert.

    Args:
        rows: counts; of a day each, where the budget is one per day.
        budget: alerts in all, or a day.

    Returns:
        float64 like `rows`: whole numbers, 1 or more where there are rows, and never more than these.
    """
    share = budget.alerts if budget.per == "day" else rows * budget.alerts / 1000
    return np.minimum(rows, np.maximum(1.0, np.floor(share + _ROUNDING)))


def at_budget(
    truth: Array, scores: Array, days: Array | None, budget: AlertBudget
) -> tuple[float | None, float | None]:
    """Computes precision and recall of the rows that raise alerts.

    Args:
        truth: bool [n].
        scores: float [n].
        days: int64 [n], where the budget is one per day; else None.
        budget: how many rows raise alerts.

    Returns:
        None: undefined, as precision without rows, or recall without positive ones.
    """
    parts = [np.arange(len(truth))] if days is None else [np.flatnonzero(days == day) for day in np.unique(days)]
    hits = alerts = 0.0
    for part in parts:
        if not len(part):
            continue
        most = int(alerts_of(np.array(len(part)), budget))
        own = scores[part]
        edge = np.partition(own, len(own) - most)[len(own) - most]
        above, on = own > edge, own == edge
        hits += truth[part][above].sum() + (most - above.sum()) * truth[part][on].mean()
        alerts += most
    positives = truth.sum()
    return float(hits / alerts) if alerts else None, float(hits / positives) if positives else None
