"""Writes the breast cancer study of Wisconsin (1995) as one compressed CSV file, with few malignant tumours among many.

Source: the package `scikit-learn`, which ships the study's table: 30 measures of cell nuclei in a digitized image. All
357 benign tumours are kept and 19 of the 212 malignant ones, so that these are 5 % of the rows, as anomalies are rare.
A row number becomes the key. Does nothing when the file is up to date.
"""

import argparse
import csv
import gzip
import importlib.util
import io
import sys
from pathlib import Path

MEASURES = (
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points"),
    *("symmetry", "fractal_dimension"),
)
COLUMNS = [f"{statistic}_{measure}" for statistic in ("mean", "error", "worst") for measure in MEASURES]
MALIGNANT = "0"
EVERY = 11
"""So many malignant tumours to one that is kept."""


def main() -> int:
    """Writes the file unless it is there; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="folder for the file")
    output: Path = parser.parse_args().output
    # Importing the package itself takes longer than all else.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        return _fail("package 'scikit-learn' is not installed; run `make setup`")
    try:
        table = Path(package.origin).parent / "datasets" / "data" / "breast_cancer.csv"
        _write(output / "tumours.csv.gz", _table(table.read_text(encoding="utf-8")))
    except OSError as error:
        return _fail(f"'{error.filename or output}': {error.strerror or error}; make room or give another --output")
    return 0


def _fail(message: str) -> int:
    print(f"prepare_data: {message}", file=sys.stderr)
    return 2


def _table(text: str) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["tumour", *COLUMNS, "diagnosis"])
    malignant = 0
    for number, (*measures, target) in enumerate(list(csv.reader(text.splitlines()))[1:], 1):
        malignant += target == MALIGNANT
        if target != MALIGNANT or malignant % EVERY == 0:
            writer.writerow([number, *measures, "malignant" if target == MALIGNANT else "benign"])
    return written.getvalue()


def _write(path: Path, text: str) -> None:
    content = gzip.compress(text.encode(), mtime=0)  # without the time the same rows are the same bytes
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    print(f"tumours: {text.count(chr(10)) - 1} rows written to {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
