"""Window features on the way into a dataset: rows wait on the disk until those that follow them are known."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError, InputError
from components.ingest_data.conversions import unix_milliseconds
from components.schema import Column
from components.settings import WindowFeatures
from components.window_features.arrays import compute
from components.window_features.columns import LATEST_MS, input_faults, schema_faults, type_of


def check_windows(windows: WindowFeatures, schema: Mapping[str, Column]) -> None:
    """Holds window features against the schema, which describes them like columns of the source.

    Raises:
        InputError: it lacks a feature or a column, or has it with another type.
    """
    for _, fault in schema_faults(windows, schema):
        raise InputError(fault)


class WindowedRows:
    """Takes rows, batch by batch, and gives them back with their window features.

    The rows themselves wait in a file; memory holds times, keys and values that features are made of.
    """

    def __init__(self, windows: WindowFeatures, columns: Sequence[Column]) -> None:
        """Takes what is to be computed.

        Args:
            windows: which features.
            columns: of the rows.

        Raises:
            InputError: a feature cannot be made of a column's type.
        """
        for _, fault in input_faults(windows, {column.name: column for column in columns}):
            raise InputError(fault)
        self.inputs = [column for column in columns if column.name in windows.inputs]
        """What `add_earlier` takes."""
        self._windows = windows
        self._inputs: dict[str, list[pa.Array]] = {name: [] for name in windows.inputs}
        self._times: list[pa.Array] = []
        self._earlier = 0
        self._schema = pa.schema([(column.name, column.type) for column in columns])
        self._folder = tempfile.TemporaryDirectory(prefix="ingest_data-")
        self._file = Path(self._folder.name) / "rows.arrow"
        self._writer = pa.ipc.new_file(self._file, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        self._folder.cleanup()

    def add_earlier(self, batch: pa.RecordBatch) -> None:
        """Takes the inputs of rows that only others see, all before the first `add`.

        Raises:
            DataRejectedError: one has what is no time.
        """
        self._note(batch)
        self._earlier += batch.num_rows

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes rows.

        Raises:
            DataRejectedError: one has what is no time.
        """
        self._note(batch)
        self._writer.write_batch(batch)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Gives the rows of `add`, in their order, once."""
        self._writer.close()
        times = pa.chunked_array(self._times, pa.int64()).combine_chunks()
        columns = {name: _whole(parts) for name, parts in self._inputs.items() if name != self._windows.time}
        self._inputs, self._times = {}, []
        found = compute(self._windows, times, columns)
        del times, columns
        row = self._earlier
        with pa.memory_map(str(self._file)) as source, pa.ipc.open_file(source) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                for name, values in found.items():
                    batch = batch.append_column(name, values.slice(row, batch.num_rows))
                row += batch.num_rows
                yield batch

    def _note(self, batch: pa.RecordBatch) -> None:
        for name, parts in self._inputs.items():
            column = batch.column(name)
            if name == self._windows.time:
                self._times.append(self._milliseconds(column))
            else:
                # Text takes little memory as numbers of its values.
                parts.append(pc.dictionary_encode(column) if pa.types.is_string(column.type) else column)

    def _milliseconds(self, column: pa.Array) -> pa.Array:
        setting = f"window_features.time: '{self._windows.time}'"
        try:
            times = unix_milliseconds(column)
        except pa.ArrowInvalid as error:
            raise DataRejectedError(f"{setting} holds what is no time: {error}; fix it") from error
        beyond = pc.greater(pc.abs(times), LATEST_MS)
        if pc.any(beyond).as_py():
            example: Any = column.filter(beyond)[0].as_py()
            raise DataRejectedError(
                f"{setting} is {example!r}, no number of seconds or milliseconds since 1970; fix it, or name another "
                "column"
            )
        return times


def feature_types(windows: WindowFeatures) -> dict[str, pa.DataType]:
    """Gives the types of the columns that window features become."""
    return {feature.name: type_of(feature) for feature in windows.features}


def _whole(parts: Sequence[pa.Array]) -> pa.Array:
    chunks = pa.chunked_array(parts)
    whole = chunks.unify_dictionaries().combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
