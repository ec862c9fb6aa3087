"""Writes a simulated year of card payments as monthly Parquet spans, and when each fraud was reported beside them.

What is simulated is in README.md. Who pays, where and how much depends on --seed alone. Does nothing
when the spans are there and neither the scripts nor the options have changed since.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa  # its import, and numpy's, take longer than all else where nothing is to do

SPANS = [f"transactions-2024-{month:02d}.parquet" for month in range(1, 13)]
REPORTS = "reports.parquet"
"""transaction_id, reported_at and pattern of each fraud: what a bank learns later, so no column of the spans."""
LATER = ("pattern", "reported_at")


def main() -> int:
    """Writes the spans unless they are there; returns an exit code."""
    folder = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=folder / "data", help="folder for the spans")
    parser.add_argument("--cards", type=int, default=1000, help="about 400 payments each (default: 1000)")
    parser.add_argument("--seed", type=int, default=17, help="the same gives the same payments (default: 17)")
    given = parser.parse_args()
    output: Path = given.output
    if given.cards < 20 or given.seed < 0:
        return _fail(f"--cards {given.cards} --seed {given.seed}: give 20 cards or more, and a seed of 0 or more")
    for package in ("numpy", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            return _fail(f"package '{package}' is not installed; run `make setup`")
    stamp = output / ".prepared"
    scripts = b"".join(path.read_bytes() for path in (Path(__file__), *sorted((folder / "simulator").glob("*.py"))))
    version = f"{hashlib.sha256(scripts).hexdigest()} --cards {given.cards} --seed {given.seed}"
    try:
        there = all((output / name).is_file() for name in (*SPANS, REPORTS))
        if there and stamp.is_file() and stamp.read_text() == version:
            return 0
        _write(output, given.cards, given.seed)
        stamp.write_text(version)
    except OSError as error:
        return _fail(f"'{error.filename or output}': {error.strerror or error}; make room or give another --output")
    return 0


def _fail(message: str) -> int:
    print(f"prepare_data: {message}", file=sys.stderr)
    return 2


def _write(output: Path, cards: int, seed: int) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    sys.path.insert(0, str(Path(__file__).parent))
    from simulator import simulate

    partial = output / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print(f"fraud: writing {len(SPANS)} monthly spans to {output}", flush=True)
    try:
        table = pa.table(simulate(cards, seed))
        month = pc.month(table["transaction_time"])
        for number, span in enumerate(SPANS, 1):
            _write_table(table.filter(pc.equal(month, number)).drop_columns(LATER), partial / span)
        reported = table.filter(pc.equal(table["fraud"], 1)).select(["transaction_id", *LATER])
        _write_table(reported, partial / REPORTS)
        for name in (*SPANS, REPORTS):
            (partial / name).replace(output / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"fraud: {len(table):,} payments, {len(reported):,} of them fraudulent", flush=True)


def _write_table(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


if __name__ == "__main__":
    sys.exit(main())
