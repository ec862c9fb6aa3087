"""Parquet that a stage before has written: read a batch at a time, with faults told in one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components import storage
from components.errors import InputError


def open_parquet(path: Path | str, remedy: str) -> pq.ParquetFile:
    """Opens a file.

    Args:
        path: of the file, or its URI; of a remote one, only what is needed is read.
        remedy: for the message, e.g. "run ingest_data again".

    Raises:
        InputError: it is no Parquet.
    """
    try:
        if isinstance(path, str) and storage.is_remote(path):
            fs, name = storage.filesystem(path)
            with storage.reaching(path):
                return pq.ParquetFile(fs.open(name, "rb"))
        return local_parquet(path)
    except pa.ArrowException as error:
        raise _unreadable(path, error, remedy) from error


def local_parquet(path: Path | str, **options: Any) -> pq.ParquetFile:
    """Opens a local file, of which batches are read in memory that does not grow with the file.

    Arrow would keep all that it buffers ahead (apache/arrow#39808): the compressed file, after its last batch.

    Args:
        path: of the file.
        options: those of `pyarrow.parquet.ParquetFile`.

    Raises:
        pyarrow.ArrowException: it is no Parquet.
    """
    return pq.ParquetFile(path, pre_buffer=False, **options)


def read_batches(
    path: Path | str,
    names: Sequence[str],
    rows: int,
    remedy: str,
    where: str,
    why: str,
    row_groups: Sequence[int] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yields the columns of a file.

    Args:
        path: of the file.
        names: of the columns.
        rows: of a batch, at most.
        remedy: for the message about a file that cannot be read.
        where: for the message about a column that is not there: what lacks it.
        why: for that message: who needs the column, and what to do.
        row_groups: to read; None: all.

    Raises:
        InputError: a column is not there, or the file is damaged.
    """
    file = open_parquet(path, remedy)
    absent = [name for name in names if name not in file.schema_arrow.names]
    if absent:
        raise InputError(f"{where} has no column '{absent[0]}', which {why}")
    try:
        yield from file.iter_batches(rows, columns=list(names), row_groups=row_groups)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error, remedy) from error


def _unreadable(path: Path | str, error: Exception, remedy: str) -> InputError:
    return InputError(f"'{path}' cannot be read as Parquet: {str(error).splitlines()[0]}; {remedy}")
