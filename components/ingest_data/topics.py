"""Messages of a Kafka topic as Arrow record batches, with the interface of `Reader`."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import DataRejectedError
from components.event_formats import AvroDecoder, EventFormatError
from components.ingest_data.readers import BATCH_ROWS, Shape, conformed
from components.kafka_spans import Message, ranges_of, read
from components.schema import Column
from components.settings import Data
from components.spans import SpanFile

_SHOWN = 60


class TopicReader:
    """Reads the messages of one source; each partition is fetched once, into Parquet files of its own."""

    def __init__(self, data: Data) -> None:
        """Takes how messages are written.

        Raises:
            InputError: the Avro schema is none.
        """
        self.data = data
        self._folder = tempfile.TemporaryDirectory(prefix="ingest_data-")
        self._fetched: dict[str, list[Path]] = {}
        form = data.kafka.format
        self._decode: Callable[[bytes], Any] = (
            AvroDecoder(form, data.kafka.avro_schema) if form.type == "avro" else json.loads
        )

    def shape(self, file: SpanFile) -> Shape:
        """Tells the fields that a partition's messages have.

        Raises:
            DataRejectedError: a message is no object.
            UnavailableError: the broker does not answer.
        """
        types = self.inferred_types(file)
        # Text may hold numbers, as the cells of CSV do: whether it does is told value by value.
        told = {name: kind for name, kind in types.items() if kind != pa.string()}
        return Shape(file.uri, file.span, list(types), told, has_rows=bool(self._parts(file)))

    def inferred_types(self, file: SpanFile) -> dict[str, pa.DataType]:
        """Gives the types of the fields; text where they differ."""
        types: dict[str, pa.DataType] = {}
        for part in self._parts(file):
            for field in pq.read_schema(part):
                known = types.get(field.name, pa.null())
                types[field.name] = _common(known, field.type)
        return types

    @contextlib.contextmanager
    def local_copy(self, file: SpanFile) -> Iterator[tuple[Path, str]]:
        """Gives the folder of a partition's messages, and a SHA-256, in hex, of topic and offsets."""
        parts = self._parts(file)
        of = file.uri.rpartition("/")[2]
        yield parts[0].parent if parts else Path(self._folder.name), hashlib.sha256(of.encode()).hexdigest()

    def batches(self, file: SpanFile, path: Path, columns: list[Column]) -> Iterator[pa.RecordBatch]:
        """Streams a partition's messages, with these columns in this order and of these types.

        Raises:
            DataRejectedError: a value does not fit its column.
        """
        first_row = 1
        for part in self._parts(file):
            table = pq.read_table(part)
            for name in (column.name for column in columns if column.name not in table.column_names):
                table = table.append_column(name, pa.nulls(table.num_rows))
            for batch in table.combine_chunks().to_batches():
                yield conformed(batch, columns, file.uri, first_row)
                first_row += batch.num_rows

    def _parts(self, file: SpanFile) -> list[Path]:
        if file.uri not in self._fetched:
            self._fetched[file.uri] = list(self._fetch(file))
        return self._fetched[file.uri]

    def _fetch(self, file: SpanFile) -> Iterator[Path]:
        (of,) = ranges_of(file.version)
        folder = Path(self._folder.name) / f"{of.partition}-{of.start}"
        folder.mkdir()
        rows: list[dict[str, Any]] = []
        number = 0
        for messages in read(self.data.source, of):
            rows += [row for row in map(self._row, messages) if row is not None]
            while len(rows) >= BATCH_ROWS:
                yield _write(folder / f"{number:06d}.parquet", rows[:BATCH_ROWS])
                rows, number = rows[BATCH_ROWS:], number + 1
        if rows:
            yield _write(folder / f"{number:06d}.parquet", rows)

    def _row(self, message: Message) -> dict[str, Any] | None:
        """Gives a message's fields; None: it has no value."""
        if not message.value:
            return None
        where = f"'{self.data.source}' partition {message.partition}, offset {message.offset}"
        try:
            row = self._decode(message.value)
        except (EventFormatError, ValueError, RecursionError) as error:
            raise DataRejectedError(f"{where}: {error}; leave it out of data.window") from error
        if not isinstance(row, dict):
            raise DataRejectedError(
                f"{where}: the value is {str(row)[:_SHOWN]}, no object; leave it out of data.window"
            )
        kafka = self.data.kafka
        if kafka.timestamp_column:
            row[kafka.timestamp_column] = message.timestamp_ms // 1000
        if kafka.key_column:
            row[kafka.key_column] = None if message.key is None else message.key.decode(errors="replace")
        return row


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _array([row.get(name) for row in rows]) for name in names}
    pq.write_table(pa.table(columns), path, compression="lz4")
    return path


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # Of several kinds: as text, which the schema's type may still take.
        texts = [
            value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values
        ]
        return pa.array(texts, pa.string())


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    try:
        return pa.unify_schemas(
            [pa.schema([("value", one)]), pa.schema([("value", other)])], promote_options="permissive"
        )[0].type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
