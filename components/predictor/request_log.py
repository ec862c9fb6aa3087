"""The request log: what was asked and answered, as Parquet, for monitoring and for the next training.

It never holds up or fails a request. Rows wait in memory, up to a limit; one thread writes them; what finds no room, or
cannot be written by the end, is dropped and counted.

    <uri>/<YYYY-MM-DD>/<HHMMSS>-<host>-<random>-<number>.parquet      UTC, of the file's first row
"""

import io
import logging
import random
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import storage
from components.errors import InputError
from components.model_spec import ModelInput
from components.predictor.columns import is_missing
from components.predictor.faults import hint
from components.predictor.served_model import Facts
from components.request_columns import MODEL_NAME, MODEL_VERSION, REQUEST_ID, REQUEST_ROW, TIME
from components.rows import MISSING_STRING, Arrays

_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}
_GATHERED_ROWS = 500
_LONGEST_PAUSE = 60.0  # seconds between attempts to write to a storage that fails

_logger = logging.getLogger("lockgate")


class _Entry(NamedTuple):
    time: float
    request_id: str
    rows: int
    arrays: Arrays
    """Of all rows that were predicted together: joining these takes a tenth of what joining each request's takes."""
    outputs: Arrays
    start: int
    """Its first row among them."""
    keys: Arrays


@dataclass(frozen=True)
class LogOptions:
    """See the settings of the same names."""

    uri: str
    sample: float
    buffer_rows: int
    file_rows: int
    seconds: float
    redact: Sequence[str] = ()


