"""What the report draws: curves and distributions over all rows."""

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from components.evaluation_result import Confusion, RocCurve
from components.predictions import CALIBRATION_BINS, Array, Predictions, calibration_bins

MAX_POINTS = 200
HISTOGRAM_BINS = 40
_RANGES = 20
_LARGEST_CONFUSION = 50

Point = tuple[float, float]
Histogram = dict[str, Any]
"""name, heights: as the bars of reports/charts.html.jinja."""


def roc_curve(predictions: Predictions) -> RocCurve | None:
    """Traces true over false positive rates; None: no task with a positive class, or only one class is known."""
    truth, scores = predictions.truth, predictions.scores
    if predictions.task.type not in ("binary", "anomaly_detection") or not truth.any() or truth.all():
        return None
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(truth, scores)
    # scikit-learn starts at infinity, which KFP's JSON cannot hold.
    thresholds = np.minimum(thresholds.astype(np.float64), np.nextafter(float(scores.max()), np.inf))
    kept = _spread(fpr + tpr)
    return RocCurve(fpr=fpr[kept].tolist(), tpr=tpr[kept].tolist(), thresholds=thresholds[kept].tolist())


def precision_recall(predictions: Predictions) -> list[Point]:
    """Traces precision over recall, by increasing recall; binary."""
    if not predictions.truth.any():
        return []
    precision, recall, _ = sklearn_metrics.precision_recall_curve(predictions.truth, predictions.scores)
    precision, recall = precision[::-1], recall[::-1]
    kept = _spread(recall + np.concatenate(([0.0], np.cumsum(np.abs(np.diff(precision))))))
    return list(zip(recall[kept].tolist(), precision[kept].tolist(), strict=True))


def calibration(predictions: Predictions) -> list[Point]:
    """Traces the share of hits over the mean probability in bins of equal width, those with rows."""
    hits, confidence = _confidence(predictions)
    bins = calibration_bins(confidence)
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = rows > 0
    mean = np.bincount(bins, weights=confidence.astype(np.float64), minlength=CALIBRATION_BINS)[used] / rows[used]
    share = np.bincount(bins, weights=hits, minlength=CALIBRATION_BINS)[used] / rows[used]
    return list(zip(mean.tolist(), share.tolist(), strict=True))


def score_histograms(predictions: Predictions) -> list[Histogram]:
    """Distributes the probability of the positive class, or of the likeliest one, or the score, by what came true."""
    if not predictions.task.label:
        return [_histogram("rows", predictions.scores, (0.0, 1.0))]
    hits, confidence = _confidence(predictions)
    names = (
        [f"{predictions.task.label} = {name}" for name in predictions.classes]
        if predictions.task.type in ("binary", "anomaly_detection")
        else ["wrong", "right"]
    )
    return [_histogram(name, confidence[hits == bool(value)], (0.0, 1.0)) for value, name in enumerate(names)]


def confusion(predictions: Predictions) -> Confusion | None:
    """Counts what each class was taken for; None: there are no classes, or too many to look at."""
    task = predictions.task
    if task.label is None or task.type in ("regression", "clustering") or len(predictions.classes) > _LARGEST_CONFUSION:
        return None
    labels = range(len(predictions.classes))
    counts = sklearn_metrics.confusion_matrix(
        predictions.truth.astype(np.int64), predictions.predicted.astype(np.int64), labels=labels
    )
    return Confusion(classes=list(predictions.classes), counts=counts.tolist())


def errors_histogram(predictions: Predictions) -> tuple[Histogram, Point]:
    """Distributes the errors (actual minus predicted) of a regression between their 0.5 and 99.5 percentiles."""
    errors = predictions.truth - predictions.scores
    low, high = (float(limit) for limit in np.quantile(errors, (0.005, 0.995)))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return _histogram("actual − predicted", np.clip(errors, low, high), (low, high)), (low, high)


def by_predicted(predictions: Predictions) -> list[tuple[float, ...]]:
    """Sums up ranges of the predicted value that hold equally many rows.

    Returns:
        Mean prediction, then the 10th, 50th and 90th percentile of the actual values, by rising prediction.
    """
    order = np.argsort(predictions.scores, kind="stable")
    parts = [part for part in np.array_split(order, min(_RANGES, len(order))) if len(part)]
    return [
        (float(predictions.scores[part].mean()), *map(float, np.quantile(predictions.truth[part], (0.1, 0.5, 0.9))))
        for part in parts
    ]


def _confidence(predictions: Predictions) -> tuple[Array, Array]:
    if predictions.task.type in ("binary", "anomaly_detection"):
        return predictions.truth, predictions.scores
    return predictions.truth == predictions.predicted, predictions.scores.max(axis=1)


def _histogram(name: str, values: Array, limits: Point) -> Histogram:
    counts, _ = np.histogram(values, bins=HISTOGRAM_BINS, range=limits)
    return {"name": name, "heights": (counts / max(len(values), 1)).tolist()}


def _spread(length: Array) -> Array:
    """Chooses at most MAX_POINTS points of a curve, evenly along its length (which never falls), ends included."""
    if len(length) <= MAX_POINTS:
        return np.arange(len(length))
    return np.unique([*np.searchsorted(length, np.linspace(length[0], length[-1], MAX_POINTS - 1)), len(length) - 1])
