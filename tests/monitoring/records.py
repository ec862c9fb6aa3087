"""A record of a window as monitoring writes it, with something of everything."""

from datetime import UTC, datetime, timedelta
from typing import Any

from components.monitoring_record import (
    CalibrationFacts,
    Distance,
    Estimate,
    FeatureFacts,
    Finding,
    LabelFacts,
    LogFacts,
    MissingFacts,
    MonitoringRecord,
    NewValueFacts,
    QualityFacts,
    VersionFacts,
)
from components.profiles import CategoryProfile, NumberProfile

STABLE, CANARY = "v0001-00000001", "v0002-00000002"
NUMBERS = NumberProfile(edges=[1.0], counts=[3, 4])


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01)


def distance(value: float, against: str = "training") -> Distance:
    return Distance(
        against=against,
        rows=20_000,
        jensen_shannon=estimate(value),
        l_infinity=estimate(value / 2),
        p_value=0.001,
        significant=value > 0.05,
    )


def feature(name: str, skew: float) -> FeatureFacts:
    return FeatureFacts(
        profile=CategoryProfile(values=["UA"], counts=[7], complete=True) if name == "carrier" else NUMBERS,
        missing=MissingFacts(share=estimate(0.2), training=0.15, p_value=0.2, significant=False),
        skew=distance(skew),
        drift=distance(skew / 4, "2013-09"),
        new_values=NewValueFacts(share=estimate(0.03), examples=["Bitcoin"]) if name == "carrier" else None,
    )


def quality(name: str, auc: float, reference: float | None) -> QualityFacts:
    metrics = {"auc": estimate(auc), "log_loss": estimate(0.5), "recall": Estimate(value=None)}
    return QualityFacts(name=name, rows=5000, metrics=metrics, reference=reference)


def version(name: str, rows: int) -> VersionFacts:
    drift = distance(0.02, "2013-09")
    return VersionFacts(
        version=name, rows=rows, known=True, predictions=NUMBERS, drift=drift, quality=quality("", 0.7, None)
    )


def record(**changes: Any) -> MonitoringRecord:
    """October 2013, which is worse than evaluation was."""
    start, end = datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 11, 1, tzinfo=UTC)
    log = LogFacts(
        files=12,
        unreadable=["s3://log/damaged.parquet"],
        unreadable_files=1,
        rows=28_000,
        duplicates=20,
        outside=3,
        without_time=2,
        unanswered=5,
        malformed=1,
        late=40,
        unfit={},
        unlogged=[],
        first=start,
        last=end - timedelta(hours=2),
    )
    finding = Finding(kind="quality", detail="auc 0.70", value=0.06, limit=0.02, rule="retrain", verdict="retrain")
    given: dict[str, Any] = {
        "project": "flights",
        "window": "2013-10",
        "start": start,
        "end": end,
        "created": end + timedelta(hours=1),
        "verdict": "retrain",
        "reason": "quality: auc 0.70",
        "evidence": "0123456789abcdef",
        "model": f"s3://models/flights/versions/{STABLE}",
        "version": STABLE,
        "log": log,
        "labels": LabelFacts(
            source="s3://data/{YYYY}-{MM}.csv",
            rows=27_000,
            files=1,
            unreadable_files=0,
            absent_spans=[],
            contradictory=0,
            unused=0,
        ),
        "features": {"distance": feature("distance", 0.3), "carrier": feature("carrier", 0.02)},
        "versions": [version(STABLE, 27_000), version(CANARY, 1_000)],
        "metric": "auc",
        "quality": quality("", 0.70, 0.76),
        "calibration": CalibrationFacts(gap=estimate(0.04)),
        "slices": [quality("carrier=UA", 0.6, 0.75), quality('origin="JFK"\n, carrier=é\\', 0.8, None)],
        "findings": [finding],
        "notes": [],
    }
    return MonitoringRecord.model_validate({**given, **changes})


def window(start: datetime, days: float, **changes: Any) -> MonitoringRecord:
    """A window of some days."""
    end = start + timedelta(days=days)
    log = record().log.model_copy(update={"first": start, "last": end - timedelta(hours=1)})
    return record(**{"window": f"{start:%Y-%m-%d}", "start": start, "end": end, "created": end, "log": log, **changes})
