"""The report: one self-contained page."""

from pathlib import Path
from typing import Literal

from components.artifacts import BATCH, write_whole
from components.data_statistics.findings import percent
from components.reports import render
from components.schema import columns
from components.settings import Task
from components.validate_data.anomalies import Anomaly, Verdict
from components.validate_data.comparisons import Distance
from components.validate_data.distributions import distributions
from components.validate_data.inspection import Inspection

_MOST_COLUMNS = 150
_MOST_DISTANCES = 30


def write_page(path: Path, found: Inspection, verdict: Verdict, task: Task, production_model: str) -> None:
    """Writes the report, whole or not at all."""
    summaries = list(found.summaries.values())
    names = list(dict.fromkeys(name for summary in summaries for name in summary.split.columns.names))
    names.sort(key=lambda name: _place(name, task.label, found.anomalies))
    times = [name for name, column in columns(found.schema).items() if column.is_time]
    html = render(
        Path(__file__).with_name("report.html.jinja"),
        verdict=verdict,
        label=task.label,
        is_batch=BATCH in found.summaries,
        production_model=production_model,
        splits=[{"name": summary.split.name, "rows": summary.split.rows} for summary in summaries],
        column_count=len(names),
        anomalies=found.anomalies,
        errors=sum(one.severity == "error" for one in found.anomalies),
        severities={one.feature: one.severity for one in reversed(found.anomalies)},
        distances=_table(found.distances),
        percent=percent,
        against=[one for one in ("eval", "production") if any(d.against == one for d in found.distances)],
        distributions=distributions(summaries, times, names[:_MOST_COLUMNS]),
    )
    write_whole(path, html)


def _place(name: str, label: str | None, anomalies: list[Anomaly]) -> tuple[int, int]:
    """Puts the label first, then the columns with anomalies, the worst first; the others stay in order."""
    worst = next((i for i, one in enumerate(anomalies) if one.feature == name), len(anomalies))
    return (name != label, worst)


def _table(distances: list[Distance]) -> list[dict[str, object]]:
    """Gives a row a feature, the largest excess over its limit first."""
    rows: dict[str, dict[tuple[str, str], Distance]] = {}
    for one in distances:
        rows.setdefault(one.feature, {})[one.against, one.measure] = one
    ordered = sorted(rows.items(), key=lambda row: -max(_weight(one) for one in row[1].values()))
    measures: tuple[Literal["l_infinity", "jensen_shannon"], ...] = ("jensen_shannon", "l_infinity")
    return [
        {
            "feature": feature,
            "cells": {
                against: [by_kind.get((against, measure)) for measure in measures] for against in ("eval", "production")
            },
        }
        for feature, by_kind in ordered[:_MOST_DISTANCES]
    ]


def _weight(one: Distance) -> float:
    exceeded = one.limit is not None and one.value > one.limit
    return one.value + exceeded
