"""Events and sections for tests of window features, and what the features are by their definition."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from components.settings import WindowFeature, WindowFeatures
from components.window_features.arrays import compute

TYPES = {
    "time": pa.int64(),
    "card": pa.string(),
    "shop": pa.int64(),
    "amount": pa.float32(),
    "items": pa.int64(),
    "city": pa.string(),
}

EVERY_KIND = WindowFeatures.model_validate(
    {
        "time": "time",
        "key": ["card"],
        "features": [
            {"name": "count_10s", "of": "count", "window": "10 seconds"},
            {"name": "sum_10s", "of": "sum", "column": "amount", "window": "10 seconds"},
            {"name": "sum_60s", "of": "sum", "column": "amount", "window": "1 minute"},
            {"name": "items_60s", "of": "sum", "column": "items", "window": "1 minute"},
            {"name": "mean_60s", "of": "mean", "column": "amount", "window": "1 minute"},
            {"name": "mean_items", "of": "mean", "column": "items", "window": "1 minute"},
            {"name": "cities_60s", "of": "distinct", "column": "city", "window": "1 minute"},
            {"name": "amounts_60s", "of": "distinct", "column": "amount", "window": "1 minute"},
            {"name": "since_60s", "of": "time_since_last", "window": "1 minute"},
            {"name": "shop_count", "of": "count", "key": ["shop"], "window": "30 seconds"},
            {"name": "pair_sum", "of": "sum", "column": "amount", "key": ["card", "shop"], "window": "30 seconds"},
        ],
    }
)
"""`time` is in milliseconds."""


def by_arrays(windows: WindowFeatures, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Computes features as ingest_data does."""
    columns = {name: pa.array([event[name] for event in events], kind) for name, kind in TYPES.items()}
    found = compute(windows, columns.pop("time"), columns)
    return pa.table(found).to_pylist()


def by_definition(windows: WindowFeatures, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Computes features event by event, from all others, with exact numbers."""
    return [
        {feature.name: _defined(feature, windows.key_of(feature), event, events) for feature in windows.features}
        for event in events
    ]


def _defined(
    feature: WindowFeature, key: Sequence[str], event: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> Any:
    def key_of(one: Mapping[str, Any]) -> Any:
        values = [one[name] for name in (*key, "time")]
        return None if None in values else values[:-1]

    if key_of(event) is None:
        return None
    time = event["time"]
    before = [
        one
        for one in events
        if key_of(one) == key_of(event) and time - feature.window_ms < one["time"] < time  # neither ties nor itself
    ]
    if feature.of == "count":
        return len(before) + 1
    if feature.of == "time_since_last":
        last = max((one["time"] for one in before), default=None)
        return None if last is None else _float32((time - last) / 1000)
    values = [one[feature.column] for one in (*before, event)]
    values = [value for value in values if value is not None and (isinstance(value, str) or math.isfinite(value))]
    if feature.of == "distinct":
        return len(set(values))
    total = _float64(sum(map(Fraction, values), Fraction(0)))
    if feature.of == "sum":
        return _float32(total)
    return _float32(total / len(values)) if values else None


def _float64(exact: Fraction) -> float:
    return exact.numerator / exact.denominator  # rounds once


def _float32(value: float) -> float | None:
    with np.errstate(over="ignore"):
        narrow = float(np.float32(value))
    return narrow if math.isfinite(narrow) else None
