"""Which values of a column break which rule, how many rows they fill, and what they look like."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import schema_pb2

HUGE_STRING_BYTES = 10_000
_TEXT_CHARACTERS = 60
_KEPT = 10_000
"""Distinct offending values that are counted one by one; beyond, the rarest are forgotten."""

Mask = Callable[[pa.Array], pa.Array]
"""Takes distinct values (none is null) and tells of each whether it offends."""


class Rows(Protocol):
    """Rows that can be read in batches, as often as needed."""

    @property
    def columns(self) -> pa.Schema:
        """Names and types."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Reads the named columns; None: all."""


@dataclass
class Offence:
    """What was found for one anomaly of one column."""

    mask: Mask | None
    """None: the missing values are the offence."""
    rows: int = 0
    """So many rows offend."""
    values: Counter[str] = field(default_factory=Counter)
    """Offending values, as text, and their rows."""


def find_offences(rows: Rows, masks: dict[tuple[str, str], Mask | None]) -> dict[tuple[str, str], Offence]:
    """Reads the columns that have anomalies, and only these.

    Args:
        rows: to be read.
        masks: what offends, by column and anomaly type.
    """
    offences = {key: Offence(mask) for key, mask in masks.items() if key[0] in rows.columns.names}
    columns = list(dict.fromkeys(column for column, _ in offences))
    for batch in rows.batches(columns) if columns else ():
        for (column, _), offence in offences.items():
            _count(batch.column(batch.schema.get_field_index(column)), offence)
    return offences


def mask_for(type_: str, feature: schema_pb2.Feature | None, schema: schema_pb2.Schema) -> Mask | None:
    """Gives the mask that tells what TFDV means by an anomaly type.

    Raises:
        KeyError: no value by itself is the offence (a distance between distributions, for one).
    """
    if type_ in MISSING:
        return None
    if type_ in _BY_VALUE:
        return _BY_VALUE[type_]
    if feature is None:
        raise KeyError(type_)
    if type_ in ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "BOOL_TYPE_UNEXPECTED_STRING"):
        return _outside(_domain(feature, schema))
    limits = feature.int_domain if feature.HasField("int_domain") else feature.float_domain
    bounds: dict[str, Mask] = {
        "INT_TYPE_BIG_INT": lambda values: pc.greater(_numbers(values), limits.max),
        "FLOAT_TYPE_BIG_FLOAT": lambda values: pc.greater(_numbers(values), limits.max),
        "INT_TYPE_SMALL_INT": lambda values: pc.less(_numbers(values), limits.min),
        "FLOAT_TYPE_SMALL_FLOAT": lambda values: pc.less(_numbers(values), limits.min),
    }
    return bounds[type_]


MISSING = {
    "FEATURE_TYPE_LOW_FRACTION_PRESENT",
    "FEATURE_TYPE_LOW_NUMBER_PRESENT",
    "FEATURE_TYPE_NOT_PRESENT",
    "ALL_MISSING",
    "MISSING_LABELS",
}


def _everything(values: pa.Array) -> pa.Array:
    return pa.array(np.ones(len(values), dtype=bool))


def _infinite(values: pa.Array) -> pa.Array:
    return pc.is_inf(values)


def _nan(values: pa.Array) -> pa.Array:
    return pc.is_nan(values)


def _huge(values: pa.Array) -> pa.Array:
    return pc.greater(pc.binary_length(values), HUGE_STRING_BYTES)


def _no_utf8(values: pa.Array) -> pa.Array:
    def is_broken(value: pa.Scalar) -> bool:
        try:
            str(value.as_buffer(), encoding="utf-8")
        except UnicodeDecodeError:
            return True
        return False

    return pa.array([is_broken(value) for value in values], pa.bool_())


def _no_integer(values: pa.Array) -> pa.Array:
    return pc.invert(pc.match_substring_regex(values, r"^[-+]?[0-9]+$"))


def _no_number(values: pa.Array) -> pa.Array:
    return pc.invert(pc.match_substring_regex(values, r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"))


_BY_VALUE: dict[str, Mask] = {
    "SCHEMA_NEW_COLUMN": _everything,
    "UNEXPECTED_DATA_TYPE": _everything,
    "CONSTANT_FEATURE": _everything,
    "SINGLE_CLASS": _everything,
    "UNEXPECTED_CLASSES": _everything,
    "FLOAT_TYPE_HAS_INF": _infinite,
    "INFINITE_VALUES": _infinite,
    "FLOAT_TYPE_HAS_NAN": _nan,
    "NAN_VALUES": _nan,
    "HUGE_STRINGS": _huge,
    "ENUM_TYPE_INVALID_UTF8": _no_utf8,
    "INT_TYPE_NOT_INT_STRING": _no_integer,
    "FLOAT_TYPE_STRING_NOT_FLOAT": _no_number,
}


def _numbers(values: pa.Array) -> pa.Array:
    """Reads strings as numbers, null where they are none: a string column may have an int_domain."""
    if not pa.types.is_string(values.type):
        return values
    return pc.if_else(_no_number(values), pa.scalar(None, pa.string()), values).cast(pa.float64())


def _outside(domain: list[str]) -> Mask:
    known = pa.array(domain, pa.string())
    return lambda values: pc.invert(pc.is_in(values.cast(pa.string()), value_set=known))


def _domain(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> list[str]:
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    if feature.HasField("bool_domain"):
        return [feature.bool_domain.true_value, feature.bool_domain.false_value]
    return [value for domain in schema.string_domain if domain.name == feature.domain for value in domain.value]


def _count(column: pa.Array, offence: Offence) -> None:
    if offence.mask is None:
        offence.rows += column.null_count
        return
    values, rows = _distinct(column)
    offends = offence.mask(values).fill_null(False).to_numpy(zero_copy_only=False)
    offending = np.flatnonzero(offends & (rows > 0))
    offence.rows += int(rows[offending].sum())
    # A column can have more distinct offending values than fit: the frequent ones are what is shown.
    shown = offending[np.argsort(-rows[offending], kind="stable")][:_KEPT]
    for index in shown.tolist():
        offence.values[as_text(values[index])] += int(rows[index])
    if len(offence.values) > 2 * _KEPT:
        offence.values = Counter(dict(offence.values.most_common(_KEPT)))


def _distinct(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Gives the values that occur and the rows of each."""
    if isinstance(column, pa.DictionaryArray):
        indices = column.indices.drop_null().to_numpy(zero_copy_only=False)
        return column.dictionary, np.bincount(indices, minlength=len(column.dictionary))
    counts = column.drop_null().value_counts()
    return counts.field("values"), counts.field("counts").to_numpy(zero_copy_only=False)


def as_text(value: pa.Scalar) -> str:
    """Writes a value for a reader, on one line and not too long."""
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
        buffer = value.as_buffer()
        # Four bytes hold any character; the rest of a long value is never decoded.
        text = bytes(buffer[: 4 * _TEXT_CHARACTERS]).decode(errors="replace")
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        if len(text) <= _TEXT_CHARACTERS and buffer.size <= 4 * _TEXT_CHARACTERS:
            return text
        return f"{text[:_TEXT_CHARACTERS]}… ({buffer.size:,} bytes)"
    number = value.as_py()
    return f"{number:g}" if isinstance(number, float) else str(number)
