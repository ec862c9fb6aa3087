"""What a model said about rows, mostly with a known label, and what all who measure it agree on."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from components.settings import AlertBudget, Task, metrics_of

Array = npt.NDArray[Any]

HIGHER_IS_BETTER = frozenset(
    (
        *("auc", "pr_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "r2"),
        *("precision_at_budget", "recall_at_budget"),
        *("adjusted_rand", "v_measure", "homogeneity", "completeness", "silhouette", "calinski_harabasz"),
    ),
)

CALIBRATION_BINS = 10
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Predictions are float32: log loss takes nothing as less likely, as scikit-learn does for that type."""


@dataclass(frozen=True)
class Sampled:
    """Some of the rows as points, by which clusters are compared."""

    rows: Array
    """int64 [sampled], sorted."""
    points: Array
    """float32 [sampled, columns]."""
    fits: Array
    """float64 [sampled]: silhouettes."""


@dataclass(frozen=True)
class Predictions:
    """What one model said about rows whose label is known, where there is one.

    truth and scores, of n rows:
        binary: bool [n], float32 [n], the probability of the positive class.
        multiclass: int64 [n], the index in `classes`; float32 [n, classes], a row sums to 1.
        regression: float64 [n] both.
        anomaly_detection: bool [n], float32 [n], the score. Without a label truth is False everywhere.
        clustering: int64 [n], the index in `classes`, without a label 0; int64 [n], the number of the cluster.
    """

    task: Task
    truth: Array
    scores: Array
    classes: tuple[str, ...]
    """In the order of the indices; binary: negative, positive; regression: none."""
    threshold: float
    """binary, anomaly_detection: the score from which a row counts as positive."""
    quantile: float
    """Of quantile_loss."""
    score_quantiles: Array | None = None
    """anomaly_detection: of the rows learned from, at equal distances; None: not known."""
    clusters: int = 0
    """clustering: how many the model knows."""
    sampled: Sampled | None = None
    """clustering."""
    budget: AlertBudget | None = None
    """binary, anomaly_detection: how many rows raise alerts; None: nobody asks."""
    days: Array | None = None
    """int64 [n], where the budget is one per day."""

    def __len__(self) -> int:
        return len(self.truth)

    def taken(self, rows: Array) -> "Predictions":
        """Gives some rows, bool [n]."""
        sampled = self.sampled
        if sampled is not None:
            kept = rows[sampled.rows]
            places = np.cumsum(rows) - 1
            sampled = Sampled(places[sampled.rows[kept]], sampled.points[kept], sampled.fits[kept])
        days = None if self.days is None else self.days[rows]
        return replace(self, truth=self.truth[rows], scores=self.scores[rows], sampled=sampled, days=days)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names what is measured, in its order."""
        return metrics_of(self.task, self.budget is not None)

    @property
    def expected_flagged(self) -> float | None:
        """anomaly_detection: share of the rows learned from that reach the threshold; None: not known."""
        if self.score_quantiles is None:
            return None
        _, below = shares_up_to(np.array([np.float32(self.threshold)]), self.score_quantiles)
        return float(1 - below[0])

    @property
    def predicted(self) -> Array:
        """What each row is taken for: bool (binary, anomaly_detection), index (multiclass), value or cluster."""
        match self.task.type:
            case "binary" | "anomaly_detection":
                return self.scores >= np.float32(self.threshold)
            case "multiclass":
                return self.scores.argmax(axis=1)
            case _:
                return self.scores


def calibration_bins(confidence: Array) -> Array:
    """Numbers each probability's bin, of equal width: 0 for [0, 0.1), 9 for [0.9, 1]."""
    return np.minimum((confidence * np.float32(CALIBRATION_BINS)).astype(np.int64), CALIBRATION_BINS - 1)


def shares_up_to(values: Array, quantiles: Array) -> tuple[Array, Array]:
    """Gives a distribution's share up to values, and below them, between its quantiles by interpolation."""
    shares = np.linspace(0, 1, len(quantiles))
    values, quantiles = values.astype(np.float64), quantiles.astype(np.float64)
    at = np.where(values < quantiles[0], 0.0, np.interp(values, quantiles, shares))
    above = np.where(values > quantiles[-1], 0.0, np.interp(-values, -quantiles[::-1], shares))
    return at, 1 - above
