"""The report: one page that a reader understands who did not build the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate_model import curves
from components.evaluate_model.observations import Observations
from components.evaluation_result import EvaluationResult, SliceResult
from components.predictions import HIGHER_IS_BETTER, Predictions
from components.reports import render
from components.settings import NEUTRAL_METRICS, Evaluation, SliceThreshold, Task, lead_metric

MAX_ROWS = 100
"""Slices that a table shows; evaluation.json has more."""
_SLICE_METRICS = {
    "binary": ("auc", "log_loss", "recall", "precision"),
    "multiclass": ("log_loss", "auc", "accuracy", "f1"),
    "regression": ("rmse", "mae", "r2", "median_absolute_error"),
    "anomaly_detection": ("auc", "flagged", "recall", "precision", "score_shift"),
    "clustering": ("adjusted_rand", "silhouette", "v_measure", "largest_cluster"),
}
_MEANINGS: Mapping[str, str] = {
    "auc": "how often a random positive row scores above a random negative one; 0.5 is chance",
    "pr_auc": "mean precision over all recalls (average precision); chance is the share of positives",
    "log_loss": "mean surprise at what came true, −ln p; rewards honest probabilities",
    "brier": "mean squared distance between probability and outcome",
    "calibration_error": "mean distance between predicted probability and observed share, in 10 bins of equal width",
    "accuracy": "share of rows taken for the right class",
    "balanced_accuracy": "mean recall over the classes",
    "precision": "share of rows taken for positive that are",
    "recall": "share of positive rows taken for positive",
    "f1": "harmonic mean of precision and recall",
    "precision_at_budget": "share of the alerts that are right, where only the budget's rows raise one",
    "recall_at_budget": "share of positive rows among those alerts",
    "rmse": "root of the mean squared error, in the label's unit; large errors weigh most",
    "mae": "mean absolute error, in the label's unit",
    "r2": "share of the label's variance that is explained; 0 is the mean, 1 is perfect",
    "median_absolute_error": "half of the rows are closer than this",
    "flagged": "share of rows that count as anomalies",
    "score_shift": "largest distance between the distributions of these scores and those of the rows learned from",
    "adjusted_rand": "agreement of clusters and labels on pairs of rows; 0 is chance, 1 is perfect",
    "v_measure": "harmonic mean of homogeneity and completeness; the same as normalized mutual information",
    "homogeneity": "how far a cluster has one label only",
    "completeness": "how far a label is in one cluster only",
    "silhouette": "how much nearer rows are to their own cluster than to the next one; −1 to 1, 0 is on the border",
    "davies_bouldin": "spread of clusters against the distance to the most similar one",
    "calinski_harabasz": "spread between clusters against that inside them",
    "largest_cluster": "its share of the rows",
    "smallest_cluster": "its share of the rows",
    "quantile_loss": "pinball loss: what over- and underestimating cost around a quantile",
}


@dataclass(frozen=True)
class SliceSection:
    """One table of slices."""

    columns: str
    rows: Sequence[SliceResult]
    hidden: int
    bounds: Sequence[float]
    """Limits of the first metric that bind these slices."""


@dataclass(frozen=True)
class Scale:
    """The limits of the whiskers in a table."""

    low: float
    high: float

    def at(self, value: float | None) -> float:
        """Gives a position in percent."""
        if value is None or self.high == self.low:
            return 50.0
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def page(result: EvaluationResult, observations: Observations, evaluation: Evaluation) -> str:
    """Renders the report of an evaluation."""
    task = observations.candidate.task
    main, *others = _slice_metrics(observations.candidate, evaluation)
    return render(
        Path(__file__).parent / "report.html.jinja",
        result=result,
        names=observations.candidate.metrics,
        meanings=_MEANINGS,
        better=HIGHER_IS_BETTER,
        neutral=NEUTRAL_METRICS,
        main=main,
        others=others,
        sections=_sections(result.slices, main, evaluation.slice_thresholds),
        scale=_scale(result, main),
        min_rows=evaluation.min_slice_rows,
        quantile=evaluation.quantile,
        budget=evaluation.alert_budget.described if evaluation.alert_budget else "",
        chosen_by=evaluation.decision_threshold,
        class_metrics=("auc", "pr_auc", "precision", "recall", "f1"),
        charts=_charts(observations),
        share_positive=float(observations.candidate.truth.mean()) if _has_positive(task) else None,
        positive=observations.candidate.classes[1] if _has_positive(task) else None,
    )


def _has_positive(task: Task) -> bool:
    return task.label is not None and task.type in ("binary", "anomaly_detection")


def _slice_metrics(candidate: Predictions, evaluation: Evaluation) -> list[str]:
    """Chooses four metrics for the tables of slices: bound ones first, then the task's usual ones."""
    task, bound = candidate.task, [one.metric for one in evaluation.slice_thresholds]
    usual = [name for name in _SLICE_METRICS[task.type] if name in candidate.metrics]
    return list(dict.fromkeys([*bound, lead_metric(task), *usual]))[:4]


