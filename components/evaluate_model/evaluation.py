"""Measures a model and decides whether it may be published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.artifacts import whole, write_whole
from components.evaluate_model import checks, curves
from components.evaluate_model.baseline import measure_baseline
from components.evaluate_model.checks import SliceTable, figure
from components.evaluate_model.intervals import RESOLUTION, distribution, interval
from components.evaluate_model.metrics import Values, measure, measure_classes
from components.evaluate_model.observations import Observations, observe
from components.evaluate_model.page import page
from components.evaluate_model.reasons import reason
from components.evaluation_result import (
    ClusterResult,
    Estimate,
    Estimates,
    EvaluationResult,
    SliceResult,
    write_evaluation,
)
from components.predictions import Array, Predictions
from components.resampled_metrics import points, statistic
from components.settings import Bootstrap, Evaluation, Task
from components.slices import Partition, partitions

MAX_SLICES = 1000
_SUSPICIOUS = {"auc": 0.999, "r2": 0.999}


def evaluate(
    predictions: str,
    production_predictions: str,
    examples: str,
    task: Task,
    evaluation: Evaluation,
    evaluation_result: str,
    report: str,
) -> EvaluationResult:
    """Measures a model, its slices, the trivial baseline and production on the same rows; writes result and report.

    Args:
        predictions: dataset of the candidate, from predict_batch.
        production_predictions: dataset of the model in production, on the same rows; without rows: none.
        examples: the dataset that ingest_data wrote; only the label of its train split is read.
        task: what is predicted.
        evaluation: what the model must reach.
        evaluation_result: directory to write, with evaluation.json.
        report: HTML file to write.

    Raises:
        InputError: the settings do not fit the task or the columns, or production predicted other rows.
        DataRejectedError: nothing to evaluate, or predictions that are none.
    """
    checks.require_metrics(task, evaluation)
    observations = observe(Path(predictions), Path(production_predictions), Path(examples), task, evaluation)
    parts = partitions(observations.columns, evaluation.slices)
    result = judge(observations, parts, evaluation)
    html = page(result, observations, evaluation)
    with whole(evaluation_result) as folder:
        write_evaluation(folder, result)
    write_whole(report, html)
    return result


def judge(observations: Observations, parts: Sequence[Partition], evaluation: Evaluation) -> EvaluationResult:
    """Computes all metrics and holds them against the settings."""
    candidate, production, task = observations.candidate, observations.production, observations.candidate.task
    point, drawn = _overall(candidate, measure(candidate), evaluation.bootstrap)
    metrics = _estimates(candidate, point, drawn, evaluation.bootstrap)[0]
    baseline = measure_baseline(observations.baseline, observations.train_labels)
    tables = [_slice_table(candidate, part, evaluation.min_slice_rows) for part in parts]
    sliced = checks.check_slices(evaluation.slice_thresholds, tables)
    found = [
        *checks.check_rejections(observations.rejections, evaluation.max_rejected),
        *checks.check_data(candidate),
        *checks.check_thresholds(evaluation.thresholds, metrics),
        *sliced.checks,
        checks.check_gain(evaluation.baseline, task, metrics, baseline),
        *checks.check_flagged(candidate, evaluation.max_flagged_shift),
    ]
    production_metrics, difference = _compared(production, point, drawn, evaluation.bootstrap)
    if production and checks.is_judged_by_ranks(evaluation.production, task):
        found.append(checks.check_ranks(evaluation.production, candidate, production))
    elif production_metrics:
        found.append(checks.check_production(evaluation.production, task, metrics, production_metrics, difference))
    slices = _slice_results(candidate, tables, sliced.failed, evaluation.bootstrap)
    return EvaluationResult(
        task=task.type,
        label=task.label,
        rows=len(candidate),
        missing_labels=observations.missing_labels,
        rejected=observations.rejections.rows,
        threshold=candidate.threshold if task.type in ("binary", "anomaly_detection") else None,
        expected_flagged=candidate.expected_flagged,
        clusters=_clusters(candidate) if task.type == "clustering" else [],
        confidence=evaluation.bootstrap.confidence,
        metrics=metrics,
        per_class=measure_classes(candidate) if task.type == "multiclass" else {},
        baseline=baseline,
        production=production_metrics,
        difference=difference,
        slices=slices,
        slices_left_out=sum(len(table.supported) for table in tables) - len(slices),
        rows_left_out=len(candidate) * len(tables) - sum(one.rows for one in slices),
        checks=found,
        warnings=_warnings(observations, tables, metrics, evaluation.max_rejected),
        roc=curves.roc_curve(candidate),
        confusion=curves.confusion(candidate),
        verdict="pass" if all(check.ok for check in found) else "fail",
        reason=reason(task, found, metrics, baseline),
    )


def _clusters(candidate: Predictions) -> list[ClusterResult]:
    """Describes each cluster of the model."""
    sampled, results = candidate.sampled, []
    for number in range(candidate.clusters):
        inside = candidate.scores == number
        fits = sampled.fits[inside[sampled.rows]] if sampled else np.zeros(0)
        found = ClusterResult(
            name=str(number), rows=int(inside.sum()), silhouette=float(fits.mean()) if len(fits) else None
        )
        if candidate.task.label and inside.any():
            counts = np.bincount(candidate.truth[inside], minlength=len(candidate.classes))
            found = found.model_copy(
                update={
                    "commonest": candidate.classes[int(counts.argmax())],
                    "purity": float(counts.max() / counts.sum()),
                }
            )
        results.append(found)
    return results


def _overall(predictions: Predictions, values: Values, bootstrap: Bootstrap) -> tuple[Array, Array]:
    """Gives the metrics of all rows, as one group: [metrics, 1], and of their resamples."""
    point = np.array([[values[name]] for name in predictions.metrics], dtype=np.float64)
    return point, _resampled(predictions, np.zeros(len(predictions), np.int64), bootstrap)


def _compared(
    production: Predictions | None, point: Array, drawn: Array, bootstrap: Bootstrap
) -> tuple[Values | None, Estimates]:
    """Gives production's metrics, and the candidate's minus them."""
    if not production:
        return None, {}
    values = measure(production)
    other, other_drawn = _overall(production, values, bootstrap)
    return values, _estimates(production, point - other, drawn - other_drawn, bootstrap)[0]


def _resampled(predictions: Predictions, groups: Array, bootstrap: Bootstrap) -> Array:
    return distribution(statistic(predictions, groups, RESOLUTION), len(predictions), bootstrap)


def _estimates(predictions: Predictions, point: Array, drawn: Array, bootstrap: Bootstrap) -> list[Estimates]:
    """Gives each group's metrics with their intervals."""
    columns = np.stack([point, *interval(drawn, point, bootstrap.confidence)], axis=-1)
    texts = columns.transpose(1, 0, 2).tolist()
    return [
        {
            name: Estimate(
                **{key: _known(number) for key, number in zip(("value", "low", "high"), numbers, strict=True)}
            )
            for name, numbers in zip(predictions.metrics, group, strict=True)
        }
        for group in texts
    ]


