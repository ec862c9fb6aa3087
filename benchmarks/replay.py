"""Writes the request log that a year of data would have left: the published model answers, the server's own log writes.

`.venvs/tensorflow/bin/python benchmarks/replay.py STORE/flights/versions/VERSION LOG TIME KEY FILE…`, where
TIME is the column that tells when a row was asked (seconds since 1970), and KEY the one that labels are found by.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from components.predictor.request_log import LogOptions, RequestLog  # noqa: E402
from components.predictor.served_model import ServedModel, read_facts  # noqa: E402
from components.rows import raw_arrays  # noqa: E402
from components.schema import columns, parse_schema  # noqa: E402

BATCH = 50
FILE_ROWS = 500
"""Half a day of flights: a file lies under the day of its first row."""


def main(version: Path, log_uri: str, time: str, key: str, files: list[str]) -> None:
    facts = read_facts(str(version))
    model = ServedModel(facts)
    wanted = columns(parse_schema((version / "schema.pbtxt").read_text(encoding="utf-8")))
    inputs = [wanted[i.name] for i in facts.spec.inputs]
    log = RequestLog(LogOptions(log_uri, 1.0, 10_000_000, FILE_ROWS, 3600.0), facts, lambda *_: None)
    written = 0
    for file in files:
        table = seconds(pq.read_table(file)).sort_by(time)
        for batch in pa.Table.to_batches(table, max_chunksize=BATCH):
            arrays = raw_arrays(batch, inputs)
            keys = np.array([str(value).encode() for value in batch.column(key).to_pylist()], object)
            at = float(batch.column(time)[0].as_py())
            identity = f"{Path(file).stem}-{written}"
            log.add(identity, batch.num_rows, arrays, model.predict(arrays), {key: keys}, at=at)
            written += batch.num_rows
    log.close(600)
    print(f"{written:,} rows of {len(files)} files")


def seconds(table: pa.Table) -> pa.Table:
    """Turns times into seconds since 1970, as ingest_data does."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(
                index, field.name, table[index].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
            )
    return table


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5], sys.argv[5:])  # type: ignore[arg-type]