class RequestLog:
    """A bounded queue of answered requests, and the thread that writes them."""

    def __init__(self, options: LogOptions, facts: Facts, count: Callable[[str, int], None]) -> None:
        """Starts the thread.

        Args:
            options: where and how much.
            facts: of the model.
            count: told "written", "dropped" or "failure", and how many.

        Raises:
            InputError: an unknown scheme or feature, or a feature that is called like another column of the log.
        """
        self._options = options
        self._facts = facts
        self._count = count
        for name in options.redact:
            if name not in facts.by_name and name not in facts.keys:
                raise InputError(f"feature '{name}' to redact is not in the model; {hint(name, facts.by_name)}")
        redacted = {*options.redact, *facts.redacted}
        self._inputs = [i for i in facts.spec.inputs if i.name not in redacted]
        self._keys = [name for name in facts.keys if name not in redacted]
        self._schema = _schema(self._inputs, self._keys, facts)
        self._fs, root = storage.filesystem(options.uri)
        self._root = root.rstrip("/")
        self._is_local = not storage.is_remote(options.uri)
        self._writer = f"{socket.gethostname()[:40]}-{uuid.uuid4().hex[:8]}"
        self._number = 0
        self._draw = random.Random()
        self._entries: deque[_Entry] = deque()
        # Rows so far. Each is written by one thread only, so that an answer waits for no lock.
        self._taken = 0
        self._gathered = 0
        self._settled = 0
        self._few_rows = min(_GATHERED_ROWS, options.file_rows)
        self._has_rows = threading.Event()
        self._is_over = threading.Event()
        self._is_given_up = False
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    def add(
        self,
        request_id: str,
        rows: int,
        arrays: Arrays,
        outputs: Arrays,
        keys: Arrays,
        start: int = 0,
        at: float | None = None,
    ) -> None:
        """Takes an answered request, by the sample; at once, whatever the storage does. For one thread.

        Args:
            request_id: the client's or the server's.
            rows: how many.
            arrays: by feature, of all rows that were predicted together, [all].
            outputs: by output, of the same rows, [all] or [all, width].
            keys: by column of the key that the client gave, text [rows].
            start: which of all rows is the request's first.
            at: seconds since 1970; None: now. For a log that is written later.
        """
        if self._options.sample < 1:
            if self._draw.random() >= self._options.sample:
                return
            # Rows that are not logged must not stay in memory for the sake of one that is.
            arrays, outputs = (_copied(values, start, rows) for values in (arrays, outputs))
            start = 0
        waiting = self._waiting + rows
        if waiting > self._options.buffer_rows or self._is_over.is_set():
            self._count("dropped", rows)
            return
        self._entries.append(_Entry(time.time() if at is None else at, request_id, rows, arrays, outputs, start, keys))
        self._taken += rows
        if self._taken - self._gathered >= self._few_rows:
            self._has_rows.set()

    def close(self, timeout: float) -> None:
        """Writes what waits; what is not written after `timeout` seconds is dropped and counted."""
        self._is_over.set()
        self._has_rows.set()
        self._thread.join(timeout)
        if self._waiting:
            self._is_given_up = True
            self._count("dropped", self._waiting)
            _logger.warning("request log: %d rows could not be written before the end", self._waiting)

    @property
    def _waiting(self) -> int:
        return self._taken - self._settled

    def _work(self) -> None:
        tables: deque[pa.Table] = deque()
        due, pause = time.monotonic() + self._options.seconds, 0.0
        while True:
            self._wait(due - time.monotonic())
            is_over, is_due = self._is_over.is_set(), time.monotonic() >= due
            self._gather(tables)
            if is_over or is_due or (self._is_file(tables) and not pause):
                pause = self._write_all(tables, is_over or is_due, pause)
                due = time.monotonic() + (pause or self._options.seconds)
            if is_over and (pause or not self._entries):
                return

    def _wait(self, seconds: float) -> None:
        """Waits until some rows are there to gather, until it is over, or so long."""
        self._has_rows.clear()
        if self._taken - self._gathered < self._few_rows and not self._is_over.is_set() and seconds > 0:
            self._has_rows.wait(seconds)

    def _gather(self, tables: deque[pa.Table]) -> None:
        """Turns what waits into a table.

        Done often, so that what waits is a few large arrays, and no answer waits long for the interpreter's lock.
        """
        entries: list[_Entry] = []
        rows = 0
        while self._entries and rows < self._options.file_rows:
            entries.append(self._entries.popleft())
            rows += entries[-1].rows
        if not entries:
            return
        self._gathered += rows
        try:
            tables.append(self._table(entries))
        except Exception as error:  # serving goes on, whatever was logged
            self._settled += rows
            self._count("dropped", rows)
            _logger.warning("request log: %d rows cannot be written: %s", rows, error)

    def _is_file(self, tables: Iterable[pa.Table]) -> bool:
        return sum(table.num_rows for table in tables) >= self._options.file_rows

    def _write_all(self, tables: deque[pa.Table], also_few: bool, pause: float) -> float:
        """Writes files of rows; of the last ones, too few for a file, only if told so.

        Returns:
            For how long to wait after a failure; 0: there was none.
        """
        while tables and (also_few or self._is_file(tables)):
            together = [tables[0]]
            while len(together) < len(tables) and not self._is_file(together):
                together.append(tables[len(together)])
            if not self._try_write(pa.concat_tables(together)):
                return min(max(1.0, pause * 2), _LONGEST_PAUSE)
            for _ in together:
                tables.popleft()
        return 0.0

    def _try_write(self, table: pa.Table) -> bool:
        try:
            self._write(table)
        except Exception as error:  # serving goes on, whatever the storage raises
            self._count("failure", 1)
            _logger.warning(
                "request log: %s cannot be written (%s rows wait): %s", self._options.uri, self._waiting, error
            )
            return False
        if not self._is_given_up:  # else close() counted them as dropped
            self._settled += table.num_rows
        self._count("written", table.num_rows)
        return True

    def _write(self, table: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd")
        at: datetime = table[TIME][0].as_py()
        self._number += 1
        folder = f"{self._root}/{at:%Y-%m-%d}"
        name = f"{at:%H%M%S}-{self._writer}-{self._number:06d}.parquet"
        with storage.reaching(self._options.uri):
            if not self._is_local:
                self._fs.pipe_file(f"{folder}/{name}", content.getvalue())
                return
            Path(folder).mkdir(parents=True, exist_ok=True)
            partial = Path(folder, f".{name}.partial")
            try:
                partial.write_bytes(content.getbuffer())
                partial.replace(Path(folder, name))
            finally:
                partial.unlink(missing_ok=True)

    def _table(self, entries: Sequence[_Entry]) -> pa.Table:
        counts = np.array([entry.rows for entry in entries])
        total = int(counts.sum())
        numbers = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        together, starts = _together(entries)
        places = np.repeat(starts, counts) + numbers

        def joined(parts: Sequence[Any]) -> Any:
            return np.concatenate(parts)[places]

        times = np.repeat(np.array([int(entry.time * 1e6) for entry in entries], np.int64), counts)
        columns: list[pa.Array] = [
            pa.array(times).cast(pa.timestamp("us", "UTC")),
            pa.array(np.repeat(np.array([entry.request_id for entry in entries], object), counts), pa.string()),
            pa.array(numbers.astype(np.int32)),
            pa.array([self._facts.name] * total, pa.string()),
            pa.array([self._facts.version] * total, pa.string()),
        ]
        for name in self._keys:
            if not any(name in entry.keys for entry in entries):
                columns.append(pa.nulls(total, pa.string()))
                continue
            given = [entry.keys.get(name, np.full(entry.rows, MISSING_STRING, object)) for entry in entries]
            columns.append(_texts(np.concatenate(given)))
        for i in self._inputs:
            values = joined([entry.arrays[i.name] for entry in together])
            missing = is_missing(i.dtype, values)
            kind = pa.binary() if i.dtype == "string" else _TYPES[i.dtype]
            columns.append(pa.array(values, kind, mask=missing).cast(_TYPES[i.dtype]))
        for output in self._facts.outputs:
            values = joined([entry.outputs[output.name] for entry in together])
            if output.dtype == "string":
                columns.append(pa.array(values, pa.binary()).cast(pa.string()))
            elif output.width is None:
                columns.append(pa.array(values, pa.float32()))
            else:
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), output.width))
        return pa.Table.from_arrays(columns, schema=self._schema)


