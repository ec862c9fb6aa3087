"""What is not as it should be: each rule of monitoring.rules, held against the facts of a window."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from components.data_statistics.findings import percent
from components.monitor_model.conformity import Anomaly
from components.monitor_model.quality import loss
from components.monitor_model.reference import Reference
from components.monitoring_record import (
    CalibrationFacts,
    Distance,
    Estimate,
    FeatureFacts,
    LogFacts,
    MonitoringRecord,
    QualityFacts,
    VersionFacts,
)
from components.prediction_log.windows import Window
from components.settings import FeatureLimits, Monitoring, Rule

_FEWEST_WINDOWS = 3
"""Before volume is judged."""


@dataclass(frozen=True)
class Suspicion:
    """A finding that is not yet confirmed by other windows."""

    kind: str
    subject: str
    detail: str
    value: float | None = None
    limit: float | None = None
    examples: list[str] = field(default_factory=list)
    softened: bool = False
    """It is watched at most."""


@dataclass(frozen=True)
class Facts:
    """All that rules look at."""

    window: Window
    log: LogFacts
    anomalies: Sequence[Anomaly]
    features: Mapping[str, FeatureFacts]
    versions: Sequence[VersionFacts]
    reference: Reference
    newest: str
    """Of the versions in the window that are known."""
    metric: str
    quality: QualityFacts | None
    """Of the version that is judged."""
    calibration: CalibrationFacts | None
    slices: Sequence[QualityFacts]
    before: Sequence[MonitoringRecord]


def suspicions(facts: Facts, monitoring: Monitoring) -> list[Suspicion]:
    """Lists what is not as it should be; without what is to be ignored."""
    found = [
        *_traffic(facts, monitoring),
        *_anomalies(facts, monitoring),
        *feature_suspicions(facts.features, monitoring),
        *_predictions(facts, monitoring),
        *_quality(facts, monitoring),
    ]
    return [one for one in found if rule_of(one.kind, monitoring) != "ignore"]


def rule_of(kind: str, monitoring: Monitoring) -> Rule:
    """Gives what a kind of finding means."""
    rule: Rule = getattr(monitoring.rules, kind)
    return rule


def _traffic(facts: Facts, monitoring: Monitoring) -> Iterator[Suspicion]:
    log, limits = facts.log, monitoring.limits
    earlier = [record.log.rows for record in facts.before]
    if log.unreadable_files:
        detail = f"{log.unreadable_files:,} of {log.files:,} files of the log cannot be read"
        yield Suspicion("unreadable", "", detail, float(log.unreadable_files), 0.0, log.unreadable[:5])
    if not log.rows:
        if earlier and earlier[-1]:
            detail = f"no row was logged, in the window before {earlier[-1]:,} were"
            yield Suspicion("no_rows", "", detail, 0.0, 1.0)
        return
    if len(earlier) >= _FEWEST_WINDOWS and (usual := median(earlier)) > 0:
        ratio = log.rows / usual
        if ratio > limits.volume or ratio < 1 / limits.volume:
            detail = f"{log.rows:,} rows, usually {usual:,.0f} (allowed: a factor of {limits.volume:g})"
            yield Suspicion("volume", "", detail, ratio, limits.volume)
    if log.last is not None:
        silent = (facts.window.end - log.last).total_seconds() / facts.window.seconds
        if silent > limits.silence:
            detail = f"no row since {log.last:%Y-%m-%d %H:%M}, {percent(silent)} of the window"
            yield Suspicion("silence", "", f"{detail} (allowed: {percent(limits.silence)})", silent, limits.silence)


def _anomalies(facts: Facts, monitoring: Monitoring) -> Iterator[Suspicion]:
    rows = max(facts.log.rows, 1)
    for one in facts.anomalies:
        if one.certain_share > monitoring.max_anomaly_share:
            yield Suspicion(
                *("anomaly", one.feature, one.detail, one.share, monitoring.max_anomaly_share, one.examples),
                softened=one.warns_only,
            )
    for name, count in facts.log.unfit.items():
        if count / rows > monitoring.max_anomaly_share:
            detail = f"{percent(min(1.0, count / rows))} of values are of another type (fix what writes the log)"
            yield Suspicion("anomaly", name, detail, count / rows, monitoring.max_anomaly_share)


def feature_suspicions(features: Mapping[str, FeatureFacts], monitoring: Monitoring) -> Iterator[Suspicion]:
    """Yields what is not as it should be in features; their facts alone decide."""
    limits = monitoring.limits
    skewed = []
    for name, one in features.items():
        own = limits.features.get(name, FeatureLimits())
        js = _first(own.jensen_shannon, limits.jensen_shannon)
        largest = _first(own.l_infinity, limits.l_infinity) if one.profile.kind == "category" else 1.0
        for kind, apart in (("skew", one.skew), ("drift", one.drift)):
            found = _apart(kind, name, apart, js, largest)
            if found:
                skewed += [name] if kind == "skew" else []
                yield found
        yield from _missing(name, one, _first(own.missing, limits.missing))
        if one.new_values and one.new_values.share.low is not None:
            limit = _first(own.new_values, limits.new_values)
            if one.new_values.share.low > limit:
                detail = f"{_share(one.new_values.share)} of rows have values that training never saw"
                detail += f" (allowed: {percent(limit)})"
                yield Suspicion("new_values", name, detail, one.new_values.share.value, limit, one.new_values.examples)
    judged = sum(one.skew is not None for one in features.values())
    if judged and len(skewed) / judged >= limits.drifted_features:
        detail = f"{len(skewed)} of {judged} features are not as in training: {', '.join(skewed[:5])}"
        detail += ", …" if len(skewed) > 5 else ""
        yield Suspicion("data_skew", "", detail, len(skewed) / judged, limits.drifted_features)


def _apart(kind: str, name: str, apart: Distance | None, js: float, largest: float) -> Suspicion | None:
    if apart is None or not apart.significant:
        return None
    for label, one, limit in (
        ("Jensen-Shannon divergence", apart.jensen_shannon, js),
        ("largest difference of one value's share", apart.l_infinity, largest),
    ):
        if one.value is not None and limit < 1 and one.value > limit:
            interval = f"{one.low:.3g} to {one.high:.3g}"
            detail = f"{label} {one.value:.3g} ({interval}) from {apart.against} (allowed: {limit:g})"
            return Suspicion(kind, name, detail, one.value, limit)
    return None


def _missing(name: str, one: FeatureFacts, limit: float) -> Iterator[Suspicion]:
    share = one.missing.share.value
    if share is None or not one.missing.significant:
        return
    change = share - one.missing.training
    if abs(change) > limit:
        detail = f"{_share(one.missing.share)} of values are missing, in training {percent(one.missing.training)} were"
        yield Suspicion("missing", name, f"{detail} (allowed: {100 * limit:g} points more or less)", change, limit)


def _predictions(facts: Facts, monitoring: Monitoring) -> Iterator[Suspicion]:
    for one in facts.versions:
        found = _apart("prediction_drift", one.version, one.drift, monitoring.limits.prediction, 1.0)
        if found:
            yield found


def _quality(facts: Facts, monitoring: Monitoring) -> Iterator[Suspicion]:
    limit, metric = monitoring.limits.quality, facts.metric
    if facts.quality:
        now, then = facts.quality.metrics[metric], facts.reference.quality(metric)
        worse = loss(then, now, metric)
        if worse and worse[1] > limit:
            detail = f"{metric} {_figure(now)}, at evaluation {_figure(then)} (allowed: worse by {limit:g})"
            yield Suspicion("quality", "", detail, now.value, then.value)
    if facts.calibration and facts.quality:
        gap = facts.calibration.gap
        bound = monitoring.limits.calibration
        assert gap.value is not None
        assert gap.low is not None
        assert gap.high is not None
        if gap.low > bound or gap.high < -bound:
            detail = f"predictions are {_figure(gap, '+')} above what came true on average (allowed: ±{bound:g})"
            yield Suspicion("calibration", "", detail, gap.value, bound)
    for one in facts.slices:
        if one.reference is None:
            continue
        now = one.metrics[metric]
        # The interval at evaluation is not known; it is about as wide.
        reach = (now.high - now.low) / 2 if now.low is not None and now.high is not None else 0.0
        then = Estimate(value=one.reference, low=one.reference - reach, high=one.reference + reach)
        worse = loss(then, now, metric)
        if worse and worse[1] > limit:
            detail = f"{metric} {_figure(now)}, at evaluation {one.reference:.4g} (allowed: worse by {limit:g})"
            yield Suspicion("slice_quality", one.name, detail, now.value, one.reference)
    yield from _canary(facts, limit)


def _canary(facts: Facts, limit: float) -> Iterator[Suspicion]:
    """Compares the newest version in service with the one that answers most of the other rows."""
    measured = [one for one in facts.versions if one.known and one.quality]
    newest = next((one for one in measured if one.version == facts.newest), None)
    other = next((one for one in measured if one.version != facts.newest), None)
    if not newest or not other or not newest.quality or not other.quality:
        return
    now, then = newest.quality.metrics[facts.metric], other.quality.metrics[facts.metric]
    worse = loss(then, now, facts.metric)
    if worse and worse[1] > limit:
        detail = f"{facts.metric} {_figure(now)}, of {other.version} {_figure(then)} (allowed: worse by {limit:g})"
        yield Suspicion("canary", newest.version, detail, now.value, then.value)


def _first(own: float | None, general: float) -> float:
    return general if own is None else own


def _share(one: Estimate) -> str:
    return percent(one.value or 0.0)


def _figure(one: Estimate, sign: str = "") -> str:
    value = f"{one.value:{sign}.4g}"
    return value if one.low is None or one.high is None else f"{value} ({one.low:{sign}.4g} to {one.high:{sign}.4g})"
