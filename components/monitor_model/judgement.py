"""The judgement of a window whose rows are on the local disk: facts, findings, verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from components.monitor_model.conformity import Anomaly, find_anomalies, logged_schema
from components.monitor_model.features import compare, single_distance
from components.monitor_model.findings import Facts, suspicions
from components.monitor_model.observation import PREDICTION, Observation, observe
from components.monitor_model.quality import Quality
from components.monitor_model.reference import Reference, References
from components.monitor_model.sections import Settings
from components.monitor_model.spool import Spool
from components.monitor_model.verdict import evidence, judge, overall, reason
from components.monitoring_record import (
    CalibrationFacts,
    FeatureFacts,
    LabelFacts,
    LogFacts,
    MonitoringRecord,
    QualityFacts,
    VersionFacts,
)
from components.prediction_log.labels import LabelTable
from components.prediction_log.windows import Window
from components.settings import lead_metric
from components.slices import partitions

_MOST_SLICES = 500
_LISTED = 20


@dataclass(frozen=True)
class Case:
    """What is to be judged, and by what."""

    project: str
    window: Window
    settings: Settings
    references: References
    reference: Reference
    """The version that most rows are of."""
    spool: Spool
    log: LogFacts
    labels: tuple[LabelTable, Sequence[str]] | None
    """And the columns of the log by which they are found; None: there are none."""
    before: Sequence[MonitoringRecord]
    """Records of the windows before, the earliest first."""

    @property
    def metric(self) -> str:
        """By which quality is judged."""
        return self.settings.monitoring.metric or lead_metric(self.settings.task)


@dataclass
class _Assessment:
    """The facts about the rows; without rows there are none."""

    anomalies: Sequence[Anomaly] = ()
    features: Mapping[str, FeatureFacts] = field(default_factory=dict)
    versions: Sequence[VersionFacts] = ()
    labels: LabelFacts | None = None
    quality: QualityFacts | None = None
    """Of all rows."""
    own_quality: QualityFacts | None = None
    """Of the version that is judged."""
    calibration: CalibrationFacts | None = None
    slices: Sequence[QualityFacts] = ()
    notes: list[str] = field(default_factory=list)


def judge_window(case: Case) -> MonitoringRecord:
    """Judges a window."""
    found = _assess(case) if case.spool.rows else _Assessment(notes=["no row was logged"])
    known = [one.version for one in found.versions if one.known] or [case.reference.version]
    facts = Facts(
        window=case.window,
        log=case.log,
        anomalies=found.anomalies,
        features=found.features,
        versions=found.versions,
        reference=case.reference,
        newest=case.references.newer(known),
        metric=case.metric,
        quality=found.own_quality,
        calibration=found.calibration,
        slices=found.slices,
        before=case.before,
    )
    monitoring = case.settings.monitoring
    findings = judge(suspicions(facts, monitoring), case.before, monitoring)
    verdict = overall(findings)
    labelled = found.labels.rows if found.labels else 0
    return MonitoringRecord(
        project=case.project,
        window=case.window.name,
        start=case.window.start,
        end=case.window.end,
        created=datetime.now(UTC),
        verdict=verdict,
        reason=reason(findings, case.log.rows, labelled, found.notes),
        evidence=evidence(case.reference.version, case.window.name, findings, verdict),
        model=case.reference.uri,
        version=case.reference.version,
        log=case.log,
        labels=found.labels,
        features=dict(found.features),
        versions=list(found.versions),
        metric=case.metric,
        quality=found.quality,
        calibration=found.calibration,
        slices=list(found.slices),
        findings=findings,
        notes=found.notes,
    )


def _assess(case: Case) -> _Assessment:
    """Reads the rows, and finds out all about them."""
    names = [name for name in case.spool.form.features if name not in case.log.unlogged]
    schema = logged_schema(case.reference.schema, names)
    wanted, left_out = _slices(case, names)
    seen = observe(
        spool=case.spool,
        reference=case.reference,
        schema=schema,
        names=names,
        labels=case.labels[0] if case.labels else None,
        key=case.labels[1] if case.labels else [],
        slices=list(dict.fromkeys(name for group in wanted for name in group)),
    )
    found = _Assessment(notes=_notes(case, seen, left_out))
    found.anomalies = find_anomalies(seen.statistics, case.spool, case.spool.rows, schema, case.settings.validation)
    monitoring = case.settings.monitoring
    if seen.profile and case.reference.profile:
        recent = case.before[-monitoring.compare_windows :]
        found.features = compare(
            window=seen.profile,
            unknown_values=seen.unknown_values,
            training=case.reference.profile,
            before=[{name: one.profile for name, one in record.features.items()} for record in recent],
            windows=_named(recent),
            min_rows=monitoring.min_rows,
            error_rate=monitoring.error_rate,
        )
    quality = _quality(case, seen)
    _add_quality(case, found, quality, wanted)
    found.versions = _versions(case, seen, quality)
    if case.labels:
        found.labels = _label_facts(case, seen)
    return found


def _slices(case: Case, names: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Gives the slices whose columns are logged, and the columns that are not."""
    there = {*names, *case.spool.form.keys}
    configured = case.settings.evaluation.slices
    wanted = [list(group) for group in configured if there.issuperset(group)]
    return wanted, sorted({name for group in configured for name in group} - there)