def _sections(slices: Sequence[SliceResult], main: str, thresholds: Sequence[SliceThreshold]) -> list[SliceSection]:
    """Groups slices by their columns, worst first; those with too few rows come last."""
    sections = []
    for columns, group in groupby(slices, key=lambda one: one.columns):
        rows = sorted(group, key=lambda one: (not one.supported, _badness(one, main)))
        bounds = [
            limit
            for one in thresholds
            if one.metric == main and (not one.slices or set(columns) in map(set, one.slices))
            for limit in (one.min, one.max)
            if limit is not None
        ]
        sections.append(SliceSection(", ".join(columns), rows[:MAX_ROWS], len(rows[MAX_ROWS:]), bounds))
    return sections


def _badness(one: SliceResult, metric: str) -> float:
    value = one.metrics[metric].value
    if value is None:
        return float("inf")
    return value if metric in HIGHER_IS_BETTER else -value


def _scale(result: EvaluationResult, metric: str) -> Scale:
    slices = [one.metrics[metric] for one in result.slices if one.supported]
    values = [v for one in (*slices, result.metrics[metric]) for v in (one.low, one.value, one.high) if v is not None]
    return Scale(min(values, default=0), max(values, default=1))


def _charts(observations: Observations) -> dict[str, Any]:
    models = {"candidate": observations.candidate}
    if observations.production:
        models["production"] = observations.production
    if observations.candidate.task.type == "regression":
        return _regression_charts(models)
    task = observations.candidate.task
    if task.type == "clustering":
        return {}
    charts: dict[str, Any] = {"histograms": curves.score_histograms(observations.candidate)}
    if not task.is_unsupervised:
        charts["calibration"] = _series(models, curves.calibration)
    if _has_positive(task):
        charts |= {"roc": _series(models, _roc_points), "precision_recall": _series(models, curves.precision_recall)}
    return charts


def _series(models: Mapping[str, Predictions], curve: Any) -> list[dict[str, Any]]:
    series = [{"name": name, "points": curve(predictions)} for name, predictions in models.items()]
    return [one for one in series if one["points"]]


def _roc_points(predictions: Predictions) -> list[curves.Point]:
    roc = curves.roc_curve(predictions)
    return list(zip(roc.fpr, roc.tpr, strict=True)) if roc else []


def _regression_charts(models: Mapping[str, Predictions]) -> dict[str, Any]:
    ranges = curves.by_predicted(models["candidate"])
    names = ("10th percentile", "median", "90th percentile")
    order = (1, 0, 2)
    actual = [{"name": names[i], "points": [(one[0], one[i + 1]) for one in ranges]} for i in order]
    errors = [{"name": names[i], "points": [(one[0], one[i + 1] - one[0]) for one in ranges]} for i in order]
    largest = max(abs(one[i + 1] - one[0]) for one in ranges for i in order) or 0.5
    bars, limits = curves.errors_histogram(models["candidate"])
    return {
        "actual": actual,
        "actual_limits": _limits([number for one in ranges for number in one]),
        "errors": errors,
        "predicted_limits": _limits([one[0] for one in ranges]),
        "error_limits": (-largest, largest),
        "histogram": bars,
        "histogram_limits": limits,
    }


def _limits(values: Sequence[Any]) -> curves.Point:
    low, high = float(np.min(values)), float(np.max(values))
    return (low, high) if low < high else (low - 0.5, high + 0.5)
