"""Reads what is explained: the model, rows that it had not seen, and rows to compare them with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import read_manifest, split_files
from components.errors import DataRejectedError, InputError
from components.model_spec import ModelSpec, chosen_columns, read_spec
from components.parquet_files import open_parquet, read_batches
from components.rows import Arrays, raw_arrays
from components.schema import Column, columns, parse_schema
from components.serving_model import ServingModel
from components.settings import Explanation, Task
from components.shapley import Array

MOST_JUDGED = 200_000
"""Rows in which weak slices are looked for, at most."""
_SCHEMA = "schema.pbtxt"
_REJECTED = "rejected"
_ROW = "row"
_TRAIN = "train"
_BATCH_ROWS = 65_536
_REMEDY = "run the stage before again"
_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}
_TOLERANCE = 1e-4
_SMALLEST = 1e-7


class Explained:
    """A model, seen as a function from rows to one number or one a class."""

    def __init__(self, model: Path) -> None:
        """Loads it.

        Raises:
            InputError: it is none of ours, or damaged.
        """
        self._model = ServingModel(model)
        self.spec: ModelSpec = self._model.spec
        self.output = self.spec.outputs[0].name
        self.columns = [Column(i.name, _TYPES[i.dtype], i.required, is_time=False) for i in self.spec.inputs]

    def predict(self, arrays: Arrays) -> Array:
        """Gives the probabilities or values, float64 [rows, classes or 1]."""
        rows = len(next(iter(arrays.values())))
        parts = [
            self._model.predict({name: values[start : start + _BATCH_ROWS] for name, values in arrays.items()})
            for start in range(0, rows, _BATCH_ROWS)
        ]
        scores: Array = np.concatenate([part[self.output] for part in parts]).astype(np.float64)
        return scores.reshape(rows, -1)


@dataclass(frozen=True)
class Material:
    """The rows, as the model takes them."""

    split: str
    rows: int
    """Predicted rows of the split."""
    judged: Arrays
    """Of a sample of them, or all: by feature, shape [judged]."""
    positions: Array
    """int64 [judged]: where they lie in the predictions."""
    scores: Array
    """float64 [judged, classes, clusters or 1]: what the model gives."""
    labels: Array
    """float64 [judged]: 0 and 1, the class's number, or the value; NaN: unknown, or not to be compared with."""
    explained: Array
    """int64: which of the judged rows are explained; sorted."""
    background: Arrays
    """Rows to compare with, in random order."""
    background_split: str
    chosen: Array
    """int64 [judged]: which column of `scores` a row's explanation is about: the likeliest class, or its cluster."""
    times: frozenset[str] = frozenset()
    """Features that count seconds since 1970."""

    @property
    def explained_rows(self) -> Arrays:
        """The rows that are explained."""
        return taken(self.judged, self.explained)


def read_material(
    explained: Explained, examples: Path, predictions: Path, schema: Path | None, task: Task, explanation: Explanation
) -> Material:
    """Reads the rows that were predicted, and what came true.

    The schema tells which features are times; without it, none is taken for one.

    Raises:
        InputError: the predictions are another model's or of other rows, or a column is absent.
        DataRejectedError: no row was predicted, or none can be compared with.
    """
    spec = explained.spec
    split, rows, rejected = _predicted(predictions, spec)
    if task.label != spec.label.name:  # of an unsupervised task it may be none
        raise InputError(f"the model predicts '{spec.label.name}', task.label is '{task.label}'; give its own task")
    generator = np.random.default_rng(explanation.seed)
    positions = _sample(generator, rows, MOST_JUDGED)
    raw = np.delete(np.arange(rows + len(rejected)), rejected)
    label = spec.label.column
    if label:
        _require_label(examples, split, label)
    names = [*(column.name for column in explained.columns), *([label] if label else [])]
    table = _read(examples, split, names, raw[positions])
    judged = _arrays(table, explained.columns)
    scores = explained.predict(judged)
    _compare(predictions, split, positions, scores, explained)
    rows_to_explain = _sample(generator, len(positions), explanation.rows)
    background, background_split = _background(explained, examples, split, explanation.background_rows, generator)
    return Material(
        split=split,
        rows=rows,
        judged=judged,
        positions=positions,
        scores=scores,
        labels=_floats(spec.label.encode(table[label].combine_chunks())) if label else np.full(len(scores), np.nan),
        explained=rows_to_explain,
        background=background,
        background_split=background_split,
        chosen=chosen_columns(spec.label, scores),
        times=_times(schema) if schema else frozenset(),
    )


def losses(labels: Array, scores: Array, kind: str, threshold: float | None = None) -> Array:
    """Gives each row's loss, [rows].

    Classes: surprise at what came true, −ln p. Regression: the absolute error. Anomaly detection: 1 where a row is
    flagged and no anomaly, or the other way round; where no label is known, its score. Clustering: the distance to the
    cluster's centre.
    """
    if kind == "clustering":
        return np.asarray(scores.min(1))
    if kind == "anomaly_detection":
        flagged = scores[:, 0] >= np.float32(threshold or 0)
        return np.where(np.isnan(labels), scores[:, 0], flagged != (labels == 1))
    if kind == "regression":
        return np.abs(labels - scores[:, 0])
    if kind == "binary":
        came_true = np.where(labels == 1, scores[:, 0], 1 - scores[:, 0])
    else:
        came_true = scores[np.arange(len(labels)), labels.astype(np.int64)]
    result: Array = -np.log(np.maximum(came_true, _SMALLEST))
    return result


