"""Rows as the models take them: values that their column's type cannot hold are told and cleared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError
from components.model_spec import ModelInput, ModelSpec
from components.rows import marker
from components.schema import Column

Reasons = np.ndarray[Any, Any]
"""Why each row is rejected, objects [rows]; None: it is not."""

REMEDY = "run ingest_data again"

_SHOWN = 40
_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}


def columns_of(spec: ModelSpec) -> list[Column]:
    """Lists the raw columns that a model takes."""
    return [Column(i.name, _TYPES[i.dtype], i.required, is_time=False) for i in spec.inputs]


def require_inputs(names: Sequence[str], inputs: Sequence[ModelInput]) -> None:
    """Checks that rows have the columns that a model takes.

    Raises:
        DataRejectedError: some are not there.
    """
    absent = [i.name for i in inputs if i.name not in names]
    if absent:
        raise DataRejectedError(
            f"{len(absent)} columns that the model takes are not in the rows (allowed: 0): {', '.join(absent[:5])}; "
            "give rows with the schema that the model was trained on"
        )


def readable(batch: pa.RecordBatch, columns: Sequence[Column]) -> tuple[pa.RecordBatch, Reasons]:
    """Puts null for the values that the type of their column cannot hold, and tells which rows have some.

    Returns:
        The batch, and why each row is rejected (None: it is not), [rows].
    """
    reasons = np.full(batch.num_rows, None, object)
    for column in columns:
        array = batch.column(column.name)
        if array.type == column.type or _fits(array, column.type):
            bad = _reserved(array, column.type)
        else:
            bad = np.zeros(len(array), bool)
            _mark_unfit(array, column.type, bad)
        if bad.any():
            reasons[bad] = [
                f"{column.name} cannot be {column.type}: {str(v)[:_SHOWN]}" for v in array.filter(bad).to_pylist()
            ]
            cleared = pc.if_else(pa.array(bad), pa.scalar(None, array.type), array)
            batch = batch.set_column(batch.schema.get_field_index(column.name), column.name, cleared)
    return batch, reasons


def _fits(array: pa.Array, kind: pa.DataType) -> bool:
    try:
        pc.cast(array, kind)
    except pa.ArrowInvalid:
        return False
    except pa.ArrowNotImplementedError:
        return True  # no value of this type can be cast: raw_arrays says so of the whole column
    return True


def _reserved(array: pa.Array, kind: pa.DataType) -> Reasons:
    """Marks integers that stand for a missing value, and numbers that only become infinite as float32; bool [rows]."""
    if kind == pa.int64() and pa.types.is_signed_integer(array.type) and array.type.bit_width == 64:
        marked = pc.equal(array, marker("int64"))
    elif kind == pa.float32() and pa.types.is_floating(array.type) and array.type != kind:
        marked = pc.and_(pc.is_inf(pc.cast(array, kind)), pc.is_finite(array))
    else:
        return np.zeros(len(array), bool)
    result: Reasons = pc.fill_null(marked, False).to_numpy(zero_copy_only=False)
    return result


def _mark_unfit(array: pa.Array, kind: pa.DataType, bad: Reasons) -> None:
    """Marks in `bad`, bool [rows], the values that cannot be cast; halves the array until the bad ones are alone."""
    if _fits(array, kind):
        return
    if len(array) == 1:
        bad[0] = True
        return
    half = len(array) // 2
    _mark_unfit(array[:half], kind, bad[:half])
    _mark_unfit(array[half:], kind, bad[half:])
