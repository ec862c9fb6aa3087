"""The golden test: a deployed model must answer rows as it did when it was evaluated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import split_files
from components.errors import InputError
from components.model_spec import ModelInput, read_spec
from components.rows import marker, raw_arrays
from components.schema import Column

_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}


@dataclass(frozen=True)
class GoldenRows:
    """Rows, and what the model gave for them."""

    instances: list[dict[str, Any]]
    """As protocol v1 takes them."""
    expected: list[dict[str, Any]]
    """Output by name."""
    tensors: list[dict[str, Any]] = field(default_factory=list)
    """The rows as the SavedModel's own signature takes them, and so TensorFlow Serving: by the names of its tensors, a
    missing value as its marker (NaN, too)."""


@dataclass(frozen=True)
class Comparison:
    """How the answers compare."""

    rows: int
    differing: int
    largest: float
    """Largest difference of a number; above 1, relative to it."""
    cause: str
    """One line; empty: all rows are within the tolerance."""


def read_golden(predictions: str | Path, count: int, split: str = "eval") -> GoldenRows:
    """Takes rows at equal distances from what predict_batch wrote.

    Args:
        predictions: dataset of predict_batch that kept the columns which the model takes.
        count: how many, or all if there are fewer.
        split: which split.

    Raises:
        InputError: these are no such predictions.
    """
    folder = Path(predictions)
    spec = read_spec(folder)
    files = split_files(folder, split)
    inputs, outputs = [i.name for i in spec.inputs], [output.name for output in spec.outputs]
    present = pq.read_schema(files[0]).names
    absent = [name for name in [*inputs, *outputs] if name not in present]
    if absent:
        raise InputError(
            f"predictions '{predictions}' lack column '{absent[0]}' and {len(absent) - 1} others that the golden test "
            "needs; let predict_batch keep all columns: keep_columns: []"
        )
    table = pa.concat_tables(_read(file, [*inputs, *outputs]) for file in files)
    if not table.num_rows:
        raise InputError(f"predictions '{predictions}' have no rows for the golden test; predict at least one row")
    picked = np.unique(np.linspace(0, table.num_rows - 1, min(count, table.num_rows)).astype(int))
    batch = table.take(picked).combine_chunks().to_batches()[0]
    arrays = raw_arrays(batch, [Column(i.name, _TYPES[i.dtype], i.required, is_time=False) for i in spec.inputs])
    columns = {i.name: [_json_value(value, i) for value in arrays[i.name].tolist()] for i in spec.inputs}
    tensors = {i.tensor: [_text(value) for value in arrays[i.name].tolist()] for i in spec.inputs}
    return GoldenRows(_rows(columns), batch.select(outputs).to_pylist(), _rows(tensors))


def compare(rows: GoldenRows, answer: Any, tolerance: float, tolerances: Mapping[str, float]) -> Comparison:
    """Compares an answer of protocol v1 with what is expected.

    Args:
        rows: the golden rows.
        answer: the parsed body.
        tolerance: of numbers.
        tolerances: others, by output.
    """
    total = len(rows.expected)
    given = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(given, list) or len(given) != total:
        count = len(given) if isinstance(given, list) else "no"
        return Comparison(total, total, math.inf, f"{count} predictions for {total} rows")
    differing, largest, cause = 0, 0.0, ""
    for index, (wanted, got) in enumerate(zip(rows.expected, given, strict=True)):
        # A model with one output may give it without its name.
        got = got if isinstance(got, dict) else dict.fromkeys(wanted, got) if len(wanted) == 1 else {}
        fault = ""
        for name, value in wanted.items():
            allowed = tolerances.get(name, tolerance)
            distance = _distance(value, got.get(name))
            largest = max(largest, distance)
            if not distance <= allowed:
                fault = (
                    f"row {index}: {name} is {_shown(got.get(name))} instead of {_shown(value)} (tolerance {allowed:g})"
                )
                break
        differing += bool(fault)
        cause = cause or fault
    if cause:
        cause = f"{differing} of {total} rows differ from the evaluated predictions: {cause}"
    return Comparison(total, differing, largest, cause)


def _read(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"'{file}' cannot be read as Parquet: {str(error).splitlines()[0]}; run predict_batch again"
        ) from error


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json_value(value: Any, model_input: ModelInput) -> Any:
    """Turns a raw input into what JSON has for it; None: missing."""
    if model_input.dtype == "float32":
        return None if math.isnan(value) else value
    return None if value == marker(model_input.dtype) else _text(value)


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _distance(wanted: Any, got: Any) -> float:
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return math.inf
        return max((_distance(*pair) for pair in zip(wanted, got, strict=True)), default=0.0)
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        if not isinstance(got, int | float) or isinstance(got, bool) or not math.isfinite(got):
            return math.inf
        return abs(got - wanted) / max(1.0, abs(wanted))
    return 0.0 if got == wanted else math.inf


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:60]
