"""Plain files of predictions, CSV or Parquet, with a row each."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components import storage
from components.prediction_log.files import LogFile
from components.prediction_log.form import Form, LogCounts, conformed
from components.request_columns import MODEL_VERSION, REQUEST_ID, TIME
from components.settings import CsvOptions, LogColumns

_PARQUET = (".parquet", ".pq")


class Tables:
    """Reads files whose columns are named in the settings."""

    def __init__(self, columns: LogColumns, options: CsvOptions, form: Form, counts: LogCounts, rows: int) -> None:
        """Args: rows: of a batch, at most."""
        self._csv = options
        self._form = form
        self._counts = counts
        self._rows = rows
        own = {TIME: columns.request_time, REQUEST_ID: columns.request_id, MODEL_VERSION: columns.model_version}
        features = {name: columns.features.get(name, name) for name in form.features}
        outputs = {name: name for name in form.outputs}
        if columns.prediction:
            outputs[_answer(form)] = columns.prediction
        self._sources = own | {key: key for key in form.keys} | features | outputs

    def read(self, file: LogFile) -> Iterator[tuple[pa.RecordBatch, bool]]:
        """Yields the rows in the form, and whether they tell an id.

        Raises:
            pyarrow.ArrowException, OSError, UnicodeError: the file is damaged.
        """
        for batch in self._parquet(file) if file.path.endswith(_PARQUET) else csv_batches(file, self._csv):
            there = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns = {name: there[source] for name, source in self._sources.items() if source in there}
            columns |= _split(columns, self._form)
            yield conformed(columns, batch.num_rows, self._form, self._counts), REQUEST_ID in columns

    def _parquet(self, file: LogFile) -> Iterator[pa.RecordBatch]:
        parquet = file.open_parquet()
        wanted = [name for name in parquet.schema_arrow.names if name in set(self._sources.values())]
        yield from parquet.iter_batches(self._rows, columns=wanted)


def csv_batches(file: LogFile, options: CsvOptions) -> Iterator[pa.RecordBatch]:
    """Reads CSV with all cells as text: what a column holds is decided cell by cell.

    Raises:
        pyarrow.ArrowException, OSError, UnicodeError: the file is damaged.
    """
    raw = pa.BufferReader(file.content()) if storage.is_remote(file.uri) else pa.OSFile(file.path)
    compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(file.path).suffix)
    content = (pa.CompressedInputStream(raw, compression) if compression else raw).read()
    reading = pa.csv.ReadOptions(use_threads=False, encoding=options.encoding)
    parsing = pa.csv.ParseOptions(delimiter=options.delimiter, quote_char=options.quote, newlines_in_values=True)
    header = io.TextIOWrapper(io.BytesIO(content), options.encoding.replace("utf-8", "utf-8-sig"), newline="")
    names = next(csv.reader(header, delimiter=options.delimiter, quotechar=options.quote), [])
    converting = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, null_values=options.null_values, strings_can_be_null=True
    )
    with pa.csv.open_csv(io.BytesIO(content), reading, parsing, converting) as batches:
        yield from batches


def _answer(form: Form) -> str:
    """Names the output that one column of predictions stands for."""
    names = list(form.outputs)
    return "class" if "class" in names else names[0]


def _split(columns: dict[str, pa.Array], form: Form) -> dict[str, pa.Array]:
    """Turns lists of any kind into the fixed lists of the form, where they have its width."""
    found = {}
    for name, kind in form.outputs.items():
        column = columns.get(name)
        if column is None or not pa.types.is_fixed_size_list(kind):
            continue
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            fine = pc.equal(pc.fill_null(pc.list_value_length(column), -1), kind.list_size).to_pylist()
            values = [value if ok else None for value, ok in zip(column.to_pylist(), fine, strict=True)]
            found[name] = pa.array(values, kind)
    return found