def _copied(values: Arrays, start: int, rows: int) -> Arrays:
    return {name: array[start : start + rows].copy() for name, array in values.items()}


def _together(entries: Sequence[_Entry]) -> tuple[list[_Entry], Sequence[int]]:
    """Gives one entry of each batch, and where each entry's rows begin among those of all these batches."""
    begins: dict[int, int] = {}
    chosen, starts, total = [], [], 0
    for entry in entries:
        batch = id(entry.arrays)
        if batch not in begins:
            begins[batch] = total
            total += len(next(iter(entry.outputs.values())))
            chosen.append(entry)
        starts.append(begins[batch] + entry.start)
    return chosen, starts


def _texts(values: Any) -> pa.Array:
    return pa.array(values, pa.binary(), mask=is_missing("string", values)).cast(pa.string())


def _schema(inputs: Sequence[ModelInput], keys: Sequence[str], facts: Facts) -> pa.Schema:
    fields = [
        pa.field(TIME, pa.timestamp("us", "UTC")),
        pa.field(REQUEST_ID, pa.string()),
        pa.field(REQUEST_ROW, pa.int32()),
        pa.field(MODEL_NAME, pa.string()),
        pa.field(MODEL_VERSION, pa.string()),
        *(pa.field(name, pa.string()) for name in keys),
        *(pa.field(i.name, _TYPES[i.dtype]) for i in inputs),
    ]
    for output in facts.outputs:
        kind = _TYPES[output.dtype]
        fields.append(pa.field(output.name, kind if output.width is None else pa.list_(kind, output.width)))
    names = [field.name for field in fields]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(
            f"column '{twice[0]}' has the name of another column of the request log; redact it, or rename it"
        )
    return pa.schema(fields)
