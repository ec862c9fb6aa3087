"""Times batch prediction: `.venvs/tensorflow/bin/python benchmarks/batch.py [--rows N …]`, after `make run`.

Rows are those of examples/flights, over and over. In one run, each in a process of its own: predict_batch (the time
after its start, the whole time, peak RSS), and what one would write at first: pandas reads a batch, the signature is
called on it, the batch is written. Both keep all columns. Give it two cores: `taskset -c 0,1`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "flights" / "data"
GROUP_ROWS = 65_536
BATCH_ROWS = 16_384

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from components.artifacts import BATCH, Manifest, write_manifest  # noqa: E402


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    newest = max((ROOT / "examples/flights/models/flights/versions").glob("v*-*"), default=None)
    parser.add_argument("--model", default=newest and str(newest))
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--only", choices=("predict_batch", "naive"), help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model is None:
        parser.error("no model: `make run` makes one")
    if options.only:
        print(json.dumps({"predict_batch": predict_batch, "naive": naive}[options.only](options.place, options.model)))
        return
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f} before")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=ROOT / "runs") as place:
            write_rows(Path(place, "examples"), rows)
            for name in ("predict_batch", "naive"):
                if name == "naive" and rows > min(options.rows):
                    continue  # its speed does not depend on the number of rows
                report(name, rows, run(name, place, options.model))


def report(name: str, rows: int, found: dict[str, float]) -> None:
    whole, after, cpu, peak = (found[key] for key in ("whole", "after_start", "cpu", "peak"))
    print(
        f"{name}: {rows:,} rows in {whole:.1f} s, {after:.1f} s after the start: {rows / after:,.0f} rows/s, "
        f"{1e6 * cpu / rows:.2f} µs of CPU a row, peak RSS {peak / 2**20:,.0f} MiB",
        flush=True,
    )


def run(name: str, place: str, model: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", name, "--place", place, "--model", model]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {"whole": time.monotonic() - begun, **json.loads(done.stdout.splitlines()[-1])}


def write_rows(folder: Path, rows: int) -> None:
    """Writes a dataset as ingest_data would."""
    (folder / BATCH).mkdir(parents=True)
    source = pa.concat_tables([pq.read_table(file) for file in sorted(DATA.glob("*.parquet"))])
    source = source.drop_columns(["late"])
    with pq.ParquetWriter(folder / BATCH / "part-00000.parquet", source.schema, compression="zstd") as writer:
        written = 0
        while written < rows:
            some = source.slice(0, min(source.num_rows, rows - written))
            writer.write_table(some, row_group_size=GROUP_ROWS)
            written += some.num_rows
    write_manifest(folder, Manifest(splits={BATCH: rows}, digest=str(rows)))


def used(begun: float, cpu_before: float) -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "after_start": time.monotonic() - begun,
        "cpu": usage.ru_utime + usage.ru_stime - cpu_before,
        "peak": usage.ru_maxrss * 1024,
    }


def predict_batch(place: str, model: str) -> dict[str, float]:
    from components.predict_batch import parts, prediction

    begun, cpu = time.monotonic(), 0.0

    def started(*arguments: object, **named: object) -> object:
        nonlocal begun, cpu
        begun, cpu = time.monotonic(), time.process_time()
        return original(*arguments, **named)

    original, parts.predict_part = parts.predict_part, started  # type: ignore[assignment]
    prediction.predict(f"{place}/examples", model, BATCH, [], f"{place}/predictions")
    return used(begun, cpu)


def naive(place: str, model: str) -> dict[str, float]:
    import pandas as pd
    import tensorflow as tf

    from components.model_spec import read_spec

    spec = read_spec(Path(model, "model"))
    loaded = tf.saved_model.load(str(Path(model, "model", "1")))
    signature = loaded.signatures["serving_default"]
    begun, cpu = time.monotonic(), time.process_time()
    source = pq.ParquetFile(f"{place}/examples/{BATCH}/part-00000.parquet")
    writer: pq.ParquetWriter | None = None
    for batch in source.iter_batches(BATCH_ROWS):
        frame: pd.DataFrame = batch.to_pandas()
        missing = {"string": "", "int64": -(2**63), "float32": float("nan")}
        tensors = {
            i.tensor: tf.constant(frame[i.name].fillna(missing[i.dtype]).to_numpy(), tf.as_dtype(i.dtype))
            for i in spec.inputs
        }
        for name, values in signature(**tensors).items():
            frame[name] = values.numpy()
        table = pa.Table.from_pandas(frame)
        writer = writer or pq.ParquetWriter(f"{place}/naive.parquet", table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    return used(begun, cpu)


if __name__ == "__main__":
    main()
