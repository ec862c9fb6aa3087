"""What monitoring found out about one window: the record that stays, one JSON file a window.

Reports, dashboards and the loop that retrains read it; `format` rises when a field changes its meaning.
"""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components.profiles import ColumnProfile
from components.settings import Rule

Verdict = Literal["healthy", "watch", "retrain", "page"]
GRAVITY: tuple[Verdict, ...] = ("healthy", "watch", "retrain", "page")
"""From the least to the worst."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Estimate(_Record):
    """A figure with its confidence interval."""

    value: float | None
    """None: undefined on these rows."""
    low: float | None = None
    """None: no interval."""
    high: float | None = None


class Finding(_Record):
    """One thing that is not as it should be."""

    kind: str
    """As in monitoring.rules: skew, quality, …"""
    subject: str = ""
    """A feature, slice or version; empty: the rows as a whole."""
    detail: str
    """In words, with value and limit."""
    value: float | None = None
    limit: float | None = None
    rule: Rule
    """What it would mean, once confirmed."""
    verdict: Verdict
    """What it means now."""
    windows: int = 1
    """In so many windows in a row it was found, this one included."""
    examples: list[str] = []

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same finding in two windows."""
        return (self.kind, self.subject)


class LogFacts(_Record):
    """What was read of the log."""

    files: int
    unreadable: list[str]
    """At most 20 URIs."""
    unreadable_files: int
    rows: int
    duplicates: int
    outside: int
    without_time: int
    unanswered: int
    malformed: int
    late: int
    """Rows that have come since this window was judged before."""
    unfit: dict[str, int]
    """By column, values of another type."""
    unlogged: list[str]
    """Features that the log leaves out; not judged."""
    first: AwareDatetime | None
    """Time of the first row."""
    last: AwareDatetime | None


class LabelFacts(_Record):
    """What was read of the labels."""

    source: str
    rows: int
    """Of the log, with a label."""
    files: int
    unreadable_files: int
    absent_spans: list[str]
    contradictory: int
    unused: int
    """Rows whose label is none that the model knows."""


class Distance(_Record):
    """How far two distributions are apart."""

    against: str
    """training, or the windows before."""
    rows: int
    """With a value, of what is compared with."""
    jensen_shannon: Estimate
    """Base 2, 0 to 1; the bias that few rows cause is taken out."""
    l_infinity: Estimate
    """Of categories; of numbers, of their bins."""
    p_value: float
    """Of the chi-squared test that both are the same."""
    significant: bool
    """After the correction for the number of tests."""


class MissingFacts(_Record):
    """The share of missing values."""

    share: Estimate
    training: float
    p_value: float
    significant: bool


class NewValueFacts(_Record):
    """Categories that training never saw."""

    share: Estimate
    examples: list[str]


class FeatureFacts(_Record):
    """One feature of the window."""

    profile: ColumnProfile
    """Counted over the bins or values of the training data."""
    missing: MissingFacts
    skew: Distance | None
    """From training; None: not judged."""
    drift: Distance | None
    """From the windows before; None: there are none that can be compared."""
    new_values: NewValueFacts | None
    """None: a number, or a category with too many values."""


class QualityFacts(_Record):
    """How right a group of rows was."""

    name: str
    """e.g. carrier=UA; empty: all rows."""
    rows: int
    """With a label."""
    metrics: dict[str, Estimate]
    reference: float | None = None
    """The metric that is judged, at evaluation; None: unknown."""


class CalibrationFacts(_Record):
    """Whether predictions are as large as what comes true."""

    gap: Estimate
    """Mean prediction minus mean label: of probabilities (binary), of confidence and hits (multiclass), of numbers in
    standard deviations of the label (regression)."""


class VersionFacts(_Record):
    """The rows that one version of the model answered."""

    version: str
    rows: int
    known: bool
    """Whether it is in the model store."""
    predictions: ColumnProfile
    drift: Distance | None
    """From its own predictions in the windows before."""
    quality: QualityFacts | None
    """None: too few labels."""


class MonitoringRecord(_Record):
    """All about one window."""

    format: Literal[1] = 1
    project: str
    window: str
    start: AwareDatetime
    end: AwareDatetime
    created: AwareDatetime
    verdict: Verdict
    reason: str
    """One line."""
    evidence: str
    """Names the model and the findings that the verdict rests on (hex): the same for the same evidence."""
    model: str
    """URI of the version that most rows are of; empty: none is known."""
    version: str
    log: LogFacts
    labels: LabelFacts | None
    """None: not looked for, as there are no rows."""
    features: dict[str, FeatureFacts]
    versions: list[VersionFacts]
    """The one with most rows first."""
    metric: str
    """Which quality is judged by."""
    quality: QualityFacts | None
    """Of all rows; None: too few labels."""
    calibration: CalibrationFacts | None
    slices: list[QualityFacts]
    findings: list[Finding]
    """The gravest first."""
    notes: list[str]
    """What could not be judged, and why."""

    def scalars(self) -> dict[str, float]:
        """Lists figures, as KFP shows them."""
        figures: dict[str, float] = {
            "verdict": float(GRAVITY.index(self.verdict)),
            "rows": float(self.log.rows),
            "labelled_rows": float(self.labels.rows if self.labels else 0),
            "findings": float(len(self.findings)),
        }
        if self.quality:
            figures |= {name: one.value for name, one in self.quality.metrics.items() if one.value is not None}
        for name, feature in self.features.items():
            if feature.skew and feature.skew.jensen_shannon.value is not None:
                figures[f"skew/{name}"] = feature.skew.jensen_shannon.value
        return figures
