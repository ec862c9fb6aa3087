"""A small source of flights, and ways to ingest it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import Manifest, split_files
from components.ingest_data.ingestion import ingest
from components.settings import Data, Task, WindowFeatures
from components.stage import stage

SCHEMA = """
feature { name: "id" type: INT presence { min_fraction: 1 } }
feature { name: "carrier" type: BYTES }
feature { name: "distance" type: FLOAT }
feature { name: "seats" type: INT }
feature { name: "departs" type: INT time_domain { integer_format: UNIX_SECONDS } }
feature { name: "late" type: INT }
"""
COLUMNS = ["id", "carrier", "distance", "seats", "departs", "late"]
ROWS_A_MONTH = 40

Row = dict[str, Any]


@dataclass
class Source:
    """Files in a folder, and what is to be done with them."""

    folder: Path
    schema: str = SCHEMA

    @property
    def output(self) -> Path:
        return self.folder / "run" / "examples"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def write_csv(self, name: str, table: Sequence[Row], columns: Sequence[str] = COLUMNS) -> Path:
        return self.write(name, csv_text(table, columns))

    def write_parquet(self, name: str, table: Sequence[Row], types: Mapping[str, pa.DataType] | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(arrow_table(table, types or {}), path)
        return path

    def ingest(
        self, task: Row | None = None, environment: str = "", windows: Row | None = None, **data: Any
    ) -> Manifest:
        settings = {
            "source": str(self.folder / "flights-{YYYY}-{MM}.csv"),
            "split": {"by": "hash", "key": ["id"]},
            **data,
        }
        label = {"type": "binary", "label": "late", **(task or {})}
        sections = Data.model_validate(settings), Task.model_validate(label)
        features = WindowFeatures.model_validate(windows) if windows else None
        return ingest(*sections, self.schema, str(self.output), environment, features)

    def run(self, task: Row | None = None, environment: str = "", **data: Any) -> Manifest:
        """Ingests as the component does: a failure is a line on stderr and an exit code."""
        with stage("ingest_data"):
            return self.ingest(task, environment, **data)

    def split(self, name: str) -> pa.Table:
        return pq.read_table(split_files(self.output, name)[0])

    def all_rows(self) -> list[Row]:
        return sorted([*self.split("train").to_pylist(), *self.split("eval").to_pylist()], key=lambda row: row["id"])


def months(count: int = 3) -> dict[str, list[Row]]:
    """Gives rows by month, the ids running on from month to month."""
    return {
        f"2013-{month:02d}": [
            {
                "id": month * 1000 + number,
                "carrier": ["AA", "B6", "Ünïted, Inc."][number % 3],
                "distance": 100.5 + number,
                "seats": None if number % 7 == 0 else 50 + number,
                "departs": f"2013-{month:02d}-{1 + number % 28:02d} {number % 24:02d}:30:00",
                "late": int(number % 5 == 0),
            }
            for number in range(ROWS_A_MONTH)
        ]
        for month in range(1, count + 1)
    }


def csv_text(table: Sequence[Row], columns: Sequence[str] = COLUMNS, **options: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", **options)
    writer.writerow(columns)
    writer.writerows(["" if row.get(name) is None else row[name] for name in columns] for row in table)
    return text.getvalue()


def arrow_table(table: Sequence[Row], types: Mapping[str, pa.DataType]) -> pa.Table:
    names = list(table[0])
    arrays = [pa.array([row[name] for row in table]) for name in names]
    return pa.table({name: a.cast(types.get(name, a.type)) for name, a in zip(names, arrays, strict=True)})
