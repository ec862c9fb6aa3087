"""What a model must reach."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Fraction, Name, Section
from components.settings.task import Task

ClassMetric = Literal[
    "auc",
    "pr_auc",
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
]

NumberMetric = Literal["rmse", "mae", "r2", "median_absolute_error", "quantile_loss"]

BudgetMetric = Literal["precision_at_budget", "recall_at_budget"]
"""Where rows have a positive class and evaluation.alert_budget is set."""

AnomalyMetric = Literal["auc", "pr_auc", "precision", "recall", "f1"]

ScoreMetric = Literal["flagged", "score_shift"]
"""Of an anomaly_detection task, without labels, too."""

LabelledClusterMetric = Literal["adjusted_rand", "v_measure", "homogeneity", "completeness"]

ClusterMetric = Literal["silhouette", "davies_bouldin", "calinski_harabasz", "largest_cluster", "smallest_cluster"]

MetricName = Literal[ClassMetric, BudgetMetric, NumberMetric, ScoreMetric, LabelledClusterMetric, ClusterMetric]

_METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": get_args(ClassMetric),
    "multiclass": get_args(ClassMetric),
    "regression": get_args(NumberMetric),
    "anomaly_detection": get_args(ScoreMetric),
    "clustering": get_args(ClusterMetric),
}

_WITH_LABEL: Mapping[str, tuple[str, ...]] = {
    "anomaly_detection": get_args(AnomalyMetric),
    "clustering": get_args(LabelledClusterMetric),
}


def metrics_of(task: Task, has_budget: bool = False) -> tuple[str, ...]:
    """Lists the metrics of a task: those by labels, where there are some, come first."""
    by_label = _WITH_LABEL.get(task.type, ()) if task.label else ()
    at_budget = get_args(BudgetMetric) if has_budget and task.has_positive else ()
    return (*by_label, *_METRICS[task.type], *at_budget)


NEUTRAL_METRICS = frozenset(("flagged", "largest_cluster", "smallest_cluster"))
"""Of which neither more nor less is better."""


def gain_metric(task: Task) -> str:
    """Gives the metric in which the trivial baseline is beaten, unless the settings name another."""
    if task.type == "anomaly_detection":
        return "auc" if task.label else "score_shift"
    if task.type == "clustering":
        return "adjusted_rand" if task.label else "silhouette"
    return "rmse" if task.type == "regression" else "log_loss"


def lead_metric(task: Task) -> str:
    """Gives the metric in which production is compared, unless the settings name another; the first in a reason."""
    return "auc" if task.type == "binary" else gain_metric(task)


class Threshold(Section):
    """A bound on a metric."""

    metric: MetricName
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class SliceThreshold(Threshold):
    """A bound on a metric in every slice that has enough rows."""

    slices: list[list[Name]] = []
    """Only in these; default: all slices."""


class Gain(Section):
    """How much better than the trivial baseline (the training prior, or mean) the model must be.

    anomaly_detection: than the same score for every row; clustering: than one cluster.
    """

    metric: MetricName | None = None
    """Default: log_loss; regression: rmse; anomaly_detection: auc, without labels score_shift; clustering:
    adjusted_rand, without labels silhouette."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """In the metric's unit; 0: better, by however little."""


class Regression(Section):
    """How much worse than the model in production, on the same rows, the model may be."""

    metric: MetricName | None = None
    """Default: auc for binary, log_loss for multiclass, else as for the baseline; anomaly_detection without labels:
    none, but both must order rows alike, see min_rank_agreement."""
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    """In the metric's unit."""
    min_rank_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """anomaly_detection without labels: smallest rank correlation (Spearman) of both models' scores."""


class Bootstrap(Section):
    """Confidence intervals by resampling rows."""

    resamples: Annotated[int, Field(ge=0, le=10_000)] = 100
    """0: no intervals."""
    confidence: Fraction = 0.95
    seed: Annotated[int, Field(ge=0)] = 17