def _known(number: float) -> float | None:
    return None if np.isnan(number) else number


def _slice_table(candidate: Predictions, part: Partition, min_rows: int) -> SliceTable:
    values = points(candidate, part.groups)
    return SliceTable(part, dict(zip(candidate.metrics, values, strict=True)), part.rows >= min_rows)


def _slice_results(
    candidate: Predictions, tables: Sequence[SliceTable], failed: Sequence[Array], bootstrap: Bootstrap
) -> list[SliceResult]:
    """Lists at most MAX_SLICES slices with intervals: by partition, then failing ones first, then the largest."""
    if not tables:
        return []
    rows = np.concatenate([table.partition.rows for table in tables])
    first = np.lexsort((-rows, ~np.concatenate(failed)))[:MAX_SLICES]
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[first] = True
    ends = np.cumsum([len(table.supported) for table in tables])
    results = []
    for table, listed, bad in zip(tables, np.split(chosen, ends[:-1]), failed, strict=True):
        if listed.any():
            order = np.lexsort((-table.partition.rows, ~bad))
            results += _partition_results(candidate, table, order[listed[order]], bad, bootstrap)
    return results


def _partition_results(
    candidate: Predictions, table: SliceTable, listed: Array, failed: Array, bootstrap: Bootstrap
) -> list[SliceResult]:
    """Resamples the listed groups, in their order."""
    part = table.partition
    position = np.full(len(table.supported), -1)
    position[listed] = np.arange(len(listed))
    groups = position[part.groups]
    inside = groups >= 0
    rows = candidate.taken(inside)
    point = np.stack(list(table.metrics.values()))[:, listed]
    estimates = _estimates(candidate, point, _resampled(rows, groups[inside], bootstrap), bootstrap)
    return [
        SliceResult(
            values=part.named(group),
            rows=int(part.rows[group]),
            supported=bool(table.supported[group]),
            ok=not failed[group],
            metrics=metrics,
        )
        for group, metrics in zip(listed.tolist(), estimates, strict=True)
    ]


def _warnings(
    observations: Observations, tables: Sequence[SliceTable], metrics: Estimates, max_rejected: float
) -> list[str]:
    found = []
    candidate = observations.candidate
    rows = len(candidate)
    if 0 < observations.rejections.share <= max_rejected:
        text = checks.rejected_rows(observations.rejections, max_rejected)
        found.append(f"{checks.REJECTED_ROWS}: {text}; they are not evaluated")
    if observations.rejected_by_production:
        found.append(
            f"{observations.rejected_by_production:,} rows that the model in production rejected are not evaluated"
        )
    if observations.missing_labels:
        found.append(f"{observations.missing_labels:,} rows have no label and are not evaluated ({rows:,} have one)")
    found += [
        f"no slice by {', '.join(table.partition.columns)} has enough rows: no threshold binds it"
        for table in tables
        if not table.supported.any()
    ]
    empty = [str(number) for number in range(candidate.clusters) if not (candidate.scores == number).any()]
    if empty:
        found.append(f"no row is in cluster {', '.join(empty[:5])}{' …' if len(empty) > 5 else ''}")
    for metric, limit in _SUSPICIOUS.items():
        value = metrics[metric].value if metric in metrics else None
        if value is not None and value >= limit:
            found.append(
                f"{metric} {figure(value)} is nearly perfect: look for a feature that is known only after the label"
            )
    return found
