"""Segments: counts and mean predictions by the values of columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_MOST = 1000
"""Values of a segmentation that are counted; the rarest beyond are left out."""
_SHOWN = 25


@dataclass(frozen=True)
class Segment:
    """Rows that share the values of some columns."""

    values: tuple[str, ...]
    rows: int
    mean: float | None
    """Of the prediction; None: it is a class."""
    positive: float | None
    """Share of rows whose decision is positive; None: there is no decision."""


class Segments:
    """Counts the rows of each value, batch by batch."""

    def __init__(self, columns: Sequence[str], number: str | None, positive: str | None) -> None:
        """Starts with nothing.

        Args:
            columns: whose values, or combinations of values, are told apart.
            number: the column of the prediction, where it is a number.
            positive: a column of truth values.
        """
        self.columns = list(columns)
        self._number, self._positive = number, positive
        self._parts: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Takes rows."""
        keys = {name: table[name].cast(pa.string()).fill_null("(missing)") for name in self.columns}
        sums = {
            "n": pa.array([1]).take(pa.array([0] * table.num_rows, pa.int8())),
            "s": table[self._number].cast(pa.float64()) if self._number else pa.nulls(table.num_rows, pa.float64()),
            "p": table[self._positive].cast(pa.int64()) if self._positive else pa.nulls(table.num_rows, pa.int64()),
        }
        named = pa.table([*keys.values(), *sums.values()], [*_keys(keys), *sums])
        self._parts.append(_grouped(named, len(keys)))
        if len(self._parts) > 16:
            self._parts = [self._merged()]

    def largest(self) -> list[Segment]:
        """Lists the segments with most rows."""
        if not self._parts:
            return []
        segments = []
        for row in self._merged().slice(0, _SHOWN).to_pylist():
            values = tuple(row[key] for key in _keys(self.columns))
            mean = row["s"] / row["n"] if self._number and row["s"] is not None else None
            positive = row["p"] / row["n"] if self._positive and row["p"] is not None else None
            segments.append(Segment(values, row["n"], mean, positive))
        return segments

    def _merged(self) -> pa.Table:
        merged = _grouped(pa.concat_tables(self._parts), len(self.columns))
        return merged.take(pc.sort_indices(merged, [("n", "descending")])).slice(0, _MOST)


def _keys(columns: Sequence[str] | dict[str, object]) -> list[str]:
    """Names the key columns by number: hostile names must not meet ours."""
    return [f"k{number}" for number in range(len(columns))]


def _grouped(table: pa.Table, keys: int) -> pa.Table:
    names = [f"k{number}" for number in range(keys)]
    grouped = table.group_by(names).aggregate([("n", "sum"), ("s", "sum"), ("p", "sum")])
    return grouped.select([*names, "n_sum", "s_sum", "p_sum"]).rename_columns([*names, "n", "s", "p"])
