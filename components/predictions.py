"""What a model said about rows whose label is known, and what all who measure it agree on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.settings import Task

Array = npt.NDArray[Any]

HIGHER_IS_BETTER = frozenset(
    ("auc", "pr_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "r2"),
)
LEAD_METRIC: Mapping[str, str] = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
"""What production is compared in, unless the settings name another; the first figure in a reason."""

CALIBRATION_BINS = 10
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Predictions are float32: log loss takes nothing as less likely, as scikit-learn does for that type."""


@dataclass(frozen=True)
class Predictions:
    """What one model said about rows whose label is known.

    truth and scores, of n rows:
        binary: bool [n], float32 [n], the probability of the positive class.
        multiclass: int64 [n], the index in `classes`; float32 [n, classes], a row sums to 1.
        regression: float64 [n] both.
    """

    task: Task
    truth: Array
    scores: Array
    classes: tuple[str, ...]
    """In the order of the indices; binary: negative, positive; regression: none."""
    threshold: float
    """binary: the score from which a row counts as positive."""
    quantile: float
    """Of quantile_loss."""

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def predicted(self) -> Array:
        """What each row is taken for: bool (binary), index (multiclass), value (regression)."""
        match self.task.type:
            case "binary":
                return self.scores >= np.float32(self.threshold)
            case "multiclass":
                return self.scores.argmax(axis=1)
            case _:
                return self.scores


def calibration_bins(confidence: Array) -> Array:
    """Numbers each probability's bin, of equal width: 0 for [0, 0.1), 9 for [0.9, 1]."""
    return np.minimum((confidence * np.float32(CALIBRATION_BINS)).astype(np.int64), CALIBRATION_BINS - 1)
