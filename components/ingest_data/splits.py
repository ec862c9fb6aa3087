"""Splits: which rows are for training and which for evaluation."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError, InputError
from components.ingest_data.conversions import unix_seconds
from components.ingest_data.keys import Hashes, by_distinct, key_hashes, key_texts
from components.ingest_data.readers import shown, type_name
from components.schema import Column
from components.settings import ColumnSplit, HashSplit, Split, TimeSplit

TRAIN, EVAL = "train", "eval"

Assignment = Callable[[pa.RecordBatch], pa.BooleanArray]
"""Tells for each row of a batch whether it goes to the eval split; no row is null."""


def assignment(split: Split, columns: Sequence[Column]) -> Assignment:
    """Gives the function that splits batches with these columns.

    Raises:
        InputError: the split does not fit the column's type, or contradicts itself.
    """
    match split:
        case HashSplit():
            return lambda batch: _by_hash(batch, split)
        case TimeSplit():
            column = next(column for column in columns if column.name == split.column)
            if pa.types.is_floating(column.type):
                raise InputError(
                    f"data.split.column: '{column.name}' is {type_name(column)}, too coarse for times; make it an INT "
                    "(seconds since 1970) with a time_domain, or text, in the schema"
                )
            return lambda batch: _by_time(batch, split)
        case ColumnSplit():
            both = set(split.train) & set(split.eval)
            if both:
                raise InputError(f"data.split: {', '.join(sorted(both))} is a value of train and of eval; choose one")
            return lambda batch: _by_column(batch, split)


def describe(split: Split) -> str:
    """Writes a split for a message."""
    match split:
        case HashSplit():
            return f"hash of {', '.join(split.key)}, eval_fraction {split.eval_fraction:g}"
        case TimeSplit():
            return f"{split.column} from {_cut(split).isoformat(sep=' ')}"
        case ColumnSplit():
            return f"values of {split.column}, train: {', '.join(split.train)}, eval: {', '.join(split.eval)}"


def _by_hash(batch: pa.RecordBatch, split: HashSplit) -> pa.BooleanArray:
    limit = np.uint64(int(split.eval_fraction * 2**64))

    def hashes(texts: pa.Array) -> Hashes:
        return key_hashes(texts, split.salt)

    return pa.array(by_distinct(key_texts(batch, split.key), hashes) < limit)


def _by_time(batch: pa.RecordBatch, split: TimeSplit) -> pa.BooleanArray:
    values = batch.column(split.column)
    try:
        seconds = unix_seconds(values)
    except pa.ArrowInvalid as error:
        raise DataRejectedError(
            f"data.split.column: '{split.column}' holds what is no time: {error}; fix it"
        ) from error
    if seconds.null_count:
        raise DataRejectedError(
            f"data.split.column: '{split.column}' is missing in {seconds.null_count:,} of {len(seconds):,} rows; "
            "fill it, or split by another column"
        )
    cut = _cut(split)
    cut = cut if cut.tzinfo else cut.replace(tzinfo=UTC)
    return pc.greater_equal(seconds, int((cut - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()))


def _cut(split: TimeSplit) -> datetime:
    if split.eval_from is None:
        raise InputError(
            f"data.split.eval_last: '{split.eval_last}' is counted back from the end of the window when a run is "
            "submitted; give this stage eval_from"
        )
    return split.eval_from


def _by_column(batch: pa.RecordBatch, split: ColumnSplit) -> pa.BooleanArray:
    values = batch.column(split.column).cast(pa.string())
    known = pc.is_in(values, pa.array([*split.train, *split.eval]))
    if not pc.all(known).as_py():
        other = values.filter(pc.invert(known))
        raise DataRejectedError(
            f"data.split.column: '{split.column}' has other values than {', '.join([*split.train, *split.eval])} in "
            f"{len(other):,} of {len(values):,} rows, e.g. {shown(other[0].as_py())}; name them under train or eval"
        )
    return pc.is_in(values, pa.array(split.eval))
