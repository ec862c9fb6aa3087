"""Rows that share values of some columns."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.predictions import Array

MISSING = "(missing)"
MAX_NUMBERS = 20
"""A number or time with more distinct values is bucketed by quantiles."""
BUCKETS = 5
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Partition:
    """All rows, each in one group: those with the same values of the columns."""

    columns: tuple[str, ...]
    groups: Array
    """int64 [rows]: 0, 1, … without gaps."""
    values: tuple[tuple[str, ...], ...]
    """By group, the value of each column as text."""

    @cached_property
    def rows(self) -> Array:
        """int64 [groups]."""
        return np.bincount(self.groups, minlength=len(self.values))

    def named(self, group: int) -> dict[str, str]:
        """Gives a group's values by column."""
        return dict(zip(self.columns, self.values[group], strict=True))


def partitions(table: pa.Table, slices: Sequence[Sequence[str]]) -> list[Partition]:
    """Partitions the rows once for each entry of `evaluation.slices`.

    Raises:
        InputError: a column is absent, or of a type that has no values to slice by.
    """
    for names in slices:
        for name in names:
            require_column(table.column_names, name, "evaluation.slices: the predictions' table")
    columns = {name: _encode(table[name], name) for names in slices for name in names}
    unique = dict.fromkeys(tuple(dict.fromkeys(names)) for names in slices)
    return [_cross(names, [columns[name] for name in names]) for names in unique]


def require_column(names: Sequence[str], wanted: str, where: str) -> None:
    """Makes sure that a column is there.

    Raises:
        InputError: it is not, with the most similar name.
    """
    if wanted not in names:
        similar = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean '{similar[0]}'?" if similar else f"it has: {', '.join(names)}"
        raise InputError(f"{where} has no column '{wanted}'; {hint}")


def _cross(names: tuple[str, ...], encoded: Sequence[tuple[Array, Sequence[str]]]) -> Partition:
    groups, present = np.unique(encoded[0][0], return_inverse=True)
    values = [(encoded[0][1][code],) for code in groups]
    for codes, texts in encoded[1:]:
        groups, present = np.unique(present * len(texts) + codes, return_inverse=True)
        values = [(*values[group // len(texts)], texts[group % len(texts)]) for group in groups.tolist()]
    return Partition(names, present.astype(np.int64), tuple(values))


def _encode(column: pa.ChunkedArray, name: str) -> tuple[Array, Sequence[str]]:
    """Numbers a column's values; gives each row's number [rows], and the values as text."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_decimal(values.type):
        values = pc.cast(values, pa.float64())
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    ordered = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_temporal(values.type)
    if ordered and pc.count_distinct(values).as_py() > MAX_NUMBERS:
        return _bucket(values)
    try:
        encoded = values.dictionary_encode()
        texts = pc.cast(encoded.dictionary, pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise InputError(
            f"evaluation.slices: column '{name}' of type {values.type} has no values to slice by"
        ) from error
    return _renumbered(encoded.indices, [text or MISSING for text in texts])


def _bucket(values: pa.Array) -> tuple[Array, Sequence[str]]:
    known = values.drop_null()
    order = pc.array_sort_indices(known)
    cuts = order.take(pa.array([len(known) * cut // BUCKETS for cut in range(1, BUCKETS)]))
    edges = pc.unique(known.take(cuts))
    texts = [f"{edge:.6g}" if isinstance(edge, float) else str(edge) for edge in edges.to_pylist()]
    # A bucket holds its lower edge.
    bucket = sum(pc.cast(pc.greater_equal(values, edge), pa.int64()).to_numpy(zero_copy_only=False) for edge in edges)
    names = [
        f"< {texts[0]}",
        *(f"{low} to < {high}" for low, high in pairwise(texts)),
        f"≥ {texts[-1]}",
    ]
    return _renumbered(pa.array(bucket, pa.int64(), from_pandas=True), names)


def _renumbered(indices: pa.Array, texts: Sequence[str]) -> tuple[Array, Sequence[str]]:
    """Sorts a column's texts, with one for null; equal texts (a null and an empty one) become one."""
    texts = [*texts, MISSING]
    names, number = np.unique(np.array(texts, dtype=object), return_inverse=True)
    codes = pc.fill_null(indices, len(texts) - 1).to_numpy(zero_copy_only=False)
    return number[codes], [_short(name) for name in names]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