class AlertBudget(Section):
    """How many alerts somebody can look at: the rows with the highest scores raise them (precision at k)."""

    alerts: Annotated[float, Field(gt=0)]
    """So many; parts of one count as none, but one there is always."""
    per: Literal["1000_rows", "day"] = "1000_rows"
    """1000_rows: of all rows, or of those of a slice. day: of each day's rows (UTC)."""
    time: Name | None = None
    """per day: the date or time column that tells the day."""

    @model_validator(mode="after")
    def _time_by_day(self) -> Self:
        if self.per == "day" and self.time is None:
            raise ValueError("per is day, so give time, the column that tells the day")
        if self.per != "day" and self.time is not None:
            raise ValueError("time is for a budget per day: take it out, or set per to day")
        return self

    @property
    def described(self) -> str:
        """For a reader, e.g. 4 alerts per 1,000 rows."""
        return (
            f"{self.alerts:g} alert{'' if self.alerts == 1 else 's'} per {'day' if self.per == 'day' else '1,000 rows'}"
        )


class Evaluation(Section):
    """What a model must reach to pass the gate."""

    decision_threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["model", "max_f1"] = "model"
    """binary, anomaly_detection: the score from which a row counts as positive. model: what training.decision chose;
    max_f1: chosen on the eval split, by its labels."""
    alert_budget: AlertBudget | None = None
    """binary, anomaly_detection with a label: adds the metrics precision_at_budget and recall_at_budget."""
    thresholds: list[Threshold] = []
    slices: list[Annotated[list[Name], Field(min_length=1)]] = []
    """Columns, or crosses of columns, by whose values the metrics are also computed."""
    min_slice_rows: PositiveInt = 100
    """Slices with fewer rows are listed but bound by no threshold."""
    slice_thresholds: list[SliceThreshold] = []
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the eval rows that the model may refuse to predict, e.g. because a required value is missing."""
    baseline: Gain = Gain()
    production: Regression = Regression()
    bootstrap: Bootstrap = Bootstrap()
    quantile: Fraction = 0.5
    """quantile_loss: of which quantile."""
    max_flagged_shift: Annotated[float, Field(ge=0, le=1)] = 0.05
    """anomaly_detection without labels: how far the share of eval rows that count as anomalies may lie from that of the
    rows learned from; chance is allowed for."""


def evaluation_faults(task: Task, evaluation: Evaluation) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields the conditions that name no metric of the task, or a slice that is not computed: where, and what to do."""
    if evaluation.alert_budget and not task.has_positive:
        unlabelled = "" if task.label else " without a label"
        yield (
            ("evaluation", "alert_budget"),
            f"evaluation.alert_budget: {task.described}{unlabelled} has no positive class to alert about; take it out",
        )
    named: dict[tuple[str | int, ...], MetricName | None] = {
        **{("thresholds", index): one.metric for index, one in enumerate(evaluation.thresholds)},
        **{("slice_thresholds", index): one.metric for index, one in enumerate(evaluation.slice_thresholds)},
        ("baseline",): evaluation.baseline.metric,
        ("production",): evaluation.production.metric,
    }
    for (key, *index), metric in named.items():
        bounds = str(key).endswith("thresholds")
        possible = [
            name
            for name in metrics_of(task, evaluation.alert_budget is not None)
            if bounds or name not in NEUTRAL_METRICS
        ]
        if metric is not None and metric not in possible:
            place = f"{key}[{index[0]}]" if index else key
            if metric in get_args(BudgetMetric) and task.has_positive:
                yield (
                    ("evaluation", str(key), *index, "metric"),
                    f"evaluation.{place}.metric: {metric} needs a budget; add e.g. alert_budget: {{alerts: 5}}",
                )
                continue
            unlabelled = "" if task.label else " without a label"
            gain = " to be better in" if metric in metrics_of(task) else ""
            yield (
                ("evaluation", str(key), *index, "metric"),
                f"evaluation.{place}.metric: {task.described}{unlabelled} has no '{metric}'{gain}; use one of "
                f"{', '.join(possible)}",
            )
    if evaluation.decision_threshold == "max_f1" and task.is_unsupervised and not task.label:
        yield (
            ("evaluation", "decision_threshold"),
            "evaluation.decision_threshold: max_f1 needs labels; name task.label, or set it to model",
        )
    computed = [set(names) for names in evaluation.slices]
    for number, bound in enumerate(evaluation.slice_thresholds):
        for position, names in enumerate(bound.slices):
            if set(names) not in computed:
                known = ", ".join(f"[{', '.join(one)}]" for one in evaluation.slices) or "none"
                yield (
                    ("evaluation", "slice_thresholds", number, "slices", position),
                    f"evaluation.slice_thresholds[{number}].slices: [{', '.join(names)}] is not in evaluation.slices "
                    f"({known}); add it there",
                )
