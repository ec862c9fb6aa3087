"""Profiles: how the values of columns are distributed, in counts that other rows can be held against.

A number is counted in bins whose edges are quantiles of the rows that the profile was first made of, a category by its
values. Counts over the same bins and values can be compared exactly, however the rows came.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field
from tensorflow_metadata.proto.v0 import schema_pb2

BINS = 20
MOST_VALUES = 1000
"""Of a category, by frequency; the rest is counted together."""
FILE = "profile.json"
"""Inside the statistics of a published model: of its train split."""

_KEPT = 10 * MOST_VALUES

Counts = npt.NDArray[np.int64]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumberProfile(_Record):
    """Counts of a number."""

    kind: Literal["number"] = "number"
    edges: list[float]
    """Ascending. A bin holds its upper edge; the last one holds what is above all edges."""
    counts: list[int]
    """Rows in each of the bins, one more than edges."""
    missing: int = 0
    """Rows without a value, or with NaN."""


class CategoryProfile(_Record):
    """Counts of a category."""

    kind: Literal["category"] = "category"
    values: list[str]
    """The most frequent first."""
    counts: list[int]
    """Rows with each of them."""
    others: int = 0
    """Rows with another value."""
    complete: bool
    """Whether `values` were all that occurred in the rows that the profile was first made of."""
    missing: int = 0
    """Rows without a value."""


ColumnProfile = Annotated[NumberProfile | CategoryProfile, Field(discriminator="kind")]


class Profile(_Record):
    """How the values of columns are distributed."""

    format: Literal[1] = 1
    rows: int
    columns: dict[str, ColumnProfile]


def profiled_columns(schema: schema_pb2.Schema, columns: pa.Schema) -> dict[str, Literal["number", "category"]]:
    """Tells how each column is counted; a time is not, as later rows always have other times.

    Args:
        schema: what the columns mean.
        columns: names and types, as stored.
    """
    found: dict[str, Literal["number", "category"]] = {}
    by_name = {feature.name: feature for feature in schema.feature}
    for name, kind in zip(columns.names, columns.types, strict=True):
        feature = by_name.get(name)
        if feature is not None and not feature.HasField("time_domain"):
            is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
            found[name] = "number" if is_number and not feature.int_domain.is_categorical else "category"
    return found


def bins_of(values: npt.NDArray[Any]) -> list[float]:
    """Chooses the edges of a number's bins: of about equal counts, or one a value where there are few.

    Args:
        values: some of them; what is not finite is left out.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return []
    distinct = np.unique(values)
    if distinct.size <= BINS:
        edges = distinct
    else:
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="lower"))
    if edges[0] == distinct[0]:
        # What is below the smallest value is a bin of its own, where that value is common.
        edges = np.concatenate(([np.nextafter(edges[0], -np.inf)], edges))
    return [float(edge) for edge in edges]


