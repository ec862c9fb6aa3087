"""The metrics of each kind of task, by scikit-learn."""

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import UndefinedMetricWarning

from components.alert_budgets import at_budget
from components.predictions import Array, Predictions, calibration_bins, shares_up_to

Values = dict[str, float | None]


def measure(predictions: Predictions) -> Values:
    """Computes all metrics of the task over all rows; None: undefined on these rows."""
    with warnings.catch_warnings():
        # An undefined metric is an expected result here, not a surprise.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        return _MEASURES[predictions.task.type](predictions)


def measure_classes(predictions: Predictions) -> dict[str, Values]:
    """Computes the metrics of each class against the rest, and how many rows belong to it."""
    predicted = predictions.predicted
    labels = range(len(predictions.classes))
    parts = sklearn_metrics.precision_recall_fscore_support(
        predictions.truth, predicted, labels=labels, zero_division=0
    )
    return {
        name: {
            "auc": _auc(predictions.truth == index, predictions.scores[:, index]),
            "pr_auc": _pr_auc(predictions.truth == index, predictions.scores[:, index]),
            **{metric: float(part[index]) for metric, part in zip(("precision", "recall", "f1"), parts, strict=False)},
            "rows": int(parts[3][index]),
        }
        for index, name in enumerate(predictions.classes)
    }


def best_f1_threshold(truth: Array, scores: Array) -> float:
    """Finds the score from which on calling a row positive gives the highest F1; 0.5 without positives."""
    if not truth.any():
        return 0.5
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(truth, scores)
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], 1e-12)
    return float(thresholds[f1.argmax()])


def calibration_error(hits: Array, confidence: Array) -> float:
    """Computes the expected calibration error.

    The mean distance, weighted by rows, between the mean probability and the share of hits in bins of
    equal width (Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning,
    AAAI 2015). For more than two classes: of the likeliest class (Guo, Pleiss, Sun, Weinberger: On
    Calibration of Modern Neural Networks, ICML 2017).

    Args:
        hits: bool [n].
        confidence: float [n], in [0, 1].
    """
    gaps = np.bincount(calibration_bins(confidence), weights=hits - confidence.astype(np.float64))
    return float(np.abs(gaps).sum() / len(hits))


