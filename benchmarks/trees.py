"""Times exported trees: `OMP_NUM_THREADS=1 .venvs/tensorflow/bin/python benchmarks/trees.py [RUN]`, after `make run`.

One run measures, on one core as in a serving process: one row of flights by `ServingModel.predict`, of an MLP and of
boosted trees that are trained here, by turns; their AUC; and 500 trees of 31 leaves on 10,000 rows, in a graph and by
LightGBM. RUN: folder of a run; default: the newest of examples/flights.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, CALLS = 20, 100

if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(ROOT))

from components.features import read_features  # noqa: E402
from components.models.tree_graph import Ensemble, TreeGraph  # noqa: E402
from components.rows import raw_arrays  # noqa: E402
from components.schema import columns, parse_schema  # noqa: E402
from components.serving_model import ServingModel  # noqa: E402
from components.settings import Task, Training  # noqa: E402
from components.train_model.training import parse_model, train  # noqa: E402

MLP = {"kind": "mlp", "hidden_units": [128, 64], "dropout": 0.3, "numeric_embedding": "none"}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp": (MLP, {"epochs": 4, "batch_size": 4096, "learning_rate": 3e-3, "early_stopping": None}),
    "mlp, default settings": ({"kind": "mlp"}, {"epochs": 1}),
    "boosted_trees": ({"kind": "boosted_trees"}, {}),
    "boosted_trees, no early stopping": ({"kind": "boosted_trees"}, {"early_stopping": None}),
}


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    newest = max((ROOT / "runs").glob("flights-*/transform-data/transform_graph"), default=None)
    parser.add_argument("run", nargs="?", type=Path, default=newest and newest.parent.parent)
    run = parser.parse_args().run
    if run is None:
        parser.error("no run: `make run` makes one")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    flights(run)
    batch()


def flights(run: Path) -> None:
    """Trains each model and prints its AUC and what a row takes."""
    graph = run / "transform-data" / "transform_graph"
    wanted = columns(parse_schema((ROOT / "examples" / "flights" / "schema.pbtxt").read_text()))
    parts = sorted((run / "ingest-data" / "examples" / "eval").glob("*.parquet"))
    table = pa.concat_tables(pq.read_table(part) for part in parts).combine_chunks()
    arrays = raw_arrays(table.to_batches()[0], [wanted[i.name] for i in read_features(graph).inputs])
    label = table["late"].to_numpy()
    models = {}
    for name, (model, training) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            train(
                str(run / "transform-data" / "transformed"),
                str(graph),
                "",
                Task(type="binary", label="late"),
                parse_model(model),
                Training.model_validate(training),
                "",
                f"{folder}/model",
                f"{folder}/report.html",
            )
            size = sum(file.stat().st_size for file in Path(folder, "model", "1").rglob("*") if file.is_file())
            models[name] = ServingModel(Path(folder, "model"))
        auc = roc_auc_score(label, models[name].predict(arrays)["probability"])
        print(f"{name}: AUC {auc:.4f}, {time.monotonic() - started:.0f} s, {size / 2**20:.1f} MiB", flush=True)
    row = {name: values[:1] for name, values in arrays.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            # A server has one model, which the caches hold: by turns, but many calls at a time.
            for _ in range(CALLS):
                times[name].append(_seconds(lambda model=model: model.predict(row)))  # type: ignore[misc]
    for name, seconds in times.items():
        print(f"{name}: a row takes {np.median(seconds) * 1e3:.3f} ms", flush=True)


def batch() -> None:
    """Times 500 trees on 10,000 rows; 100 features make the graph look for each tree's own."""
    import lightgbm

    rng = np.random.default_rng(0)
    for width in (12, 100, 300):
        numbers = rng.normal(size=(20_000, width)).astype(np.float32)
        labels = numbers[:, 0] * numbers[:, 1] + numbers[:, :10].sum(axis=1) + rng.normal(size=20_000) > 0
        parameters = {"objective": "binary", "num_leaves": 31, "verbosity": -1, "num_threads": 1}
        booster = lightgbm.train(parameters, lightgbm.Dataset(numbers, labels), 500)
        graph = TreeGraph(Ensemble.read([booster.model_to_string()], width))
        signature = [tf.TensorSpec([None, width], tf.float32), tf.TensorSpec([None, 0], tf.int32)]
        call = tf.function(graph.__call__, signature, autograph=False).get_concrete_function()
        rows, none = tf.constant(numbers[:10_000]), tf.zeros([10_000, 0], tf.int32)
        ours = min(_seconds(lambda: call(rows, none)) for _ in range(5))  # noqa: B023
        theirs = min(_seconds(lambda: booster.predict(numbers[:10_000], num_threads=1)) for _ in range(5))  # noqa: B023
        print(f"500 trees, {width} features, 10,000 rows: {ours:.3f} s; LightGBM {theirs:.3f} s", flush=True)


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
