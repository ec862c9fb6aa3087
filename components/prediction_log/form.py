"""The one form that logged predictions take, and how columns of any type get into it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.model_spec import ModelSpec
from components.request_columns import MODEL_VERSION, REQUEST_ID, REQUEST_ROW, TIME

TIME_TYPE = pa.timestamp("us", "UTC")
_ARROW: Mapping[str, pa.DataType] = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}
_SECONDS_END = 1e11
"""A number of seconds; larger ones are milliseconds."""


@dataclass(frozen=True)
class Form:
    """The columns of a logged row."""

    features: Mapping[str, pa.DataType]
    outputs: Mapping[str, pa.DataType]
    keys: tuple[str, ...]
    """Columns that identify a row, and are no features; text."""

    @property
    def schema(self) -> pa.Schema:
        """All columns in their order."""
        own = [(TIME, TIME_TYPE), (REQUEST_ID, pa.string()), (REQUEST_ROW, pa.int32()), (MODEL_VERSION, pa.string())]
        return pa.schema(
            [*own, *((key, pa.string()) for key in self.keys), *self.features.items(), *self.outputs.items()]
        )


def form_of(spec: ModelSpec, keys: Sequence[str]) -> Form:
    """Gives the form of rows that a model predicts.

    Args:
        spec: of the model.
        keys: data.key of the project; those that are features need no column of their own.
    """
    features = {i.name: _ARROW[i.dtype] for i in spec.inputs}
    outputs = {
        output.name: _ARROW[output.dtype] if output.width is None else pa.list_(_ARROW[output.dtype], output.width)
        for output in spec.outputs
    }
    return Form(features, outputs, tuple(key for key in keys if key not in features))


@dataclass
class LogCounts:
    """What was read, and what was not as it should be."""

    files: int = 0
    """That lie in the window."""
    unreadable: list[str] = field(default_factory=list)
    """URIs of files that could not be read, or not to their end."""
    read: int = 0
    """Rows that were read, those left out included."""
    rows: int = 0
    """That are judged."""
    duplicates: int = 0
    """Copies of rows, left out."""
    outside: int = 0
    """Rows of other times, left out."""
    without_time: int = 0
    """Rows that tell no time, left out."""
    unanswered: int = 0
    """Requests without an answer, left out."""
    malformed: int = 0
    """Events that could not be understood, left out."""
    unfit: Counter[str] = field(default_factory=Counter)
    """By column, values of another type; they count as missing."""
    absent: Counter[str] = field(default_factory=Counter)
    """By column, rows of files that do not have it; its values count as missing."""

    @property
    def unlogged(self) -> list[str]:
        """Columns that no row has: left out of the log, e.g. because they are personal."""
        return sorted(name for name, rows in self.absent.items() if rows and rows == self.read)


def conformed(
    columns: Mapping[str, pa.Array], rows: int, form: Form, counts: LogCounts, defaults: Mapping[str, Any] | None = None
) -> pa.RecordBatch:
    """Brings columns into the form.

    Args:
        columns: what there is, of any types.
        rows: how many.
        form: what is wanted.
        counts: told what does not fit.
        defaults: for columns that are not there; without one they are null.
    """
    counts.read += rows
    arrays = []
    for wanted in form.schema:
        column = columns.get(wanted.name)
        if column is None:
            default = (defaults or {}).get(wanted.name)
            arrays.append(pa.nulls(rows, wanted.type) if default is None else pa.array([default] * rows, wanted.type))
            if wanted.name in form.features:
                counts.absent[wanted.name] += rows
            continue
        fitted, unfit = fit(column, wanted.type)
        if unfit:
            counts.unfit[wanted.name] += unfit
        arrays.append(fitted)
    # A feature that is read as a dictionary stays one: it is counted by its distinct values.
    return pa.RecordBatch.from_arrays(arrays, names=form.schema.names)


def fit(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, int]:
    """Casts a column; what cannot be cast becomes null.

    Returns:
        The column (text may be a dictionary), and how many values did not fit.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) and wanted == pa.string() and pa.types.is_string(kind.value_type):
        if _is_valid(column.dictionary):
            return column, 0
        column = column.dictionary_decode()
    elif pa.types.is_dictionary(kind):
        return fit(column.dictionary_decode(), wanted)
    try:
        if wanted == TIME_TYPE:
            return _times(column)
        fitted = column if column.type == wanted else pc.cast(column, wanted)
        if pa.types.is_floating(wanted):  # NaN is how others write a missing number
            return pc.if_else(pc.fill_null(pc.is_nan(fitted), False), pa.scalar(None, wanted), fitted), 0
        if wanted != pa.string() or _is_valid(fitted):
            return fitted, 0
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        pass
    if wanted == pa.string():
        column = column.view(pa.binary()) if pa.types.is_string(column.type) else column
    values = [_converted(value, wanted) for value in column]
    present = len(column) - column.null_count
    return pa.array(values, wanted), present - sum(value is not None for value in values)


def _is_valid(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _converted(scalar: pa.Scalar, wanted: pa.DataType) -> Any:
    """Converts one value; None: it cannot be."""
    try:
        value = scalar.as_py()
        if value is None:
            return None
        if wanted == TIME_TYPE:
            return _time(value)
        if pa.types.is_string(wanted):
            return value.decode() if isinstance(value, bytes) else str(value)
        if pa.types.is_integer(wanted):
            number = value if isinstance(value, int) else _number(value)
            return pa.scalar(int(number), wanted).as_py() if number == int(number) else None
        if pa.types.is_floating(wanted):
            return float(value)
        return pa.scalar(value, wanted).as_py()
    except (ValueError, TypeError, OverflowError, OSError, pa.ArrowException):
        return None


def _number(value: Any) -> int | float:
    try:
        return int(value) if isinstance(value, str | bytes) else float(value)
    except ValueError:
        return float(value)


def _time(value: Any) -> datetime:
    """Reads a time from text, e.g. 2025-03-05 06:07:08, or a number of seconds or milliseconds since 1970."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(number / 1e3 if abs(number) > _SECONDS_END else number, UTC)


def _times(column: pa.Array) -> tuple[pa.Array, int]:
    """Reads times; a time without a zone is UTC, a number counts seconds since 1970, or milliseconds."""
    if pa.types.is_timestamp(column.type):
        return pc.cast(column, TIME_TYPE, safe=False), 0
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        seconds = pc.cast(column, pa.float64(), safe=False)
        factor = pc.if_else(pc.greater(pc.abs(seconds), _SECONDS_END), 1e3, 1e6)
        scaled = pc.multiply(seconds, factor)
        fine = pc.and_(pc.is_finite(scaled), pc.less(pc.abs(scaled), 9e18))
        micros = pc.cast(pc.if_else(fine, scaled, pa.scalar(None, pa.float64())), pa.int64(), safe=False)
        return pc.cast(micros, TIME_TYPE), micros.null_count - column.null_count
    return pc.cast(pc.cast(column, pa.timestamp("us")), TIME_TYPE), 0
