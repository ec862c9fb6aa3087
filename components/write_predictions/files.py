"""Files of predictions: Parquet, CSV or JSON lines, divided by a column's values and by a number of rows."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from components.errors import DataRejectedError
from components.settings import BatchOutput

_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, Spark and Arrow take for a missing value."""
_LONGEST_NAME = 200
_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst", "snappy": ""}


class _Sink(Protocol):
    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


def write_files(folder: Path, tables: Iterable[pa.Table], schema: pa.Schema, output: BatchOutput) -> list[str]:
    """Writes tables below a folder; memory does not grow with the number of rows.

    Args:
        folder: to write into.
        tables: all of the schema.
        schema: of the tables, needed where there are none.
        output: format, compression, division.

    Returns:
        The files, from the folder, in order.

    Raises:
        DataRejectedError: the column that divides has too many or too long values.
    """
    files = _Files(folder, schema, output)
    try:
        for table in tables:
            for value, rows in _divided(table, output):
                files.write(value, rows)
        if not output.partition_by and not files.names:  # a file without rows still tells the columns
            files.write("", schema.empty_table())
    finally:
        files.close()
    return sorted(files.names)


class _Files:
    """One open file for each value of the column that divides."""

    def __init__(self, folder: Path, schema: pa.Schema, output: BatchOutput) -> None:
        self._folder = folder
        self._output = output
        self._schema = pa.schema([field for field in schema if field.name != output.partition_by])
        self._open: dict[str, tuple[_Sink, int]] = {}
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []

    def write(self, value: str, table: pa.Table) -> None:
        while table.num_rows or value not in self._numbers:
            sink, rows = self._open.get(value) or (self._next(value), 0)
            some = table.slice(0, self._output.file_rows - rows)
            sink.write_table(some)
            table = table.slice(some.num_rows)
            self._open[value] = (sink, rows + some.num_rows)
            if rows + some.num_rows >= self._output.file_rows:
                self._open.pop(value)[0].close()

    def _next(self, value: str) -> _Sink:
        if value not in self._numbers and len(self._numbers) >= self._output.max_partitions:
            raise DataRejectedError(
                f"batch.output.partition_by: '{self._output.partition_by}' has more than "
                f"{self._output.max_partitions:,} values (batch.output.max_partitions); divide by another column"
            )
        number = self._numbers[value] = self._numbers.get(value, -1) + 1
        kind, compression = self._output.format, compression_of(self._output)
        suffix = "" if kind == "parquet" else _SUFFIXES[compression]
        name = f"{value}/part-{number:05d}.{kind}{suffix}".lstrip("/")
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.names.append(name)
        return _SINKS[kind](path, self._schema, compression)

    def close(self) -> None:
        for sink, _ in self._open.values():
            sink.close()
        self._open.clear()


def compression_of(output: BatchOutput) -> str:
    """Names the compression that `auto` stands for."""
    if output.compression != "auto":
        return output.compression
    return "zstd" if output.format == "parquet" else "none"


def plain(table: pa.Table) -> pa.Table:
    """Turns lists, which neither CSV nor a database's table holds, into JSON text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = pa.array(
                [None if v is None else json.dumps(v) for v in table.column(index).to_pylist()], pa.string()
            )
            table = table.set_column(index, field.name, texts)
    return table


def _divided(table: pa.Table, output: BatchOutput) -> Iterator[tuple[str, pa.Table]]:
    if not output.partition_by:
        yield "", table
        return
    column = table[output.partition_by].combine_chunks()
    rest = table.drop_columns([output.partition_by])
    for value in pc.unique(column):
        here = pc.is_null(column) if not value.is_valid else pc.equal(column, value)
        name = f"{quote(output.partition_by, safe='')}={quote(str(value), safe='') if value.is_valid else _NULL}"
        if len(name) > _LONGEST_NAME:
            raise DataRejectedError(
                f"batch.output.partition_by: a value of '{output.partition_by}' makes the folder name '{name[:60]}…' "
                f"({len(name)} characters, limit: {_LONGEST_NAME}); divide by another column"
            )
        yield name, rest.filter(here)


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema, compression: str) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression=compression)

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Text:
    """CSV or JSON lines: something that turns tables into bytes of a stream."""

    def __init__(self, path: Path, compression: str) -> None:
        self._file = pa.OSFile(str(path), "wb")
        self._stream: Any = self._file
        if compression != "none":
            self._stream = pa.CompressedOutputStream(self._file, compression)

    def close(self) -> None:
        self._stream.close()
        self._file.close()


class _Csv(_Text):
    def __init__(self, path: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(path, compression)
        self._writer = pa.csv.CSVWriter(self._stream, plain(schema.empty_table()).schema)

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(plain(table))

    def close(self) -> None:
        self._writer.close()
        super().close()


class _JsonLines(_Text):
    def __init__(self, path: Path, schema: pa.Schema, compression: str) -> None:
        super().__init__(path, compression)
        del schema

    def write_table(self, table: pa.Table) -> None:
        if table.num_rows:
            self._stream.write(json_lines(table))


def json_lines(table: pa.Table) -> bytes:
    """Writes a JSON object a row; what JSON has no number for is null."""
    pieces: list[Any] = []
    for number, name in enumerate(table.column_names):
        pieces += [f"{'{' if number == 0 else ', '}{json.dumps(name, ensure_ascii=False)}: ", _values(table[name])]
    lines = pc.binary_join_element_wise(*pieces, "}\n", "")
    return "".join(lines.to_pylist()).encode()


def _values(column: pa.ChunkedArray) -> pa.Array:
    """Gives each value as JSON text."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_nested(array.type):
        return pa.array([json.dumps(value, ensure_ascii=False) for value in array.to_pylist()], pa.string())
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    if pa.types.is_string(array.type) or pa.types.is_timestamp(array.type):
        encoded = array.cast(pa.string()).dictionary_encode()
        texts = [json.dumps(value, ensure_ascii=False) for value in encoded.dictionary.to_pylist()]
        array = pa.array(texts, pa.string()).take(encoded.indices)
    return pc.fill_null(array.cast(pa.string()), "null")


_SINKS: dict[str, Callable[[Path, pa.Schema, str], _Sink]] = {
    "parquet": _Parquet,
    "csv": _Csv,
    "jsonl": _JsonLines,
}
