"""Rows as points: where the distances between clusters are measured.

The points are made of the raw columns that the model takes, not of its own features: so the candidate and production
are compared in one space, and no model can choose one in which it looks good.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import split_files
from components.errors import InputError
from components.model_spec import ModelInput, read_spec
from components.parquet_files import open_parquet
from components.predictions import Array
from components.silhouettes import drawn_rows

_TRAIN = "train"
_REMEDY = "run ingest_data again"
_SEED = 17
_MOST_VALUES = 50
"""Of a text column: the most frequent ones are told apart."""
_MOST_SPREADS = 5.0
"""A number farther from the mean counts as so many standard deviations, so that one outlier is no axis of its own."""


@dataclass(frozen=True)
class Points:
    """Some rows."""

    rows: Array
    """Their numbers, sorted."""
    values: Array
    """float32 [rows, columns]."""


def read_points(predictions: Path, examples: Path, table: pa.Table) -> Points:
    """Makes points of some of the predicted rows.

    Numbers are standardized by the train split, where they are missing its mean; texts are one-hot.

    Args:
        predictions: of the candidate; its spec names the columns.
        examples: the dataset that ingest_data wrote.
        table: the predicted rows, with the model's inputs among the columns.

    Raises:
        InputError: a column that the model takes was not kept.
    """
    inputs = read_spec(predictions).inputs
    absent = [one.name for one in inputs if one.name not in table.column_names]
    if absent:
        raise InputError(
            f"the predictions lack column '{absent[0]}', by which clusters are compared; run predict_batch with all "
            "columns kept"
        )
    rows = drawn_rows(table.num_rows, _SEED)
    train = _read(split_files(examples, _TRAIN), inputs)
    some = table.take(pa.array(rows))
    parts = [(_one_hot if one.dtype == "string" else _standardized)(train[one.name], some[one.name]) for one in inputs]
    return Points(rows, np.concatenate(parts, axis=1).astype(np.float32))


def _read(files: Sequence[Path], inputs: Sequence[ModelInput]) -> pa.Table:
    names = [one.name for one in inputs]
    parts = [open_parquet(file, _REMEDY).read(columns=names) for file in files]
    return pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()


def _standardized(train: pa.ChunkedArray, values: pa.ChunkedArray) -> Array:
    known = _floats(train)
    known = known[np.isfinite(known)]
    mean, spread = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
    scaled = (_floats(values) - mean) / (spread or 1.0)
    return np.nan_to_num(np.clip(scaled, -_MOST_SPREADS, _MOST_SPREADS))[:, None]


def _one_hot(train: pa.ChunkedArray, values: pa.ChunkedArray) -> Array:
    counts = _text(train).value_counts()
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:_MOST_VALUES]
    frequent = counts.field("values").take(pa.array(order)).drop_null()
    ids = pc.fill_null(pc.index_in(_text(values), value_set=frequent), len(frequent)).to_numpy()
    return np.eye(len(frequent) + 1)[ids]


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(values, pa.string())


def _floats(values: pa.ChunkedArray) -> Array:
    """Gives numbers as float64, NaN for null."""
    result: Array = pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy()
    return result