def _binary(predictions: Predictions) -> Values:
    truth, scores, predicted = predictions.truth, predictions.scores, predictions.predicted
    two_classes = bool(truth.any() and not truth.all())
    one = {"zero_division": np.nan}
    return {
        "auc": _auc(truth, scores),
        "pr_auc": _pr_auc(truth, scores),
        "log_loss": float(sklearn_metrics.log_loss(truth, scores, labels=[False, True])),
        "brier": float(sklearn_metrics.brier_score_loss(truth, scores, pos_label=True, labels=[False, True])),
        "calibration_error": calibration_error(truth, scores),
        "accuracy": float(sklearn_metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(sklearn_metrics.balanced_accuracy_score(truth, predicted)) if two_classes else None,
        "precision": _defined(sklearn_metrics.precision_score(truth, predicted, **one)),
        "recall": _defined(sklearn_metrics.recall_score(truth, predicted, **one)),
        "f1": _defined(sklearn_metrics.f1_score(truth, predicted, **one)),
        **_at_budget(predictions),
    }


def _at_budget(predictions: Predictions) -> Values:
    if predictions.budget is None:
        return {}
    precision, recall = at_budget(predictions.truth, predictions.scores, predictions.days, predictions.budget)
    return {"precision_at_budget": precision, "recall_at_budget": recall}


def _multiclass(predictions: Predictions) -> Values:
    truth, scores, predicted = predictions.truth, predictions.scores, predictions.predicted
    labels = np.arange(len(predictions.classes))
    macro = sklearn_metrics.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
    several = len(np.unique(truth)) > 1
    against_rest = [(truth == label, scores[:, label]) for label in labels]
    return {
        "auc": _mean([_auc(*one) for one in against_rest]),
        "pr_auc": _mean([_pr_auc(*one) for one in against_rest]),
        "log_loss": float(sklearn_metrics.log_loss(truth, scores, labels=labels)),
        "brier": float(sklearn_metrics.brier_score_loss(truth, scores, labels=labels)),
        "calibration_error": calibration_error(truth == predicted, scores.max(axis=1)),
        "accuracy": float(sklearn_metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(sklearn_metrics.balanced_accuracy_score(truth, predicted)) if several else None,
        "precision": float(macro[0]),
        "recall": float(macro[1]),
        "f1": float(macro[2]),
    }


def _regression(predictions: Predictions) -> Values:
    truth, values = predictions.truth, predictions.scores
    return {
        "rmse": float(sklearn_metrics.root_mean_squared_error(truth, values)),
        "mae": float(sklearn_metrics.mean_absolute_error(truth, values)),
        "r2": float(sklearn_metrics.r2_score(truth, values)) if np.ptp(truth) > 0 else None,
        "median_absolute_error": float(sklearn_metrics.median_absolute_error(truth, values)),
        "quantile_loss": float(sklearn_metrics.mean_pinball_loss(truth, values, alpha=predictions.quantile)),
    }


def _anomaly_detection(predictions: Predictions) -> Values:
    by_label = {name: value for name, value in _binary(predictions).items() if name in predictions.metrics}
    return {
        **by_label,
        "flagged": float(predictions.predicted.mean()),
        "score_shift": score_shift(predictions.scores, predictions.score_quantiles),
    }


def _clustering(predictions: Predictions) -> Values:
    truth, clusters = predictions.truth, predictions.scores
    sizes = np.bincount(clusters, minlength=predictions.clusters)
    return {
        **(_by_label(truth, clusters) if predictions.task.label else {}),
        **_by_distance(predictions),
        "largest_cluster": float(sizes.max() / len(clusters)),
        "smallest_cluster": float(sizes.min() / len(clusters)),
    }


def _by_label(truth: Array, clusters: Array) -> Values:
    parts = sklearn_metrics.homogeneity_completeness_v_measure(truth, clusters)
    return {
        "adjusted_rand": float(sklearn_metrics.adjusted_rand_score(truth, clusters)),
        **{name: float(value) for name, value in zip(("homogeneity", "completeness", "v_measure"), parts, strict=True)},
    }


def _by_distance(predictions: Predictions) -> Values:
    sampled = predictions.sampled
    if sampled is None or not len(sampled.rows):
        return dict.fromkeys(("silhouette", "davies_bouldin", "calinski_harabasz"))
    clusters = predictions.scores[sampled.rows]
    several = 1 < len(np.unique(clusters)) < len(clusters)
    return {
        "silhouette": float(sampled.fits.mean()),
        "davies_bouldin": float(sklearn_metrics.davies_bouldin_score(sampled.points, clusters)) if several else None,
        "calinski_harabasz": (
            float(sklearn_metrics.calinski_harabasz_score(sampled.points, clusters)) if several else None
        ),
    }


def score_shift(scores: Array, quantiles: Array | None) -> float | None:
    """Gives the largest distance between two distribution functions (Kolmogorov-Smirnov).

    Args:
        scores: float [n].
        quantiles: of the other distribution, at equal distances; None: it is not known.
    """
    if quantiles is None:
        return None
    values, counts = np.unique(scores, return_counts=True)
    up_to = np.cumsum(counts) / len(scores)
    before = up_to - counts / len(scores)
    at, below = shares_up_to(values, quantiles)
    return float(max(np.abs(up_to - at).max(), np.abs(before - below).max()))


_MEASURES: Mapping[str, Callable[[Predictions], Values]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "anomaly_detection": _anomaly_detection,
    "clustering": _clustering,
}


def _auc(truth: Array, scores: Array) -> float | None:
    return float(sklearn_metrics.roc_auc_score(truth, scores)) if truth.any() and not truth.all() else None


def _pr_auc(truth: Array, scores: Array) -> float | None:
    return float(sklearn_metrics.average_precision_score(truth, scores)) if truth.any() and not truth.all() else None


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
