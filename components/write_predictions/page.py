"""The report: one self-contained page."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.artifacts import write_whole
from components.reports import render
from components.settings import Task
from components.write_predictions.record import Distribution
from components.write_predictions.rows import REASONS, Predictions
from components.write_predictions.survey import Survey

_SHOWN = 60
_MOST_CLASSES = 12
_MOST_COLUMNS = 12


def write_page(
    path: Path,
    seen: Survey,
    spans: list[str],
    verdict: str,
    reason: str,
    place: str,
    versions: dict[str, str],
    task: Task,
    found: Predictions,
) -> None:
    """Writes the report, whole or not at all."""
    html = render(
        Path(__file__).with_name("report.html.jinja"),
        verdict=verdict,
        reason=reason,
        place=place,
        label=task.label,
        spans=spans,
        versions=versions,
        seen=seen,
        chart=_chart(seen),
        models=_models(seen, versions),
        examples=_table(seen.examples, ["reason", "row"]),
        top=_top(seen.top, found),
        segments=[{"columns": one.columns, "rows": one.largest()} for one in seen.segments],
    )
    write_whole(path, html)


def _chart(seen: Survey) -> dict[str, Any] | None:
    """Gives the bars of this span, of the one before and of the challengers, where they compare."""
    here = seen.distributions[""]
    others = {name: one for name, one in seen.distributions.items() if name}
    before = {seen.before.span: seen.before.distribution} if seen.before else {}
    shown = {"this run": here, **before, **others}
    if here.classes:
        names = sorted(here.classes, key=lambda name: -here.classes[name])[:_MOST_CLASSES]
        shares = {key: _shares(one, names) for key, one in shown.items() if one.classes}
        return {"series": [{"name": key, "heights": values} for key, values in shares.items()], "labels": names}
    if not sum(here.counts):
        return None
    alike = {key: one for key, one in shown.items() if one.edges == here.edges and sum(one.counts) > 0}
    counts = {key: np.array(one.counts) for key, one in alike.items()}
    bars = {key: (each / each.sum()).tolist() for key, each in counts.items()}
    series = [{"name": key, "heights": heights} for key, heights in bars.items()]
    return {"series": series[:3], "labels": [f"{here.edges[0]:.4g}", f"{here.edges[-1]:.4g}"]}


def _shares(one: Distribution, names: list[str]) -> list[float]:
    total = sum(one.classes.values())
    return [one.classes.get(name, 0) / total for name in names]


def _models(seen: Survey, versions: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name or "decides",
            "version": versions.get(name, ""),
            "mean": seen.distributions[name].mean,
            "refused": seen.refused.get(name, 0),
        }
        for name in seen.distributions
    ]


def _table(table: pa.Table | None, first: list[str]) -> dict[str, Any] | None:
    if table is None:
        return None
    names = [*first, *(name for name in table.column_names if name not in first)][:_MOST_COLUMNS]
    return {"names": names, "rows": [[_text(row[name]) for name in names] for row in table.to_pylist()]}


def _top(table: pa.Table | None, found: Predictions) -> dict[str, Any] | None:
    """Gives the highest rows: predictions, the first columns, reasons."""
    if table is None:
        return None
    outputs = [output.name for output in found.specs[""].outputs if output.width is None]
    raw = [name for name in table.column_names if name not in (*outputs, REASONS)]
    names = [*outputs, *raw][: _MOST_COLUMNS // 2]
    rows = [{"cells": [_text(row[name]) for name in names], "reasons": row[REASONS] or []} for row in table.to_pylist()]
    return {"names": names, "rows": rows}


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "–" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
