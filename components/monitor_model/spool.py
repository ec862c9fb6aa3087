"""The rows of a window on the local disk: read from the log once, and then as often as needed."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from components.prediction_log.form import Form
from components.prediction_log.reader import LogReader
from components.request_columns import MODEL_VERSION, TIME

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@dataclass
class Spool:
    """Rows in the form; text of features as dictionaries."""

    form: Form
    rows: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    """Rows by version; of those that tell none: empty."""
    first: datetime | None = None
    last: datetime | None = None

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="monitor_model-")
        self._path = Path(self._folder.name, "rows.arrow")
        self._types = {name: _DICTIONARY if kind == pa.string() else kind for name, kind in self._fields()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def columns(self) -> pa.Schema:
        """Names and types."""
        return pa.schema(list(self._types.items()))

    def fill(self, reader: LogReader) -> None:
        """Reads the log to its end."""
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(self._path), "wb") as file, pa.ipc.new_stream(file, self.columns, options=options) as out:
            for batch in reader.batches():
                out.write_batch(self._typed(batch))
                self._note(batch)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Reads the rows again."""
        with pa.memory_map(str(self._path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                if columns is None:
                    yield batch
                else:
                    places = [batch.schema.get_field_index(name) for name in columns]
                    yield pa.RecordBatch.from_arrays([batch.column(place) for place in places], list(columns))

    def _fields(self) -> Iterator[tuple[str, pa.DataType]]:
        for one in self.form.schema:
            yield one.name, one.type

    def _typed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            wanted = self._types[name]
            if wanted == _DICTIONARY and not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            columns.append(column if column.type == wanted else column.cast(wanted))
        return pa.RecordBatch.from_arrays(columns, schema=self.columns)

    def _note(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        versions = pc.fill_null(batch.column(batch.schema.get_field_index(MODEL_VERSION)), "").value_counts()
        self.versions.update({one["values"].as_py(): one["counts"].as_py() for one in versions})
        extremes = pc.min_max(batch.column(batch.schema.get_field_index(TIME))).as_py()
        self.first = extremes["min"] if self.first is None else min(self.first, extremes["min"])
        self.last = extremes["max"] if self.last is None else max(self.last, extremes["max"])
