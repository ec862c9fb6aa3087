"""Keys: the values of some columns that tell which row, or which group of rows, it is."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError
from components.parquet_files import local_parquet

_VERIFIED = 1000
"""Of the hashes that several rows have, so many are looked up: chance makes one among billions of rows."""

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
    """Finds keys that several rows share, in 16 bytes of memory a row: 1.6 GB for 100 million rows."""

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
        hashes = np.concatenate([*self._hashes, np.array([], dtype=np.uint64)])
        self._hashes.clear()
        hashes.sort()
        repeats = hashes[1:][hashes[1:] == hashes[:-1]]
        counts = self._counts(parts, np.unique(repeats)[:_VERIFIED])
        if not counts or max(counts.values()) == 1:
            return
        key, count = max(counts.items(), key=lambda item: item[1])
        example = ", ".join(f"{name}={value!r}" for name, value in zip(self._columns, key, strict=True))
        raise DataRejectedError(
            f"data.key {', '.join(self._columns)}: {len(repeats):,} rows repeat the key of another, e.g. {example} "
            f"({count:,} rows); remove the duplicates or name more columns"
        )

    def _counts(self, parts: Sequence[Path], hashes: Hashes) -> Counter[tuple[object, ...]]:
        """Counts the rows of each key that has one of the hashes."""
        counts: Counter[tuple[object, ...]] = Counter()
        for part in parts if hashes.size else ():
            with local_parquet(part) as file:
                for batch in file.iter_batches(columns=list(self._columns)):
                    found = np.isin(key_hashes(key_texts(batch, self._columns)), hashes)
                    keys = batch.filter(pa.array(found)).to_pydict()
                    counts.update(zip(*(keys[name] for name in self._columns), strict=True))
        return counts


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
