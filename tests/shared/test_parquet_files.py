"""Reading Parquet that a stage before has written."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.parquet_files import local_parquet, read_batches

GROUPS = 40
GROUP_BYTES = 8 * 50_000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = _file(tmp_path)
    before = pa.total_allocated_bytes()
    batches = read_batches(file, ["number"], 10_000, "run it again", f"'{file}'", "it needs")
    held = [pa.total_allocated_bytes() - before for _ in batches]
    assert len(held) == GROUPS * 5
    assert max(held) < 5 * GROUP_BYTES < file.stat().st_size / 5


def test_options_reach_the_reader(tmp_path: Path) -> None:
    with local_parquet(_file(tmp_path), memory_map=True, read_dictionary=["text"]) as parquet:
        batch = next(parquet.iter_batches(10))
    assert batch.schema.field("text").type == pa.dictionary(pa.int32(), pa.string())


def _file(folder: Path) -> Path:
    """Writes numbers that do not compress, so that the file's size tells what a reader that keeps it would hold."""
    path = folder / "rows.parquet"
    random = np.random.default_rng(1)
    schema = pa.schema({"number": pa.float64(), "text": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(GROUPS):
            numbers = random.random(GROUP_BYTES // 8)
            writer.write_table(pa.table({"number": numbers, "text": ["a"] * len(numbers)}, schema))
    return path
