"""The conditions that a model must meet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from components.errors import InputError
from components.evaluate_model.metrics import Values
from components.evaluate_model.observations import Rejections
from components.evaluation_result import Check, Estimates
from components.predictions import HIGHER_IS_BETTER, Array, Predictions
from components.settings import (
    Evaluation,
    Gain,
    Regression,
    SliceThreshold,
    Task,
    Threshold,
    evaluation_faults,
    gain_metric,
    lead_metric,
)
from components.slices import Partition

REJECTED_ROWS = "rows rejected by the model"
_SHOWN = 3


@dataclass(frozen=True)
class SliceTable:
    """The metrics of a partition's groups."""

    partition: Partition
    metrics: dict[str, Array]
    """float64 [groups], NaN: undefined."""
    supported: Array
    """bool [groups]: enough rows for a threshold."""


@dataclass(frozen=True)
class SliceChecks:
    """What slice thresholds found."""

    checks: list[Check]
    failed: list[Array]
    """By table, bool [groups]."""


def require_metrics(task: Task, evaluation: Evaluation) -> None:
    """Makes sure that every condition names a metric of the task and slices that are computed.

    Raises:
        InputError: one does not, with the possible names.
    """
    for _, fault in evaluation_faults(task, evaluation):
        raise InputError(fault)


def check_data(candidate: Predictions) -> list[Check]:
    """Checks that the rows can tell a good model from a bad one; lists only what fails."""
    found = []
    if candidate.task.label and candidate.task.type != "regression" and len(np.unique(candidate.truth)) < 2:
        only = candidate.classes[int(candidate.truth[0])]
        found.append(
            Check(
                kind="data",
                name="classes in the eval split",
                metric="classes",
                value=1,
                bound="≥ 2",
                ok=False,
                detail=f"all {len(candidate):,} rows have {candidate.task.label} = {only!r}; choose other eval rows",
            )
        )
    if len(candidate) > 1 and (candidate.scores == candidate.scores[0]).all():
        is_cluster = candidate.task.type == "clustering"
        look = "at the sizes of the clusters" if is_cluster else "at the loss"
        found.append(
            Check(
                kind="data",
                name="distinct predictions",
                metric="predictions",
                value=1,
                bound="≥ 2",
                ok=False,
                detail=f"all {len(candidate):,} rows get the same prediction; look {look} in the training report",
            )
        )
    return found


def check_rejections(rejections: Rejections, max_share: float) -> list[Check]:
    """Checks that the model took nearly all rows; lists only a failure."""
    if rejections.share <= max_share:
        return []
    return [
        Check(
            kind="data",
            name=REJECTED_ROWS,
            metric="rejected",
            value=rejections.share,
            bound=f"≤ {figure(max_share)}",
            ok=False,
            detail=f"{rejected_rows(rejections, max_share)}; fix the source, or raise evaluation.max_rejected in "
            "pipeline.yaml",
        )
    ]


def rejected_rows(rejections: Rejections, max_share: float) -> str:
    """Says how many rows the model could not take, and mostly why."""
    return (
        f"{rejections.rows:,} of {rejections.of:,}, {figure(100 * rejections.share)} % (allowed: "
        f"{figure(100 * max_share)} %), most often because {rejections.reason} ({rejections.reason_rows:,} rows)"
    )


def check_thresholds(thresholds: Sequence[Threshold], metrics: Estimates) -> list[Check]:
    """Holds overall metrics against their bounds."""
    return [
        Check(
            kind="threshold",
            name=one.metric,
            metric=one.metric,
            value=metrics[one.metric].value,
            bound=_bound(one),
            ok=_within(metrics[one.metric].value, one),
            detail=_interval(metrics, one.metric),
        )
        for one in thresholds
    ]


def check_slices(thresholds: Sequence[SliceThreshold], tables: Sequence[SliceTable]) -> SliceChecks:
    """Holds the metrics of slices with enough rows against their bounds; an undefined metric fails none."""
    failed = [np.zeros(len(table.supported), dtype=bool) for table in tables]
    checks = []
    for one in thresholds:
        wanted = [set(names) for names in one.slices]
        chosen = [i for i, table in enumerate(tables) if not wanted or set(table.partition.columns) in wanted]
        outside = {index: _outside(tables[index], one) for index in chosen}
        for index, groups in outside.items():
            failed[index] |= groups
        checks.append(_slice_check(one, [tables[index] for index in chosen], list(outside.values())))
    return SliceChecks(checks, failed)


def check_gain(gain: Gain, task: Task, metrics: Estimates, baseline: Values) -> Check:
    """Requires that the model beats the trivial baseline by more than `min_gain`."""
    metric = gain.metric or gain_metric(task)
    value = _improvement(metric, metrics[metric].value, baseline[metric])
    return Check(
        kind="baseline",
        name=f"{metric} gain over the trivial baseline",
        metric=metric,
        value=value,
        bound=f"> {figure(gain.min_gain)}",
        ok=value is not None and value > gain.min_gain,
        detail=f"{figure(metrics[metric].value)} (trivial {figure(baseline[metric])})",
    )


