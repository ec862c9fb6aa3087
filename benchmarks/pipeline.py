"""Times the training pipeline: `python benchmarks/pipeline.py [flights] [small] [tenfold]`.

Needs what `make setup` makes, and for `flights` and `tenfold` what `make data` gets. Run it on an idle machine.
Every case starts with an empty runs folder and model store; `rerun` is the same command once more.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from process_tree import Usage, measure

ROOT = Path(__file__).resolve().parent.parent
FLIGHTS = ROOT / "examples" / "flights"

SMALL = """\
name: small
data:
  source: rows.parquet
  split: {by: hash, key: [id]}
  key: [id]
task: {type: binary, label: label}
"""


def main() -> None:
    """Runs the chosen cases and prints a table."""
    cases = {"flights": flights, "small": small, "tenfold": tenfold}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*cases, []], metavar="CASE")
    chosen = parser.parse_args().cases or list(cases)
    print("| case | wall s | peak RSS MiB | peak PSS MiB |\n|---|---|---|---|")
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="lockgate-benchmark-") as folder:
            cases[name](Path(folder))


def flights(folder: Path) -> None:
    """A year of flights, then the unchanged rerun."""
    command = _command(FLIGHTS, folder)
    _print("flights", measure(command, folder / "first.log", ROOT), folder / "first.log")
    _print("flights, unchanged rerun", measure(command, folder / "again.log", ROOT), folder / "again.log")


def small(folder: Path) -> None:
    """15,000 rows of 15 columns, all settings left at their defaults."""
    rng = np.random.default_rng(17)
    rows = 15_000
    numbers = {f"number_{i}": rng.normal(size=rows).astype("float32") for i in range(9)}
    categories = {f"category_{i}": rng.choice([f"value {j}" for j in range(5 * i + 2)], rows) for i in range(4)}
    logit = numbers["number_0"] * 2 - numbers["number_1"] + (categories["category_1"] == "value 3")
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype("int64")
    table = pa.table({"id": np.arange(rows), **numbers, **categories, "label": label})
    pq.write_table(table, folder / "rows.parquet")
    (folder / "pipeline.yaml").write_text(SMALL)
    _print("15,000 rows, 15 columns", measure(_command(folder, folder), folder / "log", ROOT), folder / "log")


def tenfold(folder: Path) -> None:
    """Flights ten times over, with noise on the numbers."""
    rng = np.random.default_rng(17)
    project = folder / "flights"
    (project / "data").mkdir(parents=True)
    for path in sorted(FLIGHTS.iterdir()):
        if path.is_file():
            (project / path.name).write_bytes(path.read_bytes())
    for path in sorted((FLIGHTS / "data").glob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(pa.concat_tables([_noisy(table, copy, rng) for copy in range(10)]), project / "data" / path.name)
    command = [*_command(project, folder), "--set", "data.key=[]"]
    _print("flights ×10", measure(command, folder / "log", ROOT), folder / "log")


def _noisy(table: pa.Table, copy: int, rng: np.random.Generator) -> pa.Table:
    for index, field in enumerate(table.schema):
        if copy and pa.types.is_floating(field.type):
            values = table.column(index).to_numpy().astype("float64")
            noise = rng.normal(scale=0.01 * (np.nanstd(values) or 1), size=len(values))
            noisy = np.clip(values + noise, np.nanmin(values), np.nanmax(values))  # what the schema allows
            table = table.set_column(index, field.name, pa.array(noisy, from_pandas=True).cast(field.type))
    return table


def _command(project: Path, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-W", "ignore", "-m", "pipelines", "run", str(project)),
        *("--runs", str(folder / "runs"), "--set", f"publication.store={folder / 'models'}"),
    ]


def _print(case: str, usage: Usage, log: Path) -> None:
    if usage.exit_code:
        print(log.read_text(errors="replace"), file=sys.stderr)
        raise SystemExit(f"{case}: ended with {usage.exit_code}")
    print(f"| {case} | {usage.wall_seconds:.1f} | {usage.rss_mib:,.0f} | {usage.pss_mib:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
