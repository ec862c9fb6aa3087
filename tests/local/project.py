"""A small project for whole-pipeline tests, and the command that runs it."""

import csv
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from components.run_records import StageRecord, read_records

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = """\
name: shop
data:
  source: data/visits-{YYYY}-{MM}.csv
  split: {by: hash, key: [visit]}
  key: [visit]
schema: schema.pbtxt
task: {type: binary, label: bought}
features:
  numeric: [{columns: [price, age], indicator: true}]
  categorical: [{columns: [city]}]
model: {kind: mlp, hidden_units: [16], numeric_embedding: none}
training: {epochs: 3, batch_size: 128, learning_rate: 0.01}
evaluation:
  thresholds: [{metric: auc, min: 0.7}]
  slices: [[city]]
  bootstrap: {resamples: 20}
"""

SCHEMA = """\
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "visit" type: BYTES presence { min_fraction: 1.0 } }
feature { name: "price" type: FLOAT presence { min_fraction: 1.0 } float_domain { min: 0 max: 1000 } }
feature { name: "age" type: INT presence { min_fraction: 0.5 } int_domain { min: 0 max: 120 } }
feature { name: "city" type: BYTES presence { min_fraction: 1.0 } domain: "cities" }
feature { name: "bought" type: INT presence { min_fraction: 1.0 } not_in_environment: "SERVING"
          int_domain { min: 0 max: 1 is_categorical: true } }
string_domain { name: "cities" value: "Paris" value: "Rome" value: "Oslo" }
"""


def write_project(
    folder: Path, months: int = 2, rows: int = 1500, cities: tuple[str, ...] = ("Paris", "Rome", "Oslo")
) -> Path:
    """Writes a project whose label depends on price and city."""
    (folder / "data").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(SETTINGS)
    (folder / "schema.pbtxt").write_text(SCHEMA)
    for month in range(1, months + 1):
        write_span(folder, month, rows, cities)
    return folder


def write_span(folder: Path, month: int, rows: int, cities: tuple[str, ...] = ("Paris", "Rome", "Oslo")) -> None:
    """Writes one month of visits."""
    draw = random.Random(month)
    with (folder / "data" / f"visits-2025-{month:02d}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["visit", "price", "age", "city", "bought"])
        for row in range(rows):
            price, city = round(draw.uniform(1, 100), 2), draw.choice(cities)
            age = "" if draw.random() < 0.1 else draw.randint(18, 90)
            bought = int(draw.random() < (0.9 if (price < 40) != (city == "Oslo") else 0.1))
            writer.writerow([f"{month}-{row}", price, age, city, bought])


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    stdout: str
    stderr: str
    records: dict[str, StageRecord]
    """By task; of the newest run."""

    def states(self) -> dict[str, str]:
        """The state of each task."""
        return {name: record.state for name, record in self.records.items()}


def command(project: Path, *options: str) -> list[str]:
    """The command that runs a project; its runs lie in `<project>/runs`."""
    return [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pipelines",
        "run",
        str(project),
        "--runs",
        str(project / "runs"),
        *options,
    ]


def run(project: Path, *options: str) -> Ended:
    """Runs a project to its end."""
    done = subprocess.run(
        command(project, *options), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr, newest_records(project))


def newest_run(project: Path) -> Path | None:
    """The folder of the newest run."""
    runs = sorted(p.parent for p in (project / "runs").glob("*/stages"))
    return max(runs, key=lambda p: p.stat().st_mtime) if runs else None


def newest_records(project: Path) -> dict[str, StageRecord]:
    """The records of the newest run."""
    folder = newest_run(project)
    return {record.task: record for record in read_records(folder.parent, folder.name)} if folder else {}