class ProfileBuilder:
    """Counts rows batch by batch."""

    def __init__(self, edges: Mapping[str, list[float]], categories: Mapping[str, CategoryProfile | None]) -> None:
        """Names the columns.

        Args:
            edges: of the bins, by number.
            categories: by category, the profile whose values are counted; None: its own most frequent ones.
        """
        self._edges = {name: np.array(one) for name, one in edges.items()}
        self._known = {name: _Values(one) for name, one in categories.items() if one is not None}
        self._free: dict[str, Counter[str]] = {name: Counter() for name, one in categories.items() if one is None}
        self._counts = {name: np.zeros(len(one) + 1, np.int64) for name, one in self._edges.items()}
        self._missing: Counter[str] = Counter()
        self._cut: set[str] = set()
        self.rows = 0

    @classmethod
    def like(cls, profile: Profile, names: Iterable[str] | None = None) -> "ProfileBuilder":
        """Counts over the bins and values of another profile, so that the two can be compared."""
        wanted = profile.columns if names is None else {name: profile.columns[name] for name in names}
        return cls(
            {name: one.edges for name, one in wanted.items() if isinstance(one, NumberProfile)},
            {name: one for name, one in wanted.items() if isinstance(one, CategoryProfile)},
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes some rows; they must have all columns."""
        self.rows += batch.num_rows
        for name, edges in self._edges.items():
            values = numbers_of(batch.column(batch.schema.get_field_index(name)))
            present = values[~np.isnan(values)]
            self._missing[name] += len(values) - len(present)
            bins = np.searchsorted(edges, present, side="left")
            self._counts[name] += np.bincount(bins, minlength=len(edges) + 1)
        for name, known in self._known.items():
            texts, counts = self._tally(batch, name)
            known.add(texts, counts)
        for name, seen in self._free.items():
            texts, counts = self._tally(batch, name)
            seen.update(dict(zip(texts.to_pylist(), counts.tolist(), strict=True)))
            if len(seen) > 2 * _KEPT:
                self._cut.add(name)
                self._free[name] = Counter(dict(seen.most_common(_KEPT)))

    def profile(self) -> Profile:
        """Gives the counts of all rows so far."""
        columns: dict[str, NumberProfile | CategoryProfile] = {}
        for name, counts in self._counts.items():
            columns[name] = NumberProfile(
                edges=self._edges[name].tolist(), counts=counts.tolist(), missing=self._missing[name]
            )
        for name, known in self._known.items():
            columns[name] = known.profile(self._missing[name])
        for name, seen in self._free.items():
            # By value where counts are equal: the order of the rows decides nothing.
            frequent = sorted(seen.items(), key=lambda one: (-one[1], one[0]))[:MOST_VALUES]
            counted = sum(count for _, count in frequent)
            columns[name] = CategoryProfile(
                values=[value for value, _ in frequent],
                counts=[count for _, count in frequent],
                others=self.rows - self._missing[name] - counted,
                complete=len(seen) <= MOST_VALUES and name not in self._cut,
                missing=self._missing[name],
            )
        return Profile(rows=self.rows, columns=columns)

    def unknown_values(self) -> dict[str, Counter[str]]:
        """Gives, by category, values that are not among those counted, with their rows; of very many the frequent."""
        return {name: known.unknown for name, known in self._known.items()}

    def _tally(self, batch: pa.RecordBatch, name: str) -> tuple[pa.Array, Counts]:
        column = batch.column(batch.schema.get_field_index(name))
        texts, counts = distinct_texts(column)
        self._missing[name] += len(column) - int(counts.sum())
        return texts, counts


class _Values:
    """Counts the values that another profile names."""

    def __init__(self, like: CategoryProfile) -> None:
        self._like = like
        self._set = pa.array(like.values, pa.string())
        self._counts = np.zeros(len(like.values), np.int64)
        self._others = 0
        self.unknown: Counter[str] = Counter()

    def add(self, texts: pa.Array, counts: Counts) -> None:
        places = pc.fill_null(pc.index_in(texts, value_set=self._set), -1).to_numpy(zero_copy_only=False)
        known = places >= 0
        np.add.at(self._counts, places[known], counts[known])
        self._others += int(counts[~known].sum())
        strange = texts.filter(pa.array(~known))
        self.unknown.update(dict(zip(strange.to_pylist(), counts[~known].tolist(), strict=True)))
        if len(self.unknown) > 2 * _KEPT:
            self.unknown = Counter(dict(self.unknown.most_common(_KEPT)))

    def profile(self, missing: int) -> CategoryProfile:
        update = {"counts": self._counts.tolist(), "others": self._others, "missing": missing}
        return self._like.model_copy(update=update)


def numbers_of(column: pa.Array) -> npt.NDArray[np.float64]:
    """Gives a column's values as float64 [rows], NaN where there is none."""
    if column.null_count:
        column = pc.cast(column, pa.float64(), safe=False) if not pa.types.is_float64(column.type) else column
        column = pc.fill_null(column, np.nan)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def distinct_texts(column: pa.Array) -> tuple[pa.Array, Counts]:
    """Gives the distinct values of a column as text, without null, and the rows of each."""
    if isinstance(column, pa.DictionaryArray):
        indices = column.indices.drop_null().to_numpy(zero_copy_only=False)
        counts = np.bincount(indices, minlength=len(column.dictionary))
        present = counts > 0
        return _texts(column.dictionary.filter(pa.array(present))), counts[present]
    tally = column.drop_null().value_counts()
    return _texts(tally.field("values")), tally.field("counts").to_numpy(zero_copy_only=False)


def _texts(values: pa.Array) -> pa.Array:
    texts = values if pa.types.is_string(values.type) else pc.cast(values, pa.string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8
        return pa.array([value.as_buffer().to_pybytes().decode(errors="replace") for value in texts])
    return texts


def make_profile(
    sample: pa.Table, batches: Iterable[pa.RecordBatch], kinds: Mapping[str, Literal["number", "category"]]
) -> Profile:
    """Counts all rows, over bins that a sample of them decides.

    Args:
        sample: with the numbers.
        batches: of all rows.
        kinds: the columns, and how they are counted.
    """
    edges = {
        name: bins_of(numbers_of(sample[name].combine_chunks())) for name, kind in kinds.items() if kind == "number"
    }
    builder = ProfileBuilder(edges, {name: None for name, kind in kinds.items() if kind == "category"})
    for batch in batches:
        builder.add(batch)
    return builder.profile()


def write_profile(folder: Path, profile: Profile) -> None:
    """Writes a profile into a directory of statistics."""
    (folder / FILE).write_text(profile.model_dump_json(), encoding="utf-8")


def comparable(one: NumberProfile | CategoryProfile, other: NumberProfile | CategoryProfile) -> bool:
    """Tells whether two profiles count over the same bins or values."""
    if isinstance(one, NumberProfile) and isinstance(other, NumberProfile):
        return one.edges == other.edges
    return isinstance(one, CategoryProfile) and isinstance(other, CategoryProfile) and one.values == other.values


def cells(profile: NumberProfile | CategoryProfile) -> Sequence[int]:
    """Gives the counts of a column, the rest of a category last."""
    return profile.counts if isinstance(profile, NumberProfile) else [*profile.counts, profile.others]
