"""How long monitor_model takes for a window of many rows, and how much memory, beside TFDV's statistics alone.

`.venvs/tfdv-compat/bin/python benchmarks/monitoring.py [ROWS]`, on a newer libc in `.venvs/tensorflow`. Writes
a published model's facts, a request log of 14 numbers and 6 categories, and a label a row; then judges the window in a
process of its own, and computes the statistics of the same rows in another.
"""

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NUMBERS, CATEGORIES, VALUES = 14, 6, 50
FILE_ROWS = 50_000
START = datetime(2025, 3, 1, tzinfo=UTC).timestamp()


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, rows)
        for what in ("judge", "tfdv"):
            done = subprocess.run(
                [sys.executable, __file__, what, folder], capture_output=True, text=True, check=True, cwd=ROOT
            )
            print(done.stdout.strip().splitlines()[-1])


def draw(rows: int, seed: int) -> dict[str, pa.Array]:
    generator = np.random.default_rng(seed)
    names = np.array([f"value-{i}" for i in range(VALUES)], object)
    columns: dict[str, pa.Array] = {}
    for index in range(NUMBERS):
        values = generator.normal(index, 1 + index, rows).astype(np.float32)
        columns[f"number_{index}"] = pa.array(values, mask=generator.random(rows) < 0.03)
    for index in range(CATEGORIES):
        chosen = np.minimum(generator.geometric(0.08, rows) - 1, VALUES - 1)
        columns[f"category_{index}"] = pa.array(names[chosen], pa.string())
    return columns


def write(root: Path, rows: int) -> None:
    from components.features import Label
    from components.model_card import CodeFacts, DataFacts, EvaluationFacts, ModelFacts
    from components.model_spec import ModelInput, ModelSpec, outputs_of
    from components.model_store import ModelStore
    from components.profiles import make_profile, profiled_columns, write_profile
    from components.schema import parse_schema

    kinds = [(f"number_{i}", "FLOAT", "float32") for i in range(NUMBERS)]
    kinds += [(f"category_{i}", "BYTES", "string") for i in range(CATEGORIES)]
    schema = "\n".join(f'feature {{ name: "{name}" type: {kind} }}' for name, kind, _ in kinds)
    spec = ModelSpec(
        inputs=[ModelInput(name=name, tensor=name, dtype=dtype, required=False) for name, _, dtype in kinds],  # type: ignore[arg-type]
        outputs=outputs_of(Label(name="label", kind="binary", classes=["0", "1"], positive="1")),
        label=Label(name="label", kind="binary", classes=["0", "1"], positive="1"),
        weights_digest="0" * 64,
        train_rows=200_000,
        libraries={},
    )
    files = root / "files"
    (files / "model").mkdir(parents=True)
    (files / "statistics").mkdir()
    (files / "model/spec.json").write_text(spec.model_dump_json())
    (files / "schema.pbtxt").write_text(schema)
    training = pa.table(draw(200_000, 0))
    profile = make_profile(training, training.to_batches(), profiled_columns(parse_schema(schema), training.schema))
    write_profile(files / "statistics", profile)
    texts = ("description", "owner", "run_name", "model_digest", "inputs_digest", "schema_digest")
    facts = ModelFacts(
        **dict.fromkeys(texts, "0"),
        parent=None,
        config={},
        data=DataFacts(source="", spans=[], digest="", splits={}, files=[]),
        evaluation=EvaluationFacts(
            verdict="pass",
            reason="",
            slices=[],
            checks=[],
            decision_threshold=0.5,
            metrics={"auc": 0.8},
            intervals={},
        ),
        code=CodeFacts(version="0", registry="", image_tag="", details={}, locks={}, libraries={}),
    )
    paths = {str(path.relative_to(files)): path for path in files.rglob("*") if path.is_file()}
    version = ModelStore(str(root / "models"), "bench").publish(paths, facts).version
    labels = []
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - first)
        at = START + 2_500_000 * (first + np.arange(count)) / rows
        generator = np.random.default_rng(number)
        score = generator.beta(2, 4, count).astype(np.float32)
        keys = pa.array([f"key-{first + i:09d}" for i in range(count)])
        table = pa.table(
            {
                "request_time": pa.array((at * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC")),
                "request_id": pa.array([f"{first + i:016x}" for i in range(count)]),
                "request_row": pa.array(np.zeros(count, np.int32)),
                "model_name": pa.array(["bench"] * count),
                "model_version": pa.array([version] * count),
                "key": keys,
                **draw(count, number + 1),
                "probability": score,
            }
        )
        folder = root / "log" / f"{datetime.fromtimestamp(at[0], UTC):%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{number:06d}.parquet", compression="zstd")
        labels.append(pa.table({"key": keys, "label": (generator.random(count) < score).astype(np.int64)}))
    pq.write_table(pa.concat_tables(labels), root / "labels.parquet")


def judge(root: Path) -> None:
    from components.monitor_model.monitoring import monitor
    from components.monitor_model.sections import Settings

    started = time.perf_counter()
    settings = Settings.read(
        {"log": {"source": str(root / "log")}},
        {"source": str(root / "labels.parquet"), "key": ["key"], "split": {"by": "hash", "key": ["key"]}},
        {"type": "binary", "label": "label"},
        {},
        {"slices": [["category_0"], ["category_1"]], "min_slice_rows": 500},
        {"store": str(root / "models")},
    )
    record = monitor("bench", settings, "2025-03", "", str(root / "record"), str(root / "report.html"))
    assert record.labels
    report(f"monitor_model, {record.log.rows:,} rows, {record.labels.rows:,} labelled", started)


def tfdv(root: Path) -> None:
    import tensorflow_data_validation as tfdv

    started = time.perf_counter()
    files = sorted((root / "log").rglob("*.parquet"))
    names = [f"number_{i}" for i in range(NUMBERS)] + [f"category_{i}" for i in range(CATEGORIES)]
    frame = pa.concat_tables([pq.read_table(file, columns=names) for file in files]).to_pandas()
    tfdv.generate_statistics_from_dataframe(frame)
    report(f"tfdv.generate_statistics_from_dataframe, {len(frame):,} rows", started)


def report(what: str, started: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - started:.1f} s, peak RSS {peak:,.0f} MiB (TensorFlow's import included)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["judge"]:
        judge(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["tfdv"]:
        tfdv(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
