"""Predictions as predict_batch writes them, made without a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, SourceFile, write_manifest
from components.features import Label
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec
from components.reason_codes import REASON_TYPE
from components.settings import Batch, Evaluation, Task
from components.write_predictions.writing import Origin, Result, write

CLASSES = {"binary": ["0", "1"], "multiclass": ["cat", "dog", "owl"], "regression": []}


def spec_of(kind: str) -> ModelSpec:
    label = Label(name="label", kind=kind, classes=CLASSES[kind], positive="1" if kind == "binary" else None)
    return ModelSpec(
        inputs=[ModelInput(name="amount", tensor="amount", dtype="float32", required=False)],
        outputs=outputs_of(label),
        label=label,
        weights_digest="0",
        train_rows=1,
        decision_threshold=0.5 if kind == "binary" else None,
        libraries={},
    )


def rows_of(kind: str, rows: int, seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    table: dict[str, Any] = {
        "id": [f"row-{seed}-{row}" for row in range(rows)],
        "amount": pa.array(draw.normal(size=rows), pa.float32()),
        "city": pa.array([["Paris", None, "a/b=c", "..", 'q"uote'][row % 5] for row in range(rows)]),
    }
    if kind == "binary":
        table["probability"] = pa.array(draw.uniform(size=rows), pa.float32())
    elif kind == "regression":
        table["value"] = pa.array(draw.normal(size=rows), pa.float32())
    else:
        shares = draw.dirichlet([1, 1, 1], rows).astype(np.float32)
        table["probabilities"] = pa.array(shares.tolist(), pa.list_(pa.float32()))
        table["class"] = [CLASSES[kind][one] for one in shares.argmax(1)]
    return pa.table(table)


def write_dataset(
    folder: Path,
    spans: dict[str, int],
    kind: str = "binary",
    rejected: tuple[int, ...] = (),
    top: int = 0,
    parts: int = 1,
    seed: int = 0,
    table: pa.Table | None = None,
) -> pa.Table:
    """Writes predictions of some spans; `rejected` are positions in the split. Gives the predicted rows."""
    total = sum(spans.values())
    given = rows_of(kind, total, seed) if table is None else table
    good = [row for row in range(total) if row not in rejected]
    predicted = given.take(pa.array(good, pa.int64()))
    (folder / "batch").mkdir(parents=True)
    step = max(1, -(-len(good) // parts))
    for part in range(parts):
        pq.write_table(predicted.slice(part * step, step), folder / "batch" / f"part-{part:05d}.parquet")
    if rejected:
        (folder / "rejected").mkdir()
        reasons = ["amount is infinite" if row % 2 else f"amount cannot be float: {row}" for row in rejected]
        table = given.take(pa.array(rejected)).select(["id", "amount"])
        table = table.append_column("reason", pa.array(reasons)).append_column("row", pa.array(rejected, pa.int64()))
        pq.write_table(table, folder / "rejected" / "part-00000.parquet")
    if top:
        (folder / "top").mkdir()
        order = np.argsort(-predicted["probability"].to_numpy())[:top]
        reasons_of = [[{"feature": "amount", "value": "1", "contribution": 0.5}]] * top
        pq.write_table(
            pa.table(
                {
                    "part": pa.array(order // step, pa.int64()),
                    "position": pa.array(order % step, pa.int64()),
                    "data": predicted.take(pa.array(order)).combine_chunks().to_struct_array(),
                    "reasons": pa.array(reasons_of, REASON_TYPE),
                }
            ),
            folder / "top" / "part-00000.parquet",
        )
    write_spec(folder, spec_of(kind))
    files = [
        SourceFile(uri=f"rows-{span}", span=span, rows=count, bytes=1, digest="0") for span, count in spans.items()
    ]
    splits = {"batch": len(good), "rejected": len(rejected)}
    write_manifest(folder, Manifest(splits=splits, digest=f"{seed}", files=files))
    return predicted


def settings(target: object, **given: Any) -> Batch:
    output = {"target": str(target), **given.pop("output", {})}
    return Batch.model_validate(json.loads(json.dumps({**given, "output": output})))


def written(dataset: Path, batch: Batch, kind: str = "binary", name: str = "shop") -> Result:
    """Writes a dataset as the stage does; the report lies beside it."""
    task = Task(type=kind, label="label")
    evaluation = Evaluation(slices=[["city"], ["id", "city"], ["absent"]])
    origin = Origin(name, "run-1", {"": "models/shop/versions/v0007-aaaaaaaa"})
    return write(str(dataset), task, batch, evaluation, origin, str(dataset.with_name(f"{dataset.name}.html")))