def _notes(case: Case, seen: Observation, left_out: Sequence[str]) -> list[str]:
    """Says what could not be judged."""
    notes = []
    rows, least = case.spool.rows, case.settings.monitoring.min_rows
    if rows < least:
        notes.append(f"{rows:,} rows are too few to compare (needed: {least:,})")
    if seen.profile is None:
        notes.append(f"{case.reference.version} was published without a profile: train again to have it compared")
    if case.log.unlogged:
        notes.append(f"not logged, so not judged: {', '.join(case.log.unlogged[:_LISTED])}")
    if left_out:
        notes.append(f"not logged, so no slices by them: {', '.join(left_out[:_LISTED])}")
    if case.labels is None:
        notes.append("no labels: they are found in files, by data.key or a request's id; see monitoring.labels")
    elif len(seen.labelled) < least:
        absent = case.labels[0].counts.absent_spans
        spans = f", spans that are not there yet: {', '.join(absent[:5])}" if absent else ""
        notes.append(
            f"{len(seen.labelled):,} rows with a label are too few to judge quality (needed: {least:,}{spans})"
        )
    unknown = rows - sum(count for version, count in case.spool.versions.items() if version in case.references)
    if unknown:
        notes.append(f"{unknown:,} rows are of versions that the model store does not have")
    return notes


def _named(records: Sequence[MonitoringRecord]) -> str:
    return ", ".join(record.window for record in records) or "windows before"


# ----------------------------------------------------------------------------------------------------- quality


def _quality(case: Case, seen: Observation) -> Quality | None:
    """Prepares the labelled rows; None: too few."""
    if len(seen.labelled) < case.settings.monitoring.min_rows:
        return None
    card = case.reference.card
    threshold = card.evaluation.decision_threshold
    return Quality(
        seen.labelled,
        case.settings.task,
        case.reference.spec.label.classes,
        0.5 if threshold is None else threshold,
        case.settings.evaluation.quantile,
        case.settings.monitoring.bootstrap,
    )


def _add_quality(case: Case, found: _Assessment, quality: Quality | None, slices: Sequence[Sequence[str]]) -> None:
    if quality is None:
        return
    reference, metric = case.reference, case.metric
    then = reference.quality(metric).value
    found.quality = quality.all_rows().model_copy(update={"reference": then})
    own = quality.of_version(reference.version)
    if own.sum() >= case.settings.monitoring.min_rows:
        found.own_quality = quality.measure(own, reference.version).model_copy(update={"reference": then})
    elif not own.any():
        # The log tells no version, or none that is known: all rows are judged as its.
        found.own_quality = found.quality
    found.calibration = quality.calibration()
    measured = [
        one
        for partition in partitions(quality.table(), slices)
        for one in quality.slices(partition, case.settings.evaluation.min_slice_rows)
    ]
    found.slices = [
        one.model_copy(update={"reference": reference.slice_quality(one.name, metric)})
        for one in measured[:_MOST_SLICES]
    ]


def _versions(case: Case, seen: Observation, quality: Quality | None) -> list[VersionFacts]:
    """Describes what each version answered, that with most rows first."""
    monitoring = case.settings.monitoring
    facts = []
    for version, profile in sorted(seen.predictions.items(), key=lambda one: (-one[1].rows, one[0])):
        own = profile.columns[PREDICTION]
        recent = case.before[-monitoring.compare_windows :]
        earlier = [one.predictions for record in recent for one in record.versions if one.version == version]
        of_version = None
        if quality is not None and (rows := quality.of_version(version)).sum() >= monitoring.min_rows:
            of_version = quality.measure(rows, version)
        facts.append(
            VersionFacts(
                version=version,
                rows=profile.rows,
                known=version in case.references,
                predictions=own,
                drift=single_distance(own, earlier, _named(recent), monitoring.min_rows, monitoring.error_rate),
                quality=of_version,
            )
        )
    return facts


def _label_facts(case: Case, seen: Observation) -> LabelFacts:
    assert case.labels
    counts = case.labels[0].counts
    return LabelFacts(
        source=case.settings.monitoring.labels.source or case.settings.data.source,
        rows=len(seen.labelled),
        files=counts.files,
        unreadable_files=len(counts.unreadable),
        absent_spans=counts.absent_spans[:_LISTED],
        contradictory=counts.contradictory,
        unused=seen.unused_labels,
    )
