"""The report: one page on one window, with small pictures of the windows before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.monitoring_record import Distance, Estimate, MonitoringRecord, QualityFacts
from components.predictions import HIGHER_IS_BETTER
from components.profiles import CategoryProfile, ColumnProfile, Profile, cells
from components.reports import render

_MOST_WINDOWS = 24
_MOST_FEATURES = 60
_MOST_PICTURES = 12
_MOST_SLICES = 60
_CATEGORIES = 10


@dataclass(frozen=True)
class Point:
    """A figure in one window."""

    window: str
    x: float
    """0 to 1."""
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Course:
    """A figure over the windows."""

    title: str
    points: Sequence[Point]
    bottom: float
    top: float
    limit: float | None = None
    """Drawn as a line."""
    limit_text: str = ""

    @property
    def known(self) -> Sequence[Point]:
        """Where there is a figure."""
        return [point for point in self.points if point.value is not None]

    def at(self, value: float) -> float:
        """Gives a height from 0, the bottom, to 1."""
        spread = self.top - self.bottom
        return (min(max(value, self.bottom), self.top) - self.bottom) / spread if spread else 0.5


def page(record: MonitoringRecord, before: Sequence[MonitoringRecord], training: Profile | None) -> str:
    """Renders the report of a window.

    Args:
        record: of the window.
        before: records of the windows before, the earliest first.
        training: counts of the training data; None: not known.
    """
    records = [*before, record][-_MOST_WINDOWS:]
    features = sorted(record.features.items(), key=lambda one: -_distance(one[1].skew))
    return render(
        Path(__file__).with_name("report.html.jinja"),
        record=record,
        colour={"healthy": "pass", "watch": "warn", "retrain": "fail", "page": "fail"},
        courses=_courses(records, record),
        skews=[_skew_course(records, name) for name, one in features[:_MOST_PICTURES] if one.skew],
        windows=[one.window for one in records],
        higher=record.metric in HIGHER_IS_BETTER,
        features=features[:_MOST_FEATURES],
        features_left=len(features[_MOST_FEATURES:]),
        pictures=[
            {"name": name, **_picture(one.profile, training.columns[name])}
            for name, one in features[:_MOST_FEATURES]
            if training and name in training.columns
        ],
        predictions=_predictions(record),
        slices=_worst(record)[:_MOST_SLICES],
        slices_left=len(record.slices[_MOST_SLICES:]),
    )


def _distance(one: Distance | None) -> float:
    return one.jensen_shannon.value or 0.0 if one else -1.0


def _courses(records: Sequence[MonitoringRecord], record: MonitoringRecord) -> list[Course]:
    metric = record.metric
    reference = record.quality.reference if record.quality else None
    at_evaluation = f"at evaluation {reference:.4g}" if reference is not None else ""
    return [
        _course("rows", records, lambda one: Estimate(value=float(one.log.rows)), from_zero=True),
        _course(
            "rows with a label",
            records,
            lambda one: Estimate(value=one.labels.rows / one.log.rows if one.labels and one.log.rows else None),
            from_zero=True,
        ),
        _course(
            metric,
            records,
            lambda one: one.quality.metrics.get(metric) if one.quality else None,
            limit=reference,
            limit_text=at_evaluation,
        ),
        _course(
            "prediction minus outcome",
            records,
            lambda one: one.calibration.gap if one.calibration else None,
            limit=0.0,
        ),
    ]


def _skew_course(records: Sequence[MonitoringRecord], name: str) -> Course:
    def skew(record: MonitoringRecord) -> Estimate | None:
        feature = record.features.get(name)
        return feature.skew.jensen_shannon if feature and feature.skew else None

    return _course(name, records, skew, from_zero=True)


def _course(
    title: str,
    records: Sequence[MonitoringRecord],
    figure: Callable[[MonitoringRecord], Estimate | None],
    from_zero: bool = False,
    limit: float | None = None,
    limit_text: str = "",
) -> Course:
    points = []
    for index, record in enumerate(records):
        one = figure(record) or Estimate(value=None)
        x = index / (len(records) - 1) if len(records) > 1 else 0.5
        points.append(Point(record.window, x, one.value, one.low, one.high))
    numbers = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    numbers += [limit] if limit is not None else []
    bottom = 0.0 if from_zero else min(numbers, default=0.0)
    return Course(title, points, bottom, max(numbers, default=1.0), limit, limit_text)


def _picture(now: ColumnProfile, then: ColumnProfile) -> dict[str, Any]:
    """Gives the shares of a feature's values, now and in training, as the macro `bars` takes them."""
    one, other = (np.array(cells(profile), np.float64) for profile in (now, then))
    shares = [counts / max(counts.sum(), 1) for counts in (other, one)]
    if isinstance(now, CategoryProfile):
        names = [*now.values, "others"]
        shown = np.argsort(-np.maximum(*shares), kind="stable")[:_CATEGORIES]
        shares = [part[shown] for part in shares]
        labels = [names[index] for index in shown]
    else:
        labels = [f"≤ {now.edges[0]:.4g}", f"> {now.edges[-1]:.4g}"] if now.edges else []
    names = ["training", "window"]
    return {
        "series": [{"name": name, "heights": part.tolist()} for name, part in zip(names, shares, strict=True)],
        "labels": labels,
    }


def _predictions(record: MonitoringRecord) -> dict[str, Any] | None:
    """Gives the shares of the predictions of up to three versions, as the macro `bars` takes them."""
    shown = [one for one in record.versions if sum(cells(one.predictions))][:3]
    if not shown:
        return None
    series = []
    for one in shown:
        counts = np.array(cells(one.predictions), np.float64)
        series.append({"name": one.version or "unknown version", "heights": (counts / counts.sum()).tolist()})
    first = shown[0].predictions
    if isinstance(first, CategoryProfile):
        labels = [*first.values, "others"]
    else:
        labels = [f"≤ {first.edges[0]:.4g}", f"> {first.edges[-1]:.4g}"] if first.edges else []
    return {"series": series, "labels": labels}


def _worst(record: MonitoringRecord) -> list[QualityFacts]:
    """Sorts slices by how much worse they are than at evaluation."""
    sign = 1 if record.metric in HIGHER_IS_BETTER else -1

    def worse(one: QualityFacts) -> float:
        value = one.metrics[record.metric].value
        return sign * (value - one.reference) if value is not None and one.reference is not None else float("inf")

    return sorted(record.slices, key=lambda one: (worse(one), one.name))
