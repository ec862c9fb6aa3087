"""Labels that came later, found by the key of a row or the id of its request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.prediction_log.files import LogFile, located
from components.prediction_log.form import fit
from components.prediction_log.tables import csv_batches
from components.prediction_log.windows import Window
from components.settings import CsvOptions
from components.spans import overlapping

_ROWS = 65_536
_SEPARATOR = "\x1f"


@dataclass
class LabelCounts:
    """What was read, and what was not as it should be."""

    files: int = 0
    unreadable: list[str] = field(default_factory=list)
    absent_spans: list[str] = field(default_factory=list)
    """That have not come yet."""
    rows: int = 0
    """With a label and a key."""
    contradictory: int = 0
    """Rows that give a key another label than a row before; the last one counts."""


class LabelTable:
    """Labels by key, 16 bytes of memory a row beside the labels."""

    def __init__(self, hashes: npt.NDArray[np.uint64], labels: pa.Array, counts: LabelCounts) -> None:
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        # Of rows with one key, the last.
        last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
        self._hashes = ordered[last]
        self._labels = labels.take(pa.array(order[last]))
        self.counts = counts
        followers = np.flatnonzero(~last)
        if len(followers):
            one, next_one = labels.take(pa.array(order[followers])), labels.take(pa.array(order[followers + 1]))
            counts.contradictory = int(pc.sum(pc.not_equal(one, next_one)).as_py() or 0)

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.Array:
        """Gives the label of each row, null where there is none."""
        if not len(self._hashes):
            return pa.nulls(batch.num_rows, self._labels.type)
        hashes, present = key_hashes([batch.column(batch.schema.get_field_index(name)) for name in columns])
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        found = (self._hashes[places] == hashes) & present
        return self._labels.take(pa.array(places, mask=~found))


def read_labels(
    source: str, window: Window, later: int, columns: Sequence[str], label: str, csv: CsvOptions
) -> LabelTable:
    """Reads the labels of a window.

    Args:
        source: as data.source.
        window: of the rows that want labels.
        later: so many spans behind the window are read, too.
        columns: that tell the row, together.
        label: the column of the label.
        csv: how CSV is written.

    Raises:
        InputError: the source makes no sense or may not be read, or lacks a column.
        UnavailableError: the storage does not answer.
    """
    counts = LabelCounts()
    found, counts.absent_spans = overlapping(source, window.start, window.end, later)
    hashes: list[npt.NDArray[np.uint64]] = []
    labels: list[pa.Array] = []
    for span in found:
        counts.files += 1
        file = located(span.uri)
        try:
            for batch in _batches(file, [*columns, label], csv):
                keys, present = key_hashes([batch.column(index) for index in range(len(columns))])
                values = batch.column(len(columns))
                known = present & values.is_valid().to_numpy(zero_copy_only=False)
                hashes.append(keys[known])
                labels.append(_text(values.filter(pa.array(known))))
                counts.rows += int(known.sum())
        except (pa.ArrowException, OSError, UnicodeError):
            counts.unreadable.append(file.uri)
    if not hashes:
        return LabelTable(np.array([], np.uint64), pa.array([], pa.string()), counts)
    return LabelTable(np.concatenate(hashes), pa.concat_arrays(labels), counts)


def key_hashes(columns: Sequence[pa.Array]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Hashes keys to 64 bits by their values as text; also tells which rows have one."""
    texts = [_text(column) for column in columns]
    joined = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, _SEPARATOR)
    present = joined.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(joined, "").to_numpy(zero_copy_only=False)
    return pd.util.hash_array(values.astype(object), categorize=False), present


def _text(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return fit(column, pa.string())[0]


def _batches(file: LogFile, columns: Sequence[str], csv: CsvOptions) -> Iterator[pa.RecordBatch]:
    if file.path.endswith((".parquet", ".pq")):
        parquet = file.open_parquet()
        _require(parquet.schema_arrow.names, columns, file)
        for batch in parquet.iter_batches(_ROWS, columns=list(dict.fromkeys(columns))):
            yield _chosen(batch, columns)
        return
    for batch in csv_batches(file, csv):
        _require(batch.schema.names, columns, file)
        yield _chosen(batch, columns)


def _chosen(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [batch.column(batch.schema.get_field_index(name)) for name in columns], [str(i) for i in range(len(columns))]
    )


def _require(names: Sequence[str], wanted: Sequence[str], file: LogFile) -> None:
    absent = [name for name in wanted if name not in names]
    if absent:
        raise InputError(
            f"'{file.uri}' has no column '{absent[0]}' (it has: {', '.join(names)}), by which labels are found; "
            "correct monitoring.labels, or data.key"
        )
