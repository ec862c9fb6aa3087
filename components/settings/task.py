"""What is predicted, and what counts as an anomaly of the data."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Name, Section, Severity

TaskType = Literal["binary", "multiclass", "regression", "anomaly_detection", "clustering"]

UNSUPERVISED = frozenset(("anomaly_detection", "clustering"))
"""Types of task whose models learn from no label."""


class Task(Section):
    """What is predicted."""

    type: TaskType
    label: Name | None = None
    """The column to predict. anomaly_detection, clustering: may be left out; it then only tells, in evaluation and in
    model selection, how good a model is, and rows may lack it."""
    positive: str | int | bool | None = None
    """binary: the label's value that counts as positive; anomaly_detection: that of an anomaly. Default: true or 1."""

    @model_validator(mode="after")
    def _label_where_needed(self) -> Self:
        if self.label is None and not self.is_unsupervised:
            raise ValueError(
                f"{self.described} learns from a label: name its column as label, or set type to "
                f"{' or '.join(sorted(UNSUPERVISED))}, which need none"
            )
        if self.positive is not None and self.type == "clustering":
            raise ValueError("a clustering task has no positive value; take positive out")
        return self

    @property
    def is_unsupervised(self) -> bool:
        """Whether models learn from no label."""
        return self.type in UNSUPERVISED

    @property
    def described(self) -> str:
        """For a message, e.g. a binary task."""
        return f"{'an' if self.type.startswith('a') else 'a'} {self.type} task"

    @property
    def has_positive(self) -> bool:
        """Whether some rows are known to be positive, or anomalies."""
        return self.label is not None and self.type in ("binary", "anomaly_detection")

    @property
    def labels(self) -> list[str]:
        """The label's column, if there is one."""
        return [] if self.label is None else [self.label]


class Comparison(Section):
    """A limit on the distance between two distributions of one feature."""

    l_infinity: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest difference of one value's share (categorical features)."""
    jensen_shannon: Annotated[float, Field(ge=0, le=1)] | None = None
    """Jensen-Shannon divergence (numeric and categorical features)."""


class Comparisons(Section):
    """Limits on the distance between two distributions: a default, and exceptions by feature."""

    default: Comparison = Comparison()
    features: dict[Name, Comparison] = {}


class Validation(Section):
    """What counts as an anomaly, and how much it matters."""

    severity: dict[str, Severity] = {}
    """By anomaly type as TFDV names it (e.g. ENUM_TYPE_UNEXPECTED_STRING_VALUES), by feature, or by
    feature/type; the most exact wins. Everything else is an error, except drift and skew: warn."""
    skew: Comparisons = Comparisons()
    """train against eval."""
    drift: Comparisons = Comparisons()
    """train against the training data of the model in production."""
    serving_environment: Name = "SERVING"
    """The schema environment in which the label is absent."""
    max_examples: PositiveInt = 5
    """Offending values that an anomaly shows."""
