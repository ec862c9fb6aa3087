"""What Prometheus is told of a window: figures of the record as gauges, with labels whose number is bounded.

A Pushgateway keeps one group of them a model, of the newest window; docs/monitoring-dashboards.md lists them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from components.monitoring_record import (
    GRAVITY,
    Distance,
    Estimate,
    FeatureFacts,
    MonitoringRecord,
    QualityFacts,
    VersionFacts,
)
from components.predictions import HIGHER_IS_BETTER
from components.settings import Monitoring, MonitoringRules

PREFIX = "lockgate_monitoring"
MOST_FEATURES = 100
"""Of more, those that are farthest from training."""
MOST_SLICES = 50
"""Of more, those with most rows."""
MOST_VERSIONS = 10
_LONGEST_LABEL = 120

_Sample = tuple[Sequence[str], float | None]


def registry_of(record: MonitoringRecord, settings: Monitoring) -> CollectorRegistry:
    """Gives the figures of a window.

    Args:
        record: of the window.
        settings: section `monitoring`; its limits are shown beside what was measured.
    """
    registry = CollectorRegistry()
    registry.register(
        _Figures([*_window(record), *_rows(record), *_features(record), *_quality(record), *_settings(settings)])
    )
    return registry


class _Figures:
    def __init__(self, families: Sequence[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._families


def _window(record: MonitoringRecord) -> Iterator[GaugeMetricFamily]:
    yield _family(
        *("info", "Which window and which version was judged, and by which metric; always 1"),
        *(("window", "version", "metric"), [((record.window, record.version, record.metric), 1.0)]),
    )
    verdicts = [((name,), float(name == record.verdict)) for name in GRAVITY]
    yield _family("verdict", "1: the verdict on the window; 0: the others", ("verdict",), verdicts)
    kinds = [((kind,), float(sum(f.kind == kind for f in record.findings))) for kind in MonitoringRules.model_fields]
    yield _family("findings", "What is not as it should be, by the rule that says so", ("kind",), kinds)
    yield _single("window_start_seconds", "Start of the window, in seconds since 1970", record.start.timestamp())
    yield _single("window_end_seconds", "End of the window, in seconds since 1970", record.end.timestamp())
    yield _single("judged_seconds", "When the window was judged, in seconds since 1970", record.created.timestamp())


def _rows(record: MonitoringRecord) -> Iterator[GaugeMetricFamily]:
    log = record.log
    yield _single("rows", "Rows that were read of the log", float(log.rows))
    yield _single("labelled_rows", "Rows whose label is known", float(record.labels.rows if record.labels else 0))
    left_out = {
        "duplicate": log.duplicates,
        "outside": log.outside,
        "without_time": log.without_time,
        "unanswered": log.unanswered,
        "malformed": log.malformed,
    }
    reasons = [((reason,), float(rows)) for reason, rows in left_out.items()]
    yield _family("left_out_rows", "Rows of the log that were not judged", ("reason",), reasons)
    yield _single("late_rows", "Rows that came after the window was judged before", float(log.late))
    yield _single("log_files", "Files of the log", float(log.files))
    yield _single("unreadable_files", "Files of the log that cannot be read", float(log.unreadable_files))
    last = log.last.timestamp() if log.last else None
    yield _single("last_row_seconds", "Time of the last row, in seconds since 1970", last)
    versions = record.versions[:MOST_VERSIONS]
    samples = [((one.version,), float(one.rows)) for one in versions]
    yield _family("version_rows", "Rows that a version answered", ("version",), samples)


def _features(record: MonitoringRecord) -> Iterator[GaugeMetricFamily]:
    features = _farthest(record)
    yield _single("features", "Features that were looked at", float(len(record.features)))
    distances = [
        (name, against, one)
        for name, feature in features
        for against, one in (("training", feature.skew), ("before", feature.drift))
        if one
    ]
    yield from _distances("distance", "a feature", "feature", distances)
    significant = [((name, against), float(one.significant)) for name, against, one in distances]
    yield _family("distance_significant", "1: it is not by chance", ("feature", "against"), significant)
    missing = [((name,), feature.missing.share.value) for name, feature in features]
    yield _family("missing_share", "Share of the rows without a value", ("feature",), missing)
    trained = [((name,), feature.missing.training) for name, feature in features]
    yield _family("missing_share_training", "The same in training", ("feature",), trained)
    new = [((name,), one.new_values.share.value) for name, one in features if one.new_values]
    yield _family("new_value_share", "Share of the rows with a category that training never saw", ("feature",), new)
    drifts = [(one.version, "before", one.drift) for one in record.versions[:MOST_VERSIONS] if one.drift]
    yield from _distances("prediction_distance", "the predictions of a version", "version", drifts)


def _distances(
    name: str, what: str, label: str, distances: Sequence[tuple[str, str, Distance]]
) -> Iterator[GaugeMetricFamily]:
    labels = (label, "against", "measure")
    values: list[_Sample] = []
    lows: list[_Sample] = []
    for subject, against, one in distances:
        for measure, estimate in (("jensen_shannon", one.jensen_shannon), ("l_infinity", one.l_infinity)):
            values.append(((subject, against, measure), estimate.value))
            lows.append(((subject, against, measure), estimate.low))
    yield _family(name, f"How far the distribution of {what} is from that of training or of before", labels, values)
    yield _family(f"{name}_low", "Lower end of its interval", labels, lows)


def _settings(settings: Monitoring) -> Iterator[GaugeMetricFamily]:
    limits = [((name,), value) for name, value in settings.limits.model_dump(exclude={"features"}).items()]
    yield _family("limit", "From where on a difference matters (monitoring.limits)", ("limit",), limits)
    delay = float(settings.delay)
    yield _single("label_delay_windows", "So many windows later a window is judged (monitoring.delay)", delay)


def _quality(record: MonitoringRecord) -> Iterator[GaugeMetricFamily]:
    measured = list(_measured(record))
    labels = ("metric", "slice", "version")
    values = [(key, one.value) for key, one in measured]
    yield _family("quality", "How right the model was on rows whose label is known", labels, values)
    yield _family("quality_low", "Lower end of its interval", labels, [(key, one.low) for key, one in measured])
    yield _family("quality_high", "Upper end of its interval", labels, [(key, one.high) for key, one in measured])
    judged = [one for one in (record.quality, *_largest(record)) if one]
    references = [((record.metric, one.name), one.reference) for one in judged]
    yield _family("quality_reference", "The same at evaluation", ("metric", "slice"), references)
    losses = [((record.metric, one.name), _loss(one, record.metric)) for one in judged]
    yield _family("quality_loss", "How much worse it is than at evaluation", ("metric", "slice"), losses)
    gap = record.calibration.gap if record.calibration else Estimate(value=None)
    yield _single("calibration_gap", "Mean prediction minus mean label", gap.value)
    yield _single("calibration_gap_low", "Lower end of its interval", gap.low)
    yield _single("calibration_gap_high", "Upper end of its interval", gap.high)


def _measured(record: MonitoringRecord) -> Iterator[tuple[tuple[str, str, str], Estimate]]:
    """Lists estimates of quality by metric, slice and version; of slices only the metric that is judged."""
    if record.quality:
        yield from (((metric, "", ""), one) for metric, one in record.quality.metrics.items())
    for version in record.versions[:MOST_VERSIONS]:
        yield from (((metric, "", version.version), one) for metric, one in _metrics(version))
    for one in _largest(record):
        if record.metric in one.metrics:
            yield (record.metric, one.name, ""), one.metrics[record.metric]


def _metrics(version: VersionFacts) -> Iterable[tuple[str, Estimate]]:
    return version.quality.metrics.items() if version.quality else ()


def _largest(record: MonitoringRecord) -> list[QualityFacts]:
    return sorted(record.slices, key=lambda one: (-one.rows, one.name))[:MOST_SLICES]


def _farthest(record: MonitoringRecord) -> list[tuple[str, FeatureFacts]]:
    """Gives the features that are farthest from training, in the order of the record."""

    def distance(name: str) -> float:
        skew = record.features[name].skew
        return (skew.jensen_shannon.value if skew else None) or 0.0

    kept = set(sorted(record.features, key=lambda name: (-distance(name), name))[:MOST_FEATURES])
    return [(name, one) for name, one in record.features.items() if name in kept]


def _loss(one: QualityFacts, metric: str) -> float | None:
    now = one.metrics[metric].value if metric in one.metrics else None
    if now is None or one.reference is None:
        return None
    return one.reference - now if metric in HIGHER_IS_BETTER else now - one.reference


def _single(name: str, help_text: str, value: float | None) -> GaugeMetricFamily:
    return _family(name, help_text, (), [((), value)])


def _family(name: str, help_text: str, labels: Sequence[str], samples: Sequence[_Sample]) -> GaugeMetricFamily:
    """Makes a metric; what is not known has no sample."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=labels)
    for values, figure in samples:
        if figure is not None:
            family.add_metric([_label(value) for value in values], figure)
    return family


def _label(value: str) -> str:
    """Shortens a value that comes from data, so that it stays itself."""
    if len(value) <= _LONGEST_LABEL:
        return value
    return f"{value[:_LONGEST_LABEL]}…{hashlib.sha256(value.encode()).hexdigest()[:8]}"