def taken(arrays: Arrays, rows: Array) -> Arrays:
    """Gives some rows, by their numbers."""
    return {name: values[rows] for name, values in arrays.items()}


def _predicted(predictions: Path, spec: ModelSpec) -> tuple[str, int, Array]:
    """Tells which split was predicted, how many of its rows, and which were rejected, sorted."""
    manifest = read_manifest(predictions)
    split = next((name for name in manifest.splits if name != _REJECTED), "")
    rejected_rows = manifest.splits.get(_REJECTED, 0)
    if not manifest.splits.get(split, 0):
        raise DataRejectedError(
            f"no row of split '{split}' was predicted ({rejected_rows:,} were rejected), so there is none to explain; "
            "fix the source, or widen the split"
        )
    of_model = read_spec(predictions).weights_digest
    if of_model != spec.weights_digest:
        raise InputError(
            f"predictions '{predictions}' are those of another model ({of_model[:12]}, this one is "
            f"{spec.weights_digest[:12]}); run predict_batch with this model"
        )
    rejected = np.zeros(0, np.int64)
    if rejected_rows:
        parts = [batch.column(0).to_numpy() for batch in _batches(predictions, _REJECTED, [_ROW])]
        rejected = np.sort(np.concatenate(parts))
    return split, manifest.splits[split], rejected


def _times(schema: Path) -> frozenset[str]:
    described = columns(parse_schema((schema / _SCHEMA).read_text(encoding="utf-8")))
    return frozenset(name for name, column in described.items() if column.is_time)


def _require_label(examples: Path, split: str, label: str) -> None:
    schema = open_parquet(split_files(examples, split)[0], _REMEDY).schema_arrow
    if label not in schema.names:
        raise InputError(
            f"split '{split}' has no column '{label}', which task.label names (it has: {', '.join(schema.names)}); "
            "give labelled rows"
        )


def _sample(generator: np.random.Generator, rows: int, most: int) -> Array:
    """Draws row numbers, sorted; all of them if they are not too many."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(generator.choice(rows, most, replace=False))


def _read(dataset: Path, split: str, names: Sequence[str], wanted: Array) -> pa.Table:
    """Reads some rows, by their numbers in the split, sorted; memory grows with those alone."""
    tables = []
    start = found = 0
    for batch in _batches(dataset, split, list(dict.fromkeys(names))):
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + batch.num_rows)]
        if len(here):
            tables.append(pa.Table.from_batches([batch]).take(pa.array(here - start)))
        start += batch.num_rows
        found += len(here)
    if found < len(wanted):
        raise InputError(
            f"split '{split}' of '{dataset}' has {start:,} rows, the predictions are of more; give the dataset that "
            "was predicted"
        )
    return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries().combine_chunks()


def _batches(dataset: Path, split: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    for path in split_files(dataset, split):
        yield from read_batches(path, names, _BATCH_ROWS, _REMEDY, f"'{path}'", f"is needed here; {_REMEDY}")


def _arrays(table: pa.Table, columns: Sequence[Column]) -> Arrays:
    batches = table.to_batches()
    if not batches:
        return raw_arrays(pa.RecordBatch.from_pylist([], schema=table.schema), columns)
    return raw_arrays(batches[0], columns)


def _compare(predictions: Path, split: str, positions: Array, scores: Array, explained: Explained) -> None:
    """Makes sure that the predictions are those of these rows."""
    written = _read(predictions, split, [explained.output], positions)[explained.output].combine_chunks()
    flat = _floats(written.flatten() if pa.types.is_list(written.type) else written)
    if flat.size != scores.size:
        raise InputError(
            f"predictions '{predictions}' hold {flat.size:,} numbers, the model gives {scores.size:,} for the same "
            "rows; run predict_batch again"
        )
    apart = np.abs(flat.reshape(scores.shape) - scores)
    off = ~(apart <= _TOLERANCE * np.maximum(1, np.abs(scores)))
    if off.any():
        row = int(np.flatnonzero(off.any(1))[0])
        raise InputError(
            f"predictions '{predictions}' are not those of these rows: for row {positions[row]:,} they say "
            f"{flat.reshape(scores.shape)[row][off[row]][0]:.6g}, the model {scores[row][off[row]][0]:.6g}; run "
            "predict_batch with this model over this dataset"
        )


def _background(
    explained: Explained, examples: Path, split: str, most: int, generator: np.random.Generator
) -> tuple[Arrays, str]:
    """Draws rows of the train split, or of the predicted one if there is none; rows that the model refuses are out."""
    source = _TRAIN if read_manifest(examples).splits.get(_TRAIN, 0) else split
    rows = sum(open_parquet(path, _REMEDY).metadata.num_rows for path in split_files(examples, source))
    wanted = _sample(generator, rows, most)
    arrays = _arrays(_read(examples, source, [c.name for c in explained.columns], wanted), explained.columns)
    usable = np.isfinite(explained.predict(arrays)).all(1)
    for model_input in explained.spec.inputs:
        values = arrays[model_input.name]
        if model_input.dtype == "float32":
            usable &= ~np.isinf(values)
    if not usable.any():
        raise DataRejectedError(
            f"none of {len(wanted):,} rows drawn from split '{source}' can be predicted, so there is nothing to "
            "compare with; fix the source, or raise explanation.background_rows"
        )
    return taken(arrays, generator.permutation(np.flatnonzero(usable))), source


def _floats(values: Any) -> Array:
    """Gives numbers as float64, NaN for null."""
    floats: Array = pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return floats
