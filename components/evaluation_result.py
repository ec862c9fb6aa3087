"""What evaluate_model found out about a model: `evaluation.json`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.errors import InputError
from components.json_files import parse_record
from components.settings import TaskType

EVALUATION = "evaluation.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Estimate(_Record):
    """A metric's value and its confidence interval."""

    value: float | None
    """None: undefined on these rows, e.g. the AUC of one class."""
    low: float | None = None
    high: float | None = None


Estimates = dict[str, Estimate]


class SliceResult(_Record):
    """The rows that share the values of some columns."""

    values: dict[str, str]
    """By column, the value as text: of a bucketed number its range, `(missing)` for none."""
    rows: int
    supported: bool
    """Whether it has the rows (evaluation.min_slice_rows) that a threshold asks for."""
    ok: bool
    """Whether it keeps all slice thresholds that bind it."""
    metrics: Estimates

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that make the slice."""
        return tuple(self.values)

    @property
    def name(self) -> str:
        """For a reader, e.g. carrier=UA, origin=JFK."""
        return ", ".join(f"{column}={value}" for column, value in self.values.items())


class Check(_Record):
    """One condition that the model must meet."""

    kind: Literal["data", "threshold", "slices", "baseline", "production", "stability"]
    name: str
    """e.g. auc, auc of carrier slices, log_loss gain over the trivial baseline."""
    metric: str
    value: float | None
    """Of slices: the worst one's. None: undefined."""
    bound: str
    """e.g. ≥ 0.66."""
    ok: bool
    detail: str = ""
    """What a reader should know besides, e.g. the slices that failed."""


class ClusterResult(_Record):
    """The rows of one cluster."""

    name: str
    rows: int
    silhouette: float | None
    """Mean over those of its rows that were drawn for it; None: none was."""
    commonest: str | None = None
    """The label's most frequent value; None: there is no label, or no row."""
    purity: float | None = None
    """Share of that value."""


class RocCurve(_Record):
    """False and true positive rates by decreasing threshold; at most 200 points, all finite."""

    fpr: list[float]
    tpr: list[float]
    thresholds: list[float]


class Confusion(_Record):
    """How often each class was taken for each."""

    classes: list[str]
    counts: list[list[int]]
    """[true class][predicted class]."""


class EvaluationResult(_Record):
    """How a model does, on which rows, and whether that is enough."""

    task: TaskType
    label: str | None
    """None: an unsupervised task without one."""
    rows: int
    """Evaluated: predicted, and with a label, where there is one."""
    missing_labels: int
    """Rows without a label: left out."""
    rejected: int
    """Rows that the model could not take: left out."""
    threshold: float | None
    """binary, anomaly_detection: the score from which a row counts as positive."""
    expected_flagged: float | None = None
    """anomaly_detection: share of the rows learned from that count as anomalies."""
    clusters: list[ClusterResult] = []
    """clustering: in their order."""
    confidence: float
    """Of the intervals."""
    metrics: Estimates
    per_class: dict[str, dict[str, float | None]]
    """multiclass: each class against the rest, by class and metric."""
    baseline: dict[str, float | None]
    """The same metrics of the trivial baseline."""
    production: dict[str, float | None] | None
    """The same metrics of the model in production, on the same rows; None: there is none."""
    difference: Estimates
    """Candidate minus production, resampled in pairs; empty without production."""
    slices: list[SliceResult]
    """At most 1000: failing ones first, then the largest."""
    slices_left_out: int
    rows_left_out: int
    """Rows of the slices left out."""
    checks: list[Check]
    warnings: list[str]
    """What nobody asked for but a reader should know."""
    roc: RocCurve | None
    confusion: Confusion | None
    verdict: Literal["pass", "fail"]
    reason: str
    """One line for the gate."""

    def scalars(self) -> dict[str, float]:
        """Lists the defined overall metrics and the row count, as KFP shows them."""
        defined = {name: one.value for name, one in self.metrics.items() if one.value is not None}
        return {"rows": float(self.rows), **defined}


def write_evaluation(folder: Path, result: EvaluationResult) -> None:
    """Writes `result` into an artifact's directory."""
    (folder / EVALUATION).write_text(result.model_dump_json(indent=1), encoding="utf-8")


def read_evaluation(folder: Path) -> EvaluationResult:
    """Reads what evaluate_model wrote.

    Raises:
        InputError: the directory is no evaluation result of ours.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise InputError(f"'{folder}' has no {EVALUATION}; give the evaluation_result that evaluate_model wrote")
    return parse_record(EvaluationResult, path.read_bytes(), path, "evaluate the model again")
