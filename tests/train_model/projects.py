"""Small projects, transformed and trained by the real stages; made once a process."""

import functools
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, write_manifest
from components.schema import columns, parse_schema
from components.settings import Features, Task, Training
from components.train_model.training import parse_model, train
from components.transform_data.transformation import transform

ROWS = 900
SCHEMA = """
feature { name: "id" type: BYTES presence { min_fraction: 1 } }
feature { name: "amount" type: FLOAT }
feature { name: "trip km" type: FLOAT presence { min_fraction: 1 } }
feature { name: "visits" type: INT }
feature { name: "colour" type: BYTES }
feature { name: "label" type: %s }
"""
FEATURES = {
    "numeric": [{"columns": ["amount", "visits"]}, {"columns": ["trip km"], "missing": "error"}],
    "categorical": [{"columns": ["colour"]}],
}
LABEL_TYPES = {
    "binary": "INT",
    "multiclass": "BYTES",
    "regression": "FLOAT",
    "anomaly_detection": "INT",
    "clustering": "BYTES",
}
MODELS = {
    "anomaly_detection": {"kind": "isolation_forest", "trees": 20},
    "clustering": {"kind": "k_means", "clusters": 3, "starts": 1},
}
"""Of a task that has no mlp."""
FAST = {"epochs": 6, "batch_size": 64, "learning_rate": 0.01}


def raw_rows(kind: str, rows: int = ROWS, seed: int = 3) -> pa.Table:
    """Rows whose label depends on all columns; a tenth of the optional values are missing."""
    rng = np.random.default_rng(seed)
    amount = rng.normal(100, 20, rows)
    trip = rng.exponential(5, rows)
    visits = rng.integers(0, 9, rows)
    colour = rng.choice(["red", "green", "grün"], rows)
    if kind == "anomaly_detection":
        odd = np.random.default_rng(seed).random(rows) < 0.05
        amount += 150 * odd
    if kind == "clustering":
        group = np.random.default_rng(seed).integers(0, 3, rows)
        amount, trip = amount + 400 * (group == 1), trip + 60 * (group == 2)
    score = (amount - 100) / 20 + (trip - 5) / 5 + (visits - 4) / 3 + 2 * (colour == "red")
    labels = {
        "binary": (score + rng.normal(0, 0.5, rows) > 1).astype("int64"),
        "multiclass": np.array(["low", "mid", "high"])[np.digitize(score, [0, 1.5])],
        "regression": (1000 + 50 * score).astype("float32"),
    }
    if kind == "anomaly_detection":
        labels[kind] = odd.astype("int64")
    if kind == "clustering":
        labels[kind] = np.array(["few", "dear", "far"])[group]
    return pa.table(
        {
            "id": [f"row-{index}" for index in range(rows)],
            "amount": pa.array(amount, pa.float32(), mask=rng.random(rows) < 0.1),
            "trip km": pa.array(trip, pa.float32()),
            "visits": pa.array(visits, pa.int64(), mask=rng.random(rows) < 0.1),
            "colour": pa.array(colour, pa.string(), mask=rng.random(rows) < 0.1),
            "label": labels[kind],
        }
    )


def write_dataset(folder: Path, **splits: pa.Table) -> Path:
    """Writes each split in two parts."""
    for split, table in splits.items():
        (folder / split).mkdir(parents=True)
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), folder / split / "part-00000.parquet")
        pq.write_table(table.slice(half), folder / split / "part-00001.parquet")
    rows = {split: table.num_rows for split, table in splits.items()}
    write_manifest(folder, Manifest(splits=rows, digest="0" * 64))
    return folder


@dataclass(frozen=True)
class Project:
    """What train takes; tests change what they are about."""

    folder: Path
    kind: str
    transformed: Path
    transform_graph: Path
    settings: dict[str, Any] | None = None
    """Section `task`, where it is another than usual."""

    @property
    def examples(self) -> Path:
        """The raw rows: train and eval."""
        return self.folder / "examples"

    @property
    def task(self) -> Task:
        """Section `task`."""
        return Task.model_validate(self.settings or {"type": self.kind, "label": "label"})

    def train(
        self, output: Path, model: dict[str, Any] | None = None, training: dict[str, Any] | None = None, code: str = ""
    ) -> dict[str, float]:
        """Trains into `output`/model and `output`/report.html."""
        return train(
            str(self.transformed),
            str(self.transform_graph),
            str(self.folder / "schema"),
            self.task,
            parse_model(model or MODELS.get(self.kind, {"kind": "mlp", "hidden_units": [16]})),
            Training.model_validate(FAST | (training or {})),
            code,
            str(output / "model"),
            str(output / "report.html"),
        )

    def with_transformed(self, folder: Path) -> "Project":
        """The same with another transformed dataset."""
        return replace(self, transformed=folder)


@functools.cache
def project(kind: str, names: tuple[tuple[str, str], ...] = ()) -> Project:
    """A transformed project of a task; names: what columns are called instead."""
    folder = Path(tempfile.mkdtemp(prefix=f"lockgate-{kind}-"))
    new = dict(names)
    splits = {"train": raw_rows(kind), "eval": raw_rows(kind, 300, seed=4)}
    renamed = {s: rows.rename_columns([new.get(n, n) for n in rows.column_names]) for s, rows in splits.items()}
    write_dataset(folder / "examples", **renamed)
    schema, features = SCHEMA % LABEL_TYPES[kind], json.dumps(FEATURES)
    for old, name in names:
        schema, features = (text.replace(f'"{old}"', f'"{name}"') for text in (schema, features))
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(schema)
    made = Project(folder, kind, folder / "transformed", folder / "graph")
    transform(
        str(made.examples),
        str(folder / "schema"),
        made.task,
        Features.model_validate_json(features),
        "",
        "",
        [],
        str(made.transform_graph),
        str(made.transformed),
    )
    return made


@functools.cache
def trained(kind: str) -> Path:
    """A trained model of a task, and its report beside it."""
    made = project(kind)
    made.train(made.folder / "trained")
    return made.folder / "trained" / "model"


def read_split(dataset: Path, split: str) -> pa.Table:
    """A split's rows, in order."""
    return pa.concat_tables(pq.ParquetFile(part).read() for part in sorted((dataset / split).glob("*.parquet")))


def arrays_of(table: pa.Table, kind: str) -> dict[str, Any]:
    """Raw rows as the model takes them."""
    from components.rows import raw_arrays

    wanted = columns(parse_schema(SCHEMA % LABEL_TYPES[kind]))
    inputs = [wanted[name] for name in ("amount", "trip km", "visits", "colour")]
    return raw_arrays(table.combine_chunks().to_batches()[0], inputs)
