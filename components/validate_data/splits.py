"""The splits of a dataset, read in batches of bounded size."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import read_manifest, split_files
from components.errors import DataRejectedError
from components.parquet_files import local_parquet

_BATCH_ROWS = 65_536
_BATCH_BYTES = 32 << 20
_LONG_BYTES = 10_000


@dataclass(frozen=True)
class Split:
    """One split: Parquet parts that all have the same columns."""

    name: str
    files: tuple[Path, ...]
    columns: pa.Schema
    """As stored."""
    rows: int
    batch_rows: int
    """So many rows that an average batch stays small."""
    dictionaries: tuple[str, ...]
    """String columns that are read as dictionary arrays."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Reads the rows in order.

        A batch is also small once its dictionaries are decoded: a string of a megabyte that fills a column
        takes one megabyte in the file and would take 64 GB in a batch.

        Args:
            columns: names of those to read; default: all.

        Raises:
            DataRejectedError: a part cannot be read to its end.
        """
        for file in self.files:
            try:
                with local_parquet(file, memory_map=True, read_dictionary=self.dictionaries) as parquet:
                    for batch in parquet.iter_batches(self.batch_rows, columns=columns):
                        yield from _slices(batch)
            except (pa.ArrowInvalid, OSError) as error:
                raise _unreadable(file, error) from error


def open_splits(dataset: Path) -> dict[str, Split]:
    """Opens every split that the manifest names; only the files' footers are read.

    Raises:
        InputError: no dataset, or a split without files.
        DataRejectedError: a part cannot be read, or its columns are not what a dataset has.
    """
    return {name: _open_split(name, split_files(dataset, name)) for name in read_manifest(dataset).splits}


def _open_split(name: str, files: list[Path]) -> Split:
    footers = [_footer(file) for file in files]
    columns = footers[0].schema.to_arrow_schema().remove_metadata()
    for file, footer in zip(files, footers, strict=True):
        _check_columns(file, footer.schema.to_arrow_schema().remove_metadata(), columns)
    groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
    row_bytes = max(row_bytes, 8 * len(columns), 1)
    strings = [i for i, kind in enumerate(columns.types) if is_string(kind)]
    return Split(
        name=name,
        files=tuple(files),
        columns=columns,
        rows=sum(footer.num_rows for footer in footers),
        batch_rows=max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / row_bytes))),
        dictionaries=tuple(columns.names[i] for i in strings if not _has_long_values(groups, i)),
    )


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataRejectedError:
    return DataRejectedError(f"'{file}' is not readable as Parquet ({error}); run ingest_data again")


def _check_columns(file: Path, found: pa.Schema, wanted: pa.Schema) -> None:
    times = Counter(found.names)
    for name, kind in zip(found.names, found.types, strict=True):
        if times[name] > 1:
            raise DataRejectedError(f"'{file}': column '{name}' is there {times[name]} times (allowed: 1)")
        if not (is_string(kind) or pa.types.is_integer(kind) or _is_number(kind)):
            raise DataRejectedError(
                f"'{file}': column '{name}' has Arrow type {kind} (allowed: string, int64, float32); "
                "write it with ingest_data"
            )
    if dict(zip(found.names, found.types, strict=True)) != dict(zip(wanted.names, wanted.types, strict=True)):
        raise DataRejectedError(f"'{file}' has other columns or types than the part before it; run ingest_data again")


def is_string(kind: pa.DataType) -> bool:
    """Tells whether a column holds strings, plain or as a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _has_long_values(groups: list[pq.RowGroupMetaData], column: int) -> bool:
    """Tells whether building a dictionary of the values would take more memory than it saves."""
    return any(group.column(column).total_uncompressed_size > _LONG_BYTES * group.num_rows for group in groups)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_float32(kind) or pa.types.is_float64(kind))


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    row_bytes = sum(_mean_bytes(column) for column in batch.columns)
    rows = max(1, int(_BATCH_BYTES / max(row_bytes, 1)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _mean_bytes(column: pa.Array) -> float:
    values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
    return float(values.nbytes / max(len(values), 1))
