"""Reads one window of logged predictions, whoever logged them, as batches of one form.

What is damaged, doubled or of another time is left out and counted: a log is never a reason to stop.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.prediction_log import events, tables
from components.prediction_log.files import LogFile, daily_files, spanned_files
from components.prediction_log.form import TIME_TYPE, Form, LogCounts, conformed
from components.prediction_log.windows import Window
from components.request_columns import REQUEST_ID, REQUEST_ROW, TIME
from components.settings import CsvOptions, RequestLog

BATCH_ROWS = 65_536


class LogReader:
    """Reads a window once; `counts` tell afterwards what was read."""

    def __init__(self, log: RequestLog, form: Form, window: Window, csv: CsvOptions | None = None) -> None:
        """Opens nothing yet.

        Args:
            log: where, and in which format.
            form: of the rows.
            window: what is wanted.
            csv: how CSV files of format `table` are written.

        Raises:
            InputError: no log is named.
        """
        if not log.source:
            raise InputError("monitoring.log.source is empty; name what is logged, e.g. the server's log_uri")
        self._log = log
        self._form = form
        self._window = window
        self._csv = csv or CsvOptions()
        self._seen: set[int] = set()
        self.counts = LogCounts()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Reads the rows of the window.

        Raises:
            InputError: the source does not exist, or may not be read.
            UnavailableError: the storage does not answer.
        """
        for batch, identified in self._raw():
            times = batch.column(0)
            self.counts.without_time += times.null_count
            inside = self._inside(times)
            self.counts.outside += batch.num_rows - times.null_count - int(inside.sum())
            if identified:
                fresh = self._fresh(batch, inside)
                self.counts.duplicates += int(inside.sum() - fresh.sum())
                inside = fresh
            rows = int(inside.sum())
            self.counts.rows += rows
            if rows == batch.num_rows:
                yield batch
            elif rows:
                yield pa.RecordBatch.from_arrays(
                    [column.filter(pa.array(inside)) for column in batch.columns], batch.schema.names
                )

    def _raw(self) -> Iterator[tuple[pa.RecordBatch, bool]]:
        """Yields rows in the form, of any time, and whether id, row and time tell each from all others."""
        match self._log.format:
            case "lockgate":
                for file in daily_files(self._log.source, self._window):
                    yield from self._reading(file, self._logged(file))
            case "kserve":
                pairs = events.Pairs(self._form, self.counts)
                for file in spanned_files(self._log.source, self._window):
                    yield from self._reading(file, ((batch, True) for batch in pairs.read(file)))
                yield from ((batch, True) for batch in pairs.rest())
            case "table":
                table = tables.Tables(self._log.columns, self._csv, self._form, self.counts, BATCH_ROWS)
                for file in spanned_files(self._log.source, self._window):
                    yield from self._reading(file, table.read(file))

    def _reading(
        self, file: LogFile, batches: Iterator[tuple[pa.RecordBatch, bool]]
    ) -> Iterator[tuple[pa.RecordBatch, bool]]:
        self.counts.files += 1
        try:
            yield from batches
        except (pa.ArrowException, OSError, UnicodeError, EOFError):
            self.counts.unreadable.append(file.uri)

    def _logged(self, file: LogFile) -> Iterator[tuple[pa.RecordBatch, bool]]:
        texts = [name for name, kind in self._form.features.items() if kind == pa.string()]
        parquet = file.open_parquet(texts)
        there = set(parquet.schema_arrow.names)
        wanted = [name for name in self._form.schema.names if name in there]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=wanted):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            # Without the place in the request, rows of one request cannot be told from copies.
            yield conformed(columns, batch.num_rows, self._form, self.counts), REQUEST_ROW in there

    def _inside(self, times: pa.Array) -> npt.NDArray[np.bool_]:
        start, end = (pa.scalar(one, TIME_TYPE) for one in (self._window.start, self._window.end))
        inside = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
        return np.asarray(pc.fill_null(inside, False).to_numpy(zero_copy_only=False), np.bool_)

    def _fresh(self, batch: pa.RecordBatch, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tells which rows are inside and were not seen before, and takes note of them."""
        fresh = np.zeros(batch.num_rows, np.bool_)
        places = np.flatnonzero(inside)
        hashes = _hashes(batch, self._form.keys)[places]
        for place, value in zip(places.tolist(), hashes.tolist(), strict=True):
            if value not in self._seen:
                self._seen.add(value)
                fresh[place] = True
        return fresh


def _hashes(batch: pa.RecordBatch, keys: tuple[str, ...]) -> npt.NDArray[np.uint64]:
    """Hashes what tells a row from all others to 64 bits: id, place in the request, time, key."""
    by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
    total = np.zeros(batch.num_rows, np.uint64)
    for name in (TIME, REQUEST_ROW, REQUEST_ID, *keys):
        column = by_name[name]
        if pa.types.is_string(column.type):
            encoded = column.dictionary_encode()
            texts = encoded.dictionary.to_numpy(zero_copy_only=False)
            codes = pc.fill_null(encoded.indices, len(texts)).to_numpy(zero_copy_only=False)
            values = np.append(pd.util.hash_array(texts.astype(object)), np.uint64(0))[codes]
        else:
            whole = pc.fill_null(pc.cast(column, pa.int64()), -1).to_numpy(zero_copy_only=False)
            values = pd.util.hash_array(np.ascontiguousarray(whole))
        total = total * np.uint64(1_000_003) ^ values
    return total
