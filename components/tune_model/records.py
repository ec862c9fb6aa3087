"""What trials give, and the leaderboard that is made of them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.errors import InputError
from components.settings import SELECTION_METRICS, Model, SelectionMetric, Task, Training, Tuning


def metric_of(tuning: Tuning, task: Task) -> SelectionMetric:
    """Gives the metric to compare by.

    Raises:
        InputError: the task has no such metric.
    """
    metric = tuning.metric or SELECTION_METRICS[task.type][0]
    if metric not in SELECTION_METRICS[task.type]:
        raise InputError(
            f"tuning.metric: {task.described} is not compared by '{metric}'; use one of "
            f"{', '.join(SELECTION_METRICS[task.type])}"
        )
    return metric


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Step(_Record):
    """An epoch, or a tree."""

    number: int
    """From 1."""
    loss: float
    validation_loss: float | None
    """Of rows held out to tell when to stop; None: none are."""


class Experiment(_Record):
    """What all trials have in common."""

    transformed: str
    """Folder of the dataset."""
    transform_graph: str
    task: Task
    tuning: Tuning
    training: Training
    user_module: str = ""


class Trial(_Record):
    """What is tried."""

    model: Model
    limits: dict[int, float] = {}
    """By step: a trial whose best validation loss so far is higher is given up. Empty: it never is."""


class TrialResult(_Record):
    """How a trial went; what it predicted is a file of its own."""

    model: Model
    state: Literal["complete", "pruned", "failed"]
    seconds: float
    """Of fitting, all folds."""
    reason: str = ""
    """Why it was given up or failed, in one line."""
    error: Literal["", "fix your input", "data rejected", "try again later", "error"] = ""
    """What to do about a failure, as in components/errors.py."""
    unit: str = "epoch"
    """What a step is."""
    curves: list[list[Step]] = []
    """Of each fold."""
    kept: list[int] = []
    """The step whose model was kept, in each fold."""
    parameters: int = 0
    """Of the first fold's model."""
    latency_ms: float = 0.0
    """Median time for one transformed row, inside TensorFlow."""


class Row(_Record):
    """One line of the leaderboard."""

    kind: str
    model: Model | None = None
    """Section `model`; None: the baseline."""
    hyperparameters: dict[str, Any] = {}
    """Those that differ from the kind's defaults."""
    state: Literal["complete", "pruned", "failed", "baseline"]
    reason: str = ""
    value: float | None = None
    """Of the metric."""
    low: float | None = None
    """95 % interval."""
    high: float | None = None
    behind: float | None = None
    """Worse than the best by; 0 for the best."""
    standard_error: float | None = None
    """Of that difference, from the same rows."""
    fit_seconds: float | None = None
    parameters: int | None = None
    latency_ms: float | None = None
    steps: str = ""
    """How many epochs or trees the model has, e.g. "312 trees"."""
    chosen: bool = False


class Leaderboard(_Record):
    """`leaderboard.json`."""

    metric: SelectionMetric
    rule: Literal["one_standard_error", "best"]
    model: Model
    """The chosen one: section `model`."""
    why: str
    """It was chosen, in one sentence."""
    compared_rows: int = 0
    """On which all were measured."""
    train_rows: int = 0
    """Of the train split."""
    used_rows: int = 0
    """Of them, that took part."""
    folds: int | None = None
    seconds: float = 0.0
    rows: list[Row] = []
    """Best first; then those given up, then those that failed."""
    importance: dict[str, dict[str, float]] = {}
    """By kind: how much of the metric's variance each hyperparameter explains; sums to 1."""

    def scalars(self) -> dict[str, float]:
        """Gives the chosen model's figures, and how many trials there were."""
        chosen = next((row for row in self.rows if row.chosen), None)
        if chosen is None or chosen.value is None or chosen.latency_ms is None:
            return {"trials": 0.0}
        states = [row.state for row in self.rows]
        return {
            self.metric: chosen.value,
            f"baseline_{self.metric}": next(row.value for row in self.rows if row.state == "baseline") or 0.0,
            "latency_ms": chosen.latency_ms,
            "trials": float(len(states) - 1),
            "pruned": float(states.count("pruned")),
            "failed": float(states.count("failed")),
            "seconds": self.seconds,
        }
