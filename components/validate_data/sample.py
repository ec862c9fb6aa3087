"""Rows at equal distances: enough to draw distributions and to look for leaks."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.validate_data.splits import Split, is_string

ROWS = 50_000
_TEXT_BYTES = 64


class Sampler:
    """Keeps every k-th row of a split, so that at most 50,000 remain, and notes the longest strings."""

    def __init__(self, split: Split) -> None:
        self.longest: dict[str, int] = {}
        self._step = max(1, -(-split.rows // ROWS))
        self._seen = 0
        self._batches: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes the next batch of the split."""
        rows = pa.array(np.arange(-self._seen % self._step, batch.num_rows, self._step))
        self._seen += batch.num_rows
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if is_string(column.type):
                texts = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
                self._note(name, texts)
                columns.append(_short(texts.take(rows)))
            else:
                columns.append(column.take(rows))
        self._batches.append(pa.RecordBatch.from_arrays(columns, batch.schema.names))

    def table(self) -> pa.Table:
        """Gives the rows kept so far."""
        return pa.Table.from_batches(self._batches)

    def _note(self, name: str, column: pa.DictionaryArray) -> None:
        longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
        self.longest[name] = max(longest, self.longest.get(name, 0))


def _short(column: pa.DictionaryArray) -> pa.Array:
    """Decodes, and cuts what is longer than any reader or any chart needs."""
    values = column.dictionary
    if (pc.max(pc.binary_length(values)).as_py() or 0) <= _TEXT_BYTES:
        return column.dictionary_decode().cast(pa.string())
    used = pc.unique(column.indices.drop_null())
    # Scalars give their bytes without a copy: a value may have megabytes.
    cut = {i: bytes(values[i].as_buffer()[:_TEXT_BYTES]).decode(errors="replace") for i in used.to_pylist()}
    return pa.array([cut.get(i) for i in column.indices.to_pylist()], pa.string())
