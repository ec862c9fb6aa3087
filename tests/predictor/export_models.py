"""Trains, exports and predicts with a small model of each task, or of those that are named.

`python -m tests.predictor.export_models <folder> [<kind> …]` runs in the tensorflow environment: the server's has no
Keras and no TFT. The server's tests start it.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from components.model_spec import read_spec
from components.predict_batch.prediction import predict
from components.rows import raw_arrays
from components.schema import columns, parse_schema
from components.serving_model import ServingModel
from tests.train_model import projects

KINDS = ("binary", "multiclass", "regression", "anomaly_detection", "clustering")

THRESHOLDS = {"binary": 0.4, "anomaly_detection": 0.5}


def main(folder: Path, kinds: Sequence[str]) -> None:
    """Writes <folder>/<kind>/model, rows.parquet beside it, and what the model says: expected.npz, predictions."""
    for kind in kinds:
        version = folder / kind
        version.mkdir(parents=True)
        trained = projects.trained(kind)
        shutil.copytree(trained, version / "model")
        predict(str(projects.project(kind).examples), str(trained), "eval", [], str(version / "predictions"))
        schema = projects.SCHEMA % projects.LABEL_TYPES[kind]
        (version / "schema.pbtxt").write_text(schema)
        (version / "card.json").write_text(
            json.dumps(
                {
                    "name": kind,
                    "version": "v0001-0123abcd",
                    "evaluation": {"decision_threshold": THRESHOLDS.get(kind)},
                    "config": {"data": {"key": ["id"]}, "section of another version": {}},
                    "fields of another version": {},
                }
            )
        )
        table = projects.raw_rows(kind, 200, seed=9).drop_columns(["label", "id"])
        pq.write_table(table, version / "rows.parquet")
        wanted = columns(parse_schema(schema))
        arrays = raw_arrays(
            table.combine_chunks().to_batches()[0], [wanted[i.name] for i in read_spec(version / "model").inputs]
        )
        outputs = ServingModel(version / "model").predict(arrays)
        np.savez(version / "expected.npz", **{name: np.array(values.tolist()) for name, values in outputs.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or KINDS)
