"""The Parquet parts of a split."""

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 65_536
_ROW_GROUP_BYTES = 1 << 27


class PartWriter:
    """Writes one split as one Parquet part. Its row groups do not depend on how the rows arrive."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir()
        self.path = folder / "part-00000.parquet"
        self.rows = 0
        self._writer = pq.ParquetWriter(self.path, schema, compression="zstd")
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows."""
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, ROW_GROUP_ROWS - self._pending_rows)
            self._pending.append(piece)
            self._pending_rows += piece.num_rows
            self._pending_bytes += piece.nbytes
            start += piece.num_rows
            # The second limit holds memory down where values are huge.
            if self._pending_rows == ROW_GROUP_ROWS or self._pending_bytes > _ROW_GROUP_BYTES:
                self._flush()
        self.rows += batch.num_rows

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending), row_group_size=ROW_GROUP_ROWS)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()
