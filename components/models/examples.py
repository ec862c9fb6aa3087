"""The rows to learn from, in memory, and whether they can be learned from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import split_files
from components.errors import DataRejectedError, InputError
from components.features import Feature, Label
from components.models.packing import Packing, column_slices, size_of
from components.parquet_files import open_parquet, read_batches
from components.settings import Training

SPLIT = "train"

_BATCH_ROWS = 65_536
_REMEDY = "run transform_data again"
_AGAIN = "give the transformed dataset and the transform_graph of one run of transform_data"

Matrix = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Examples:
    """Rows to learn from."""

    numbers: Matrix
    """float32 [rows, columns]; NaN is a missing value, of a feature that may have some."""
    categories: Matrix
    """int32 [rows, columns], ids that the features allow."""
    labels: Matrix
    """float32 (binary, regression, anomaly_detection) or int32 (multiclass), [rows]; NaN: unknown, where the model
    learns from none."""


def read_examples(transformed: Path, packing: Packing, label: Label) -> Examples:
    """Reads the train split in one pass.

    Raises:
        InputError: the dataset does not fit its features.json, or cannot be read.
        DataRejectedError: no rows, a constant label, or a value that is not finite.
    """
    paths = split_files(transformed, SPLIT)
    rows = sum(open_parquet(path, _REMEDY).metadata.num_rows for path in paths)
    numbers = np.empty((rows, packing.number_columns), np.float32)
    categories = np.empty((rows, packing.category_columns), np.int32)
    labels = np.empty(rows, np.int32 if label.kind == "multiclass" else np.float32)
    start = 0
    names = [*(f.name for f in (*packing.numbers, *packing.categories)), *([label.column] if label.column else [])]
    for batch in _batches(paths, names):
        stop = start + batch.num_rows
        for matrix, features in ((numbers, packing.numbers), (categories, packing.categories)):
            for feature, columns in column_slices(features):
                matrix[start:stop, columns] = _values(batch.column(feature.name), feature)
        labels[start:stop] = _label_values(batch.column(label.column), label) if label.column else np.nan
        start = stop
    _check_labels(labels, label)
    _check_numbers(numbers, packing)
    _check_ids(categories, packing)
    return Examples(numbers, categories, labels)


def hold_out(rows: int, training: Training, wanted: bool = True) -> tuple[Matrix, Matrix]:
    """Divides rows into those to learn from and those to look at afterwards.

    Args:
        rows: how many.
        training: section `training`.
        wanted: whether the kind of model makes use of rows held out.

    Returns:
        Two sorted int32 arrays of row numbers; the second is empty where nothing needs it.

    Raises:
        DataRejectedError: no row would be left to learn from.
    """
    order = np.arange(rows, dtype=np.int32)
    if not (wanted and training.holds_out):
        return order, order[:0]
    held = max(1, round(rows * training.validation_fraction))
    if held >= rows:
        raise DataRejectedError(
            f"split '{SPLIT}' has {rows} rows, of which validation_fraction {training.validation_fraction:g} holds out "
            f"{held} (needed: 1 left to learn from); supply more rows, or hold out none (early_stopping: null)"
        )
    if training.validation_rows == "random":
        order = np.random.default_rng(training.seed).permutation(order)
    return np.sort(order[:-held]), np.sort(order[-held:])


def is_reserved(training: Training) -> bool:
    """Tells whether rows held out have something to say after fitting."""
    return training.calibration != "none" or training.decision.needs_held_out


def column_means(numbers: Matrix, rows: Matrix) -> Matrix:
    """Gives the means of the known numbers of some rows, float32 [columns]; 0 where none is known."""
    sums = np.nansum(numbers[rows], axis=0, dtype=np.float64)
    known = np.count_nonzero(~np.isnan(numbers[rows]), axis=0)
    return (sums / np.maximum(known, 1)).astype(np.float32)


def without_missing(examples: Examples, means: Matrix) -> Examples:
    """Puts means, [columns], where numbers are missing."""
    missing = np.isnan(examples.numbers)
    return replace(examples, numbers=np.where(missing, means, examples.numbers)) if missing.any() else examples


def standardized(examples: Examples, label: Label, learned: Matrix) -> tuple[Examples, float, float]:
    """Standardizes a regression's labels by the rows to learn from; leaves classes as they are.

    Returns:
        The examples, with labels (label - mean) / scale; mean; scale. Of classes: 0 and 1.
    """
    if label.kind != "regression":
        return examples, 0.0, 1.0
    known = examples.labels[learned]
    mean, scale = float(known.mean(dtype=np.float64)), float(known.std(dtype=np.float64)) or 1.0
    labels = ((examples.labels - np.float32(mean)) / np.float32(scale)).astype(np.float32)
    return replace(examples, labels=labels), mean, scale


def _batches(paths: list[Path], names: list[str]) -> Iterator[pa.RecordBatch]:
    why = f"features.json names; {_AGAIN}"
    for path in paths:
        yield from read_batches(path, names, _BATCH_ROWS, _REMEDY, f"split '{SPLIT}'", why)


def _values(column: pa.Array, feature: Feature) -> Matrix:
    """Gives a feature's values as [rows, width]."""
    flat = column if feature.width is None else column.flatten()
    kind_fits = pa.types.is_floating(flat.type) if feature.kind == "number" else pa.types.is_integer(flat.type)
    if not kind_fits or len(flat) != len(column) * (feature.width or 1):
        raise InputError(
            f"transformed feature '{feature.name}' is {column.type}, features.json says {feature.kind} of width "
            f"{feature.width or 1}; {_AGAIN}"
        )
    return _without_nulls(flat, f"transformed feature '{feature.name}'").reshape(len(column), -1)


