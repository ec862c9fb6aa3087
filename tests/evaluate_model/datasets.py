"""Datasets as ingest_data and predict_batch write them, small enough to read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, write_manifest
from components.evaluate_model.evaluation import evaluate
from components.evaluation_result import EvaluationResult
from components.features import Label
from components.model_spec import ModelSpec, outputs_of, write_spec
from components.settings import Evaluation, Task


def write_dataset(
    folder: Path,
    splits: Mapping[str, pa.Table],
    counts: Mapping[str, int] | None = None,
    classes: list[str] | None = None,
) -> Path:
    """Writes each split in two parts; `counts` overrides the manifest's rows."""
    for split, table in splits.items():
        (folder / split).mkdir(parents=True)
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), folder / split / "part-00000.parquet")
        pq.write_table(table.slice(half), folder / split / "part-00001.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    rows = {split: table.num_rows for split, table in splits.items()}
    write_manifest(folder, Manifest(splits={**rows, **(counts or {})}, digest="0"))
    if classes is not None:
        write_spec(folder, spec(classes))
    return folder


def spec(classes: list[str]) -> ModelSpec:
    """The spec of a model for several classes."""
    label = Label(name="late", kind="multiclass", classes=classes)
    outputs = outputs_of(label)
    return ModelSpec(inputs=[], outputs=outputs, label=label, weights_digest="0", train_rows=1, libraries={})


@dataclass
class Case:
    """Everything that evaluate takes; tests change what they are about."""

    folder: Path
    task: dict[str, Any] = field(default_factory=lambda: {"type": "binary", "label": "late"})
    evaluation: dict[str, Any] = field(default_factory=dict)
    train: pa.Table | None = None
    eval: pa.Table | None = None
    """Kept columns and predictions."""
    production: pa.Table | None = None
    rejected: int = 0
    reasons: tuple[str, ...] = ("temp is missing",)
    """Of the rejected rows, in turn."""
    rejected_from: int | None = None
    """Position of the first rejected row; None: behind the predicted ones."""
    production_rejected: int = 0
    production_rejected_from: int | None = None
    classes: list[str] | None = None
    change: Callable[["Case"], None] = lambda case: None
    """Called when everything is written, before it is read."""

    @property
    def result(self) -> Path:
        return self.folder / "result"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def write(self) -> None:
        none: dict[str, pa.Table] = {}
        write_dataset(self.folder / "examples", none if self.train is None else {"train": self.train})
        for name, table, rejected, first in (
            ("predictions", self.eval, self.rejected, self.rejected_from),
            ("production", self.production, self.production_rejected, self.production_rejected_from),
        ):
            splits = none if table is None else {"eval": table}
            counts = {"eval": 0 if table is None else table.num_rows, "rejected": rejected}
            write_dataset(self.folder / name, splits, counts, self.classes)
            if rejected:
                (self.folder / name / "rejected").mkdir()
                reasons = [self.reasons[row % len(self.reasons)] for row in range(rejected)]
                path = self.folder / name / "rejected" / "part-00000-000000000.parquet"
                start = first if first is not None else 0 if table is None else table.num_rows
                rows = pa.array(range(start, start + rejected))
                pq.write_table(pa.table({"temp": [None] * rejected, "reason": reasons, "row": rows}), path)
        self.change(self)

    def evaluate(self) -> EvaluationResult:
        self.write()
        return self.read()

    def read(self) -> EvaluationResult:
        return evaluate(
            str(self.folder / "predictions"),
            str(self.folder / "production"),
            str(self.folder / "examples"),
            Task.model_validate(self.task),
            Evaluation.model_validate(self.evaluation),
            str(self.result),
            str(self.report),
        )


def flights(rows: int = 2000, seed: int = 1, noise: float = 1.0) -> pa.Table:
    """Rows whose `late` depends on what `probability` says; noise makes the prediction worse."""
    random = np.random.default_rng(seed)
    logit = random.normal(-1, 1.5, rows)
    late = random.random(rows) < 1 / (1 + np.exp(-logit))
    guess = 1 / (1 + np.exp(-(logit + np.random.default_rng(seed + 1).normal(0, noise, rows))))
    return pa.table(
        {
            "flight": pa.array(range(rows)),
            "late": pa.array(late.astype(np.int64)),
            "carrier": pa.array(random.choice(["UA", "DL", "AA", None], rows, p=[0.5, 0.3, 0.19, 0.01]), pa.string()),
            "origin": pa.array(random.choice(["JFK", "LGA"], rows)),
            "temp": pa.array(random.normal(10, 8, rows), pa.float32()),
            "probability": pa.array(guess.astype(np.float32)),
        }
    )


def binary_case(folder: Path, **changes: Any) -> Case:
    """A good model, no production."""
    table = flights()
    return Case(folder, **{"train": flights(seed=7).select(["late"]), "eval": table, **changes})


def multiclass_case(folder: Path, **changes: Any) -> Case:
    """Three classes, told apart well."""
    random = np.random.default_rng(5)
    classes = ["setosa", "versicolor", "virginica"]
    truth = random.integers(0, 3, 600)
    logits = random.normal(0, 1, (600, 3)) + 2 * np.eye(3)[truth]
    scores = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    table = pa.table(
        {
            "late": pa.array([classes[one] for one in truth]),
            "carrier": pa.array(random.choice(["UA", "DL"], 600)),
            "probabilities": pa.array(scores.tolist(), pa.list_(pa.float32())),
            "class": pa.array([classes[one] for one in scores.argmax(axis=1)]),
        }
    )
    defaults = {"train": table.select(["late"]), "eval": table, "classes": classes}
    return Case(folder, task={"type": "multiclass", "label": "late"}, **{**defaults, **changes})


def regression_case(folder: Path, **changes: Any) -> Case:
    """A number, predicted well."""
    random = np.random.default_rng(3)
    truth = random.normal(20, 5, 800)
    table = pa.table(
        {
            "late": pa.array(truth),
            "carrier": pa.array(random.choice(["UA", "DL"], 800)),
            "value": pa.array((truth + random.normal(0, 2, 800)).astype(np.float32)),
        }
    )
    defaults = {"train": table.select(["late"]), "eval": table}
    return Case(folder, task={"type": "regression", "label": "late"}, **{**defaults, **changes})
