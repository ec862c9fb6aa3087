"""Raw rows as named dense tensors, the form in which a model takes them.

TensorFlow has no null. So a raw input is an array of shape [rows] in which a marker stands for a missing
value: b"" in a string, the smallest int64 in an integer, NaN in a float. Training, batch prediction and
the server (for a JSON null) all use these markers, and the transform graph inside the model knows them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.schema import Column

MISSING_STRING = b""
MISSING_INTEGER = np.iinfo(np.int64).min
MISSING_FLOAT = np.float32(np.nan)

Dtype = Literal["string", "int64", "float32"]
Arrays = dict[str, np.ndarray[Any, Any]]

_DTYPES: Mapping[pa.DataType, Dtype] = {pa.string(): "string", pa.int64(): "int64", pa.float32(): "float32"}
_MARKERS: Mapping[str, Any] = {"string": MISSING_STRING, "int64": MISSING_INTEGER, "float32": MISSING_FLOAT}


def dtype(column: Column) -> Dtype:
    """Gives TensorFlow's name of a column's type: string, int64 or float32."""
    return _DTYPES[column.type]


def marker(dtype: str) -> Any:
    """Gives what stands for a missing value in a raw input of the type string, int64 or float32."""
    return _MARKERS[dtype]


def raw_arrays(batch: pa.RecordBatch, columns: Sequence[Column]) -> Arrays:
    """Turns the given columns of a batch into raw inputs.

    Returns:
        By column name, an array of shape [rows]: int64, float32, or object (bytes, UTF-8) for a string.

    Raises:
        InputError: a column is absent, or holds what its type in the schema cannot.
    """
    return {column.name: _raw_array(batch, column) for column in columns}


def _raw_array(batch: pa.RecordBatch, column: Column) -> np.ndarray[Any, Any]:
    if column.name not in batch.schema.names:
        raise InputError(f"column '{column.name}' is not in the rows (they have: {', '.join(batch.schema.names)})")
    array = batch.column(column.name)
    try:
        if column.type == pa.string():
            return _bytes_array(array)
        array = array if array.type == column.type else pc.cast(array, column.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"column '{column.name}' cannot be read as {column.type} (schema): {reason}") from error
    filled: np.ndarray[Any, Any] = pc.fill_null(array, _MARKERS[dtype(column)]).to_numpy(zero_copy_only=False)
    return filled


def _bytes_array(array: pa.Array) -> np.ndarray[Any, Any]:
    if pa.types.is_dictionary(array.type):
        # One object a distinct value instead of one a row.
        values = np.append(_bytes_array(array.dictionary), [MISSING_STRING])
        indices = pc.fill_null(array.indices, len(values) - 1).to_numpy(zero_copy_only=False)
        taken: np.ndarray[Any, Any] = np.take(values, indices)
        return taken
    if array.type != pa.large_string() and array.type != pa.string():
        array = pc.cast(array, pa.string())
    binary = pc.cast(array, pa.large_binary() if array.type == pa.large_string() else pa.binary())
    result: np.ndarray[Any, Any] = pc.fill_null(binary, MISSING_STRING).to_numpy(zero_copy_only=False)
    return result
