"""Keys: the values of some columns that tell which row, or which group of rows, it is."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.errors import DataRejectedError

Hashes = npt.NDArray[np.uint64]


def key_texts(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.Array:
    """Writes each row's key as one string: two keys have the same one only if they are equal.

    A value is its length and its text, e.g. 5:AA101; a missing one is ~. It depends on nothing but the values.
    """
    return pc.binary_join_element_wise(*(_texts(batch.column(name)) for name in columns), "")


def key_hashes(texts: pa.Array, salt: str = "") -> Hashes:
    """Hashes strings to 64 bits, the same on every machine (BLAKE2b of the salt and the UTF-8 text)."""
    prefix = f"{len(salt.encode())}:{salt}".encode()
    content, offsets = _buffers(texts)
    digests = [hashlib.blake2b(prefix + content[a:b], digest_size=8).digest() for a, b in pairwise(offsets)]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def by_distinct(texts: pa.Array, function: Callable[[pa.Array], Hashes]) -> Hashes:
    """Applies a function to each distinct string once and spreads the results over the rows."""
    encoded = texts.dictionary_encode()
    result: Hashes = function(encoded.dictionary)[encoded.indices.to_numpy(zero_copy_only=False)]
    return result


class UniqueKeys:
    """Finds keys that several rows share, in 8 bytes of memory a row: 0.8 GB for 100 million rows."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._hashes: list[Hashes] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes note of the keys of some rows."""
        if self._columns:
            self._hashes.append(key_hashes(key_texts(batch, self._columns)))

    def check(self, parts: Sequence[Path]) -> None:
        """Refuses keys that several rows share. Rows with equal hashes are read again, so that no chance decides.

        Args:
            parts: Parquet files with all the rows that were noted.

        Raises:
            DataRejectedError: with the number of rows too many, and an example.
        """
        hashes = np.sort(np.concatenate(self._hashes)) if self._hashes else np.array([], dtype=np.uint64)
        shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not shared.size:
            return
        counts: dict[str, int] = {}
        examples: dict[str, dict[str, object]] = {}
        for batch in _batches(parts, self._columns):
            texts = key_texts(batch, self._columns)
            for row in np.flatnonzero(np.isin(key_hashes(texts), shared)):
                text = texts[row].as_py()
                counts[text] = counts.get(text, 0) + 1
                if len(examples) < shared.size and counts[text] == 1:
                    examples[text] = {name: batch.column(name)[row].as_py() for name in self._columns}
        repeated = {text: count for text, count in counts.items() if count > 1}
        if repeated:
            text, count = max(repeated.items(), key=lambda item: item[1])
            example = ", ".join(f"{name}={value!r}" for name, value in examples[text].items())
            raise DataRejectedError(
                f"data.key {', '.join(self._columns)}: {sum(repeated.values()) - len(repeated):,} rows repeat the key "
                f"of another, e.g. {example} ({count:,} rows); remove the duplicates or name more columns"
            )


def _texts(array: pa.Array) -> pa.Array:
    text = array.cast(pa.string())
    return pc.coalesce(pc.binary_join_element_wise(pc.binary_length(text).cast(pa.string()), text, ":"), "~")


def _buffers(texts: pa.Array) -> tuple[bytes, list[int]]:
    """Gives the UTF-8 content of strings, and where each begins and ends in it."""
    if not len(texts):
        return b"", [0]
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return content.to_pybytes() if content else b"", ends.tolist()


def _batches(parts: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(columns=list(columns))
