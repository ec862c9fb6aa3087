"""Small datasets as ingest_data writes them, and the call of the stage."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, write_manifest
from components.settings import Task, Validation
from components.validate_data.validation import Result, validate

Columns = dict[str, pa.Array]

SCHEMA = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature {
  name: "carrier" type: BYTES presence { min_fraction: 1 }
  string_domain { value: "UA" value: "B6" value: "DL" }
}
feature { name: "distance" type: FLOAT presence { min_fraction: 1 } float_domain { min: 10 max: 6000 } }
feature { name: "hour" type: INT presence { min_fraction: 1 } int_domain { min: 0 max: 23 } }
feature { name: "wind" type: FLOAT }
feature {
  name: "late" type: INT presence { min_fraction: 1 } int_domain { min: 0 max: 1 }
  not_in_environment: "SERVING"
}
"""
TRAIN_ROWS, EVAL_ROWS = 2000, 500


def good(rows: int, seed: int = 0) -> Columns:
    """Columns in which nothing is wrong."""
    random = np.random.default_rng(seed)
    return {
        "carrier": pa.array(random.choice(["UA", "B6", "DL"], rows)),
        "distance": pa.array(random.uniform(100, 3000, rows).astype(np.float32)),
        "hour": pa.array(random.integers(0, 24, rows)),
        "wind": pa.array(random.normal(10, 3, rows).astype(np.float32)),
        "late": pa.array(random.integers(0, 2, rows)),
    }


def replaced(values: pa.Array, offending: Any, count: int) -> pa.Array:
    """The first `count` values become `offending`."""
    return pa.concat_arrays([pa.array([offending] * count, values.type), values.slice(count)])


@dataclass(frozen=True)
class Place:
    """A dataset and where the stage's outputs go."""

    root: Path

    @property
    def examples(self) -> Path:
        return self.root / "examples"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def report(self) -> Path:
        return self.outputs / "report.html"

    def write(self, train: Columns | None = None, evaluation: Columns | None = None, **options: Any) -> "Place":
        """Writes good splits, with the given columns in place of theirs (or beside them)."""
        self.write_splits(
            {
                "train": good(TRAIN_ROWS) | (train or {}),
                "eval": good(EVAL_ROWS, seed=1) | (evaluation or {}),
            },
            **options,
        )
        return self

    def write_splits(self, splits: dict[str, Columns], **options: Any) -> "Place":
        for name, columns in splits.items():
            (self.examples / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), self.examples / name / "part-00000.parquet", **options)
        rows = {name: len(next(iter(columns.values()))) for name, columns in splits.items()}
        write_manifest(self.examples, Manifest(splits=rows, digest="0"))
        return self

    def validate(
        self,
        schema: str = SCHEMA,
        validation: dict[str, Any] | None = None,
        task: dict[str, Any] | None = None,
        production: str = "",
    ) -> Result:
        return validate(
            str(self.examples),
            Task.model_validate({"type": "binary", "label": "late"} | (task or {})),
            Validation.model_validate(validation or {}),
            schema,
            production,
            str(self.outputs / "statistics"),
            str(self.outputs / "schema"),
            str(self.outputs / "anomalies"),
            str(self.report),
        )

    def anomalies(self) -> list[dict[str, Any]]:
        """What anomalies.json lists."""
        content = json.loads((self.outputs / "anomalies" / "anomalies.json").read_text(encoding="utf-8"))
        return list(content["anomalies"])

    def found(self) -> set[tuple[str, str, str, str]]:
        """Severity, split, feature and type of all anomalies."""
        return {(one["severity"], one["split"], one["feature"], one["type"]) for one in self.anomalies()}

    def left_behind(self) -> list[str]:
        """All that the stage wrote."""
        return sorted(str(path.relative_to(self.outputs)) for path in self.outputs.rglob("*"))
