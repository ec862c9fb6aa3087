"""The metric that candidates are compared by, and how sure it is.

Each row has an influence on a metric: how far the row alone moves it, times the number of rows. The spread of the
influences gives the standard error of the metric, and the spread of two models' differences, row by row, that of their
difference: rows that are hard for both do not count against either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from components.errors import DataRejectedError
from components.features import Label
from components.models.examples import Matrix
from components.settings import SelectionMetric
from components.silhouettes import silhouettes
from components.tune_model.comparison import Space

HIGHER_IS_BETTER = frozenset(("auc", "accuracy", "silhouette"))

_SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
_NORMAL_95 = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Measured:
    """A metric of one model."""

    metric: SelectionMetric
    value: float
    influence: Matrix
    """float64 [rows], with mean 0."""

    @property
    def standard_error(self) -> float:
        """Of the value."""
        return _standard_error(self.influence)

    @property
    def interval(self) -> tuple[float, float]:
        """Holds the true value with 95 %, by the normal approximation."""
        reach = _NORMAL_95 * self.standard_error
        highest = 1.0 if self.metric in HIGHER_IS_BETTER else math.inf
        lowest = -1.0 if self.metric == "silhouette" else 0.0
        return max(lowest, self.value - reach), min(highest, self.value + reach)

    def behind(self, best: "Measured") -> tuple[float, float]:
        """Tells by how much this is worse than another on the same rows, and the standard error of that."""
        sign = -1.0 if self.metric in HIGHER_IS_BETTER else 1.0
        return sign * (self.value - best.value), _standard_error(self.influence - best.influence)


def measure(
    metric: SelectionMetric, label: Label, labels: Matrix, predictions: Matrix, spaces: Sequence[Space] = ()
) -> Measured:
    """Measures predictions.

    Args:
        metric: that the label's kind has.
        label: what the predictions are of.
        labels: [rows], as in Examples, in the label's unit.
        predictions: as run_trial gives them.
        spaces: silhouette: in which clusters are compared, fold by fold.

    Raises:
        DataRejectedError: an AUC of rows that have one class.
    """
    if metric == "silhouette":
        fits = np.concatenate([silhouettes(one.points, predictions[one.rows].argmin(axis=1)) for one in spaces])
        return Measured(metric, float(fits.mean()), fits - fits.mean())
    if metric == "auc":
        known = ~np.isnan(labels)
        return _auc(label, labels[known].astype(np.int64), predictions[known])
    losses = _losses(metric, label, labels, predictions)
    mean = float(losses.mean())
    if metric != "rmse":
        return Measured(metric, mean, losses - mean)
    root = math.sqrt(mean)
    return Measured(metric, root, (losses - mean) / (2 * root) if root else np.zeros_like(losses))


def _losses(metric: SelectionMetric, label: Label, labels: Matrix, predictions: Matrix) -> Matrix:
    """Gives what each row adds to the mean."""
    if label.kind == "regression":
        errors = predictions[:, 0].astype(np.float64) - labels
        return np.square(errors) if metric == "rmse" else np.abs(errors)
    probabilities = predictions.astype(np.float64)
    if label.kind == "binary":
        probabilities = np.column_stack([1 - probabilities[:, 0], probabilities[:, 0]])
    classes = labels.astype(np.int64)
    true = probabilities[np.arange(len(classes)), classes]
    if metric == "accuracy":
        return (_likeliest(label, probabilities) == classes).astype(np.float64)
    if metric == "brier":
        squares = np.square(probabilities).sum(axis=1) - 2 * true + 1
        return squares / 2 if label.kind == "binary" else squares
    return -np.log(np.clip(true, _SMALLEST_PROBABILITY, 1))


def _likeliest(label: Label, probabilities: Matrix) -> Matrix:
    likeliest: Matrix = probabilities[:, 1] >= 0.5 if label.kind == "binary" else probabilities.argmax(axis=1)
    return likeliest


def _auc(label: Label, classes: Matrix, predictions: Matrix) -> Measured:
    """Measures the AUC; with several classes the mean of each against the rest, of those that occur."""
    columns = [(classes == 1, predictions[:, 0])]
    if label.kind == "multiclass":
        columns = [(classes == index, predictions[:, index]) for index in range(len(label.classes))]
    parts = [_auc_of(truth, scores) for truth, scores in columns if truth.any() and not truth.all()]
    if not parts:
        raise DataRejectedError(
            f"the {len(classes):,} rows that models are compared on have one class (needed for auc: two); supply more "
            f"rows, raise tuning.validation_fraction, or {_without_auc(label)}"
        )
    return Measured(
        "auc", float(np.mean([auc for auc, _ in parts])), np.mean([influence for _, influence in parts], axis=0)
    )


def _without_auc(label: Label) -> str:
    return "set tuning.metric to log_loss" if label.is_learned else "name one model in section model"


def _auc_of(truth: Matrix, scores: Matrix) -> tuple[float, Matrix]:
    """Gives the AUC and the rows' influence.

    Source: DeLong, DeLong, Clarke-Pearson: Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves, Biometrics 1988.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    among_all = stats.rankdata(scores)
    share = np.empty(len(scores))
    share[truth] = (among_all[truth] - stats.rankdata(scores[truth])) / negatives
    share[~truth] = 1 - (among_all[~truth] - stats.rankdata(scores[~truth])) / positives
    auc = float(share[truth].mean())
    return auc, (share - auc) * len(scores) / np.where(truth, positives, negatives)


def _standard_error(influence: Matrix) -> float:
    return float(influence.std(ddof=1) / math.sqrt(len(influence)))