def _label_values(column: pa.Array, label: Label) -> Matrix:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(f"label '{label.name}' is {column.type} in the transformed rows, not a number; {_AGAIN}")
    if not label.is_learned:
        known: Matrix = pc.fill_null(column.cast(pa.float32()), np.nan).to_numpy(zero_copy_only=False)
        return known
    return _without_nulls(column, f"label '{label.name}'")


def _without_nulls(column: pa.Array, what: str) -> Matrix:
    if column.null_count:
        raise InputError(f"{what} has {column.null_count:,} nulls (allowed: 0); {_AGAIN}")
    values: Matrix = column.to_numpy(zero_copy_only=False)
    return values


def _check_labels(labels: Matrix, label: Label) -> None:
    if not len(labels):
        needed = "some with a label" if label.is_learned else "some"
        raise DataRejectedError(f"split '{SPLIT}' has no rows (needed: {needed}); widen data.window")
    if not label.is_learned:
        return
    bad = ~np.isfinite(labels)
    if bad.any():
        raise DataRejectedError(
            f"label '{label.name}' is {labels[bad][0]:g} in {bad.sum():,} of {len(labels):,} train rows; fix the source"
        )
    if label.classes:
        strange = labels[(labels < 0) | (labels >= len(label.classes)) | (labels != np.floor(labels))]
        if len(strange):
            raise InputError(
                f"label '{label.name}' has the value {strange[0]:g}, features.json has {len(label.classes)} classes; "
                f"{_AGAIN}"
            )
    if (labels == labels[0]).all():
        value = label.classes[int(labels[0])] if label.classes else f"{labels[0]:g}"
        raise DataRejectedError(
            f"label '{label.name}' is {value} in all {len(labels):,} train rows: there is nothing to learn; widen "
            "data.window or fix the source"
        )


def _check_numbers(numbers: Matrix, packing: Packing) -> None:
    # A sum is finite only if all its terms are: no mask of all values is needed to see that all is well.
    if np.isfinite(numbers.sum(axis=0, dtype=np.float64)).all():
        return
    for feature, columns in column_slices(packing.numbers):
        values = numbers[:, columns]
        bad = np.isinf(values) if feature.may_be_missing else ~np.isfinite(values)
        if bad.any():
            raise DataRejectedError(
                f"transformed feature '{feature.name}' is {values[bad][0]:g} in {bad.any(axis=1).sum():,} of "
                f"{len(numbers):,} train rows, and so the loss would be; fix the source, or how it is transformed"
            )


def _check_ids(categories: Matrix, packing: Packing) -> None:
    for feature, columns in column_slices(packing.categories):
        low, high = int(categories[:, columns].min()), int(categories[:, columns].max())
        if low < 0 or high >= size_of(feature):
            raise InputError(
                f"transformed feature '{feature.name}' has the id {low if low < 0 else high}, features.json allows 0 "
                f"to {size_of(feature) - 1}; {_AGAIN}"
            )
