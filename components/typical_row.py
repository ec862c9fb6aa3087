"""The typical row of a model's training data: what the reasons for a prediction are told against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.model_spec import ModelInput
from components.rows import Arrays, marker

STATISTICS = "statistics/train.pb"
"""Beside a published model's folder."""


def read_statistics(path: Path) -> dict[str, Any]:
    """Reads the statistics of a dataset, by column."""
    parsed = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    return {
        ".".join(feature.path.step) or feature.name: feature
        for dataset in parsed.datasets
        for feature in dataset.features
    }


def typical_row(inputs: Sequence[ModelInput], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the medians and most frequent values; what has none is left out, unless a row without it is refused."""
    row = {i.name: _typical(i, statistics.get(i.name)) for i in inputs}
    return {name: value for name, value in row.items() if value is not None}


def arrays_of(rows: Sequence[Mapping[str, Any]], inputs: Sequence[ModelInput]) -> Arrays:
    """Turns rows that are known to be right into arrays; what a row lacks is missing."""
    arrays: Arrays = {}
    for i in inputs:
        values = [marker(i.dtype) if (value := row.get(i.name)) is None else value for row in rows]
        if i.dtype == "string":
            values = [value.encode() if isinstance(value, str) else value for value in values]
        arrays[i.name] = np.array(values, object if i.dtype == "string" else i.dtype)
    return arrays


def _typical(i: ModelInput, feature: Any) -> Any:
    value: Any = None
    if feature is not None and feature.HasField("num_stats"):
        value = feature.num_stats.median
    elif feature is not None and feature.HasField("string_stats") and feature.string_stats.top_values:
        value = feature.string_stats.top_values[0].value
    if value is None:
        return {"string": "a", "int64": 0, "float32": 0.0}[i.dtype] if i.required else None
    if i.dtype == "string":
        return str(value)
    return int(float(value)) if i.dtype == "int64" else float(str(np.float32(value)))
