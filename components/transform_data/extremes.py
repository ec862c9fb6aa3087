"""What the statistics in Parquet files tell about columns, without reading a row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataRejectedError


@dataclass
class Extremes:
    """The range of a column, as far as its files know it."""

    rows: int = 0
    missing: int = 0
    low: Any = None
    high: Any = None

    def add(self, rows: int, statistics: Any) -> None:
        """Widens the range by a chunk of `rows` rows with Parquet's statistics, or None."""
        self.rows += rows
        if statistics is None or not statistics.has_null_count:
            return
        is_number = statistics.physical_type in ("FLOAT", "DOUBLE")
        if statistics.has_min_max:
            # Raw: text as bytes, for it may be no UTF-8.
            low, high = statistics.min_raw, statistics.max_raw
            self.missing += statistics.null_count
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        else:  # NaN has no place in a range, and text longer than 4 KiB is left out
            self.missing += rows if is_number else statistics.null_count

    @property
    def is_missing(self) -> bool:
        """Whether no row has a value."""
        return self.missing == self.rows or self.low == self.high == b""

    @property
    def is_constant(self) -> bool:
        """Whether all rows have the same value."""
        return self.missing == 0 and self.low is not None and self.low == self.high


def extremes(files: Sequence[Path]) -> dict[str, Extremes]:
    """Gives the range of every column over Parquet parts.

    Raises:
        DataRejectedError: a file is not Parquet, or only a part of it.
    """
    result: dict[str, Extremes] = {}
    for file in files:
        try:
            metadata = pq.read_metadata(file)
        except pa.ArrowInvalid as error:
            raise DataRejectedError(f"'{file}' cannot be read as Parquet: {error}; run ingest_data again") from error
        for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
            for chunk in (group.column(index) for index in range(group.num_columns)):
                result.setdefault(chunk.path_in_schema, Extremes()).add(group.num_rows, chunk.statistics)
    return result


def require_columns(splits: Mapping[str, Mapping[str, Extremes]], columns: Sequence[str]) -> None:
    """Makes sure that every split has every column.

    Raises:
        DataRejectedError: one has not.
    """
    for split, known in splits.items():
        for name in columns:
            if name not in known:
                raise DataRejectedError(
                    f"split '{split}' has no column '{name}' (it has: {', '.join(known)}); run "
                    "ingest_data with this schema"
                )


def require_values(train: Mapping[str, Extremes], columns: Sequence[str]) -> None:
    """Makes sure that every column has a value in some train row, and tells which are constant.

    Raises:
        DataRejectedError: a column is missing everywhere.
    """
    for name in columns:
        column = train[name]
        if column.is_missing:
            raise DataRejectedError(
                f"column '{name}' is missing in all {column.rows:,} train rows; fix the source, or take it out of "
                "'features'"
            )
        if column.is_constant:
            print(f"transform_data: column '{name}' is {_shown(column.low)} in every train row: it tells nothing")


def require_finite(splits: Mapping[str, Mapping[str, Extremes]], columns: Sequence[str]) -> None:
    """Makes sure that no number is infinite.

    Raises:
        DataRejectedError: one is.
    """
    for split, known in splits.items():
        for name in columns:
            column = known[name]
            for value in (column.low, column.high):
                if isinstance(value, float) and math.isinf(value):
                    raise DataRejectedError(
                        f"column '{name}' holds {value} in split '{split}' (allowed: finite numbers); fix the source, "
                        "or leave the value missing there"
                    )


def _shown(value: Any) -> str:
    return repr(value.decode(errors="replace")[:40]) if isinstance(value, bytes) else str(value)
