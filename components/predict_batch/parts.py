"""Parts: which rows make one file of predictions, and how they are predicted and written, wherever that happens."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import REJECTED
from components.parquet_files import open_parquet, read_batches
from components.predict_batch.readable import REMEDY
from components.predict_batch.scoring import Scored, Scorer
from components.predict_batch.top import TOP, TopRows, candidates
from components.serving_model import ServingModel

_BATCH_ROWS = 16_384
_GROUP_ROWS = 65_536
_COMPRESSION = "lz4"


@dataclass(frozen=True)
class Part:
    """Some row groups of one file."""

    number: int
    file: str
    first_row: int
    """Its position in the split."""
    row_groups: list[int] | None = None
    """None: all."""

    @property
    def name(self) -> str:
        """Of the files that are written."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Counts:
    """Rows of a part."""

    predicted: int
    rejected: int


def whole_files(files: Sequence[Path]) -> list[Part]:
    """Makes each file one part."""
    parts, first = [], 0
    for number, file in enumerate(files):
        parts.append(Part(number, str(file), first))
        first += open_parquet(file, REMEDY).metadata.num_rows
    return parts


def divided(files: Sequence[Path], rows: int) -> list[Part]:
    """Makes parts of about so many rows; a row group is not divided."""
    parts: list[Part] = []
    first = 0
    for file in files:
        groups: list[int] = []
        metadata = open_parquet(file, REMEDY).metadata
        begin, count = first, 0
        for group in range(metadata.num_row_groups):
            groups.append(group)
            count += metadata.row_group(group).num_rows
            if count >= rows or group == metadata.num_row_groups - 1:
                parts.append(Part(len(parts), str(file), begin, groups))
                begin, count, groups = begin + count, 0, []
        first += metadata.num_rows
    return parts


def predict_part(
    part: Part, scorer: Scorer, champion: ServingModel, folder: Path, split: str, top_rows: int, threads: int = 0
) -> Counts:
    """Predicts a part and writes `<split>/`, `rejected/` and `top/`, of each what there is.

    Batches are predicted by several threads while others are read and written; they are written in order.

    Args:
        part: which rows.
        scorer: predicts them.
        champion: the model by which the top rows are chosen.
        folder: of the dataset.
        split: its name.
        top_rows: how many of the highest are kept beside; 0: none.
        threads: that predict; 0: one a processor.
    """
    writers = {name: _Writer(folder / name / part.name) for name in (split, REJECTED, TOP)}
    top = TopRows(top_rows) if top_rows else None
    for scored in _scored(part, scorer, threads or len(os.sched_getaffinity(0))):
        if top and scored.table.num_rows:
            position = writers[split].rows
            top.add(
                candidates(champion.spec, scored.table, scored.inputs, scored.outputs, part.number, position, top_rows)
            )
        writers[split].write(scored.table)
        if scored.rejected is not None:
            writers[REJECTED].write(scored.rejected)
    if top and writers[split].rows:
        writers[TOP].write(top.table())
    for writer in writers.values():
        writer.close()
    return Counts(writers[split].rows, writers[REJECTED].rows)


def _scored(part: Part, scorer: Scorer, threads: int) -> Iterator[Scored]:
    """Yields the batches in order; at most one more than there are threads is in memory."""
    why = f"other parts of its split have; {REMEDY}"
    batches = read_batches(part.file, scorer.columns, _BATCH_ROWS, REMEDY, f"'{part.file}'", why, part.row_groups)
    row = part.first_row
    waiting: deque[Future[Scored]] = deque()
    with ThreadPoolExecutor(threads, "predict") as pool:
        for batch in batches:
            waiting.append(pool.submit(scorer.score, batch, row))
            row += batch.num_rows
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Writer:
    """A Parquet file that is made when there is something to write; its row groups are larger than a batch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._flushed = 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        self._pending.append(table)
        self.rows += table.num_rows
        if self.rows - self._flushed >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = pa.concat_tables(self._pending)
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, table.schema, compression=_COMPRESSION)
        self._writer.write_table(table)
        self._pending, self._flushed = [], self.rows