def check_flagged(candidate: Predictions, max_shift: float) -> list[Check]:
    """Without labels: checks that as many rows count as anomalies as among those learned from, but for chance.

    Args:
        candidate: of an anomaly_detection task; of others nothing is checked.
        max_shift: how far the shares may lie apart, besides three standard errors.
    """
    expected = candidate.expected_flagged
    if candidate.task.label or expected is None:
        return []
    flagged = float(candidate.predicted.mean())
    bound = max_shift + 3 * np.sqrt(expected * (1 - expected) / len(candidate))
    return [
        Check(
            kind="stability",
            name="rows that count as anomalies, against those learned from",
            metric="flagged",
            value=flagged - expected,
            bound=f"within ± {figure(bound)}",
            ok=abs(flagged - expected) <= bound,
            detail=f"{100 * flagged:.1f} % are flagged, {100 * expected:.1f} % of those learned from (allowed: "
            f"{100 * bound:.1f} points apart)",
        )
    ]


def is_judged_by_ranks(regression: Regression, task: Task) -> bool:
    """Tells whether production is compared by the order of rows, as without labels no metric tells which is better."""
    return task.type == "anomaly_detection" and not task.label and regression.metric is None


def check_ranks(regression: Regression, candidate: Predictions, production: Predictions) -> Check:
    """Requires that both models order rows alike (Spearman's rank correlation)."""
    agreement = float(stats.spearmanr(candidate.scores, production.scores).statistic) if len(candidate) > 1 else np.nan
    known = None if np.isnan(agreement) else agreement
    return Check(
        kind="stability",
        name="order of the rows, against production",
        metric="rank_agreement",
        value=known,
        bound=f"≥ {figure(regression.min_rank_agreement)}",
        ok=known is not None and known >= regression.min_rank_agreement,
        detail=f"the rank correlation with production's scores is {figure(known)} (allowed: at least "
        f"{figure(regression.min_rank_agreement)})",
    )


def check_production(
    regression: Regression, task: Task, metrics: Estimates, production: Values, difference: Estimates
) -> Check:
    """Requires that the model is not worse than production by more than the tolerance."""
    metric = regression.metric or lead_metric(task)
    value = _improvement(metric, metrics[metric].value, production[metric])
    return Check(
        kind="production",
        name=f"{metric} gain over production",
        metric=metric,
        value=value,
        bound=f"≥ {figure(-regression.tolerance)}",
        ok=value is not None and value >= -regression.tolerance,
        detail=f"{figure(metrics[metric].value)} (production {figure(production[metric])}); "
        f"{with_interval('difference', {'difference': difference[metric]})}",
    )


def figure(value: float | None) -> str:
    """Writes a metric for a reader, with four digits."""
    return "undefined" if value is None else f"{value + 0.0:.4g}"


def with_interval(metric: str, estimates: Estimates) -> str:
    """Writes a metric, its value and its interval, e.g. auc 0.691 [0.688, 0.695]."""
    return f"{metric} {figure(estimates[metric].value)} {_interval(estimates, metric)}".rstrip()


def _improvement(metric: str, value: float | None, other: float | None) -> float | None:
    if value is None or other is None:
        return None
    return value - other if metric in HIGHER_IS_BETTER else other - value


def _within(value: float | None, bound: Threshold) -> bool:
    if value is None:
        return False
    return (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)


def _bound(bound: Threshold) -> str:
    parts = [("≥", bound.min), ("≤", bound.max)]
    return " and ".join(f"{sign} {figure(limit)}" for sign, limit in parts if limit is not None)


def _interval(estimates: Estimates, metric: str) -> str:
    one = estimates[metric]
    return f"[{figure(one.low)}, {figure(one.high)}]" if one.low is not None else ""


def _outside(table: SliceTable, bound: Threshold) -> Array:
    values = table.metrics[bound.metric]
    low = values < bound.min if bound.min is not None else np.zeros(len(values), dtype=bool)
    high = values > bound.max if bound.max is not None else np.zeros(len(values), dtype=bool)
    return table.supported & (low | high)


def _slice_check(bound: SliceThreshold, tables: Sequence[SliceTable], outside: Sequence[Array]) -> Check:
    bad = [
        (table.metrics[bound.metric][group], table, int(group))
        for table, groups in zip(tables, outside, strict=True)
        for group in np.flatnonzero(groups)
    ]
    values = [table.metrics[bound.metric][table.supported] for table in tables]
    defined = [one[~np.isnan(one)] for one in values]
    judged = sum(map(len, defined))
    bad.sort(key=lambda one: one[0], reverse=bound.min is None)
    worst = [f"{slice_name(table, group)} {figure(value)}" for value, table, group in bad[:_SHOWN]]
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return Check(
        kind="slices",
        name=f"{bound.metric} of slices by {'; '.join(', '.join(table.partition.columns) for table in tables) or '–'}",
        metric=bound.metric,
        value=_worst(np.concatenate(defined), bound) if judged else None,
        bound=_bound(bound),
        ok=not bad,
        detail=f"{len(bad)} of {judged} slices outside{': ' + ', '.join(worst) + more if bad else ''}",
    )


def _worst(values: Array, bound: Threshold) -> float:
    if bound.min is None:
        return float(values.max())
    if bound.max is not None and (values > bound.max).any() and not (values < bound.min).any():
        return float(values.max())
    return float(values.min())


def slice_name(table: SliceTable, group: int) -> str:
    """Names a slice for a reader, e.g. carrier=UA, origin=JFK."""
    return ", ".join(f"{column}={value}" for column, value in table.partition.named(group).items())
