"""Writes the diabetes study of Efron et al. (2004) as one compressed CSV file, in the units it was measured in.

Source: the package `scikit-learn`, which ships the study's table. A row number becomes the key. Does nothing when
the file is up to date.
"""

import argparse
import gzip
import importlib.util
import sys
from pathlib import Path

# What scikit-learn calls age, sex, bmi, bp, s1 … s6.
COLUMNS = (
    "patient age sex bmi blood_pressure cholesterol ldl hdl cholesterol_to_hdl log_triglycerides glucose progression"
)
SEX = {"1": "a", "2": "b"}  # the study does not say which is which


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
        _write(output / "patients.csv.gz", _table(Path(package.origin).parent / "datasets" / "data"))
    except OSError as error:
        return _fail(f"'{error.filename or output}': {error.strerror or error}; make room or give another --output")
    return 0


def _fail(message: str) -> int:
    print(f"prepare_data: {message}", file=sys.stderr)
    return 2


def _table(tables: Path) -> str:
    patients = gzip.decompress((tables / "diabetes_data_raw.csv.gz").read_bytes()).decode().splitlines()
    targets = gzip.decompress((tables / "diabetes_target.csv.gz").read_bytes()).decode().splitlines()
    lines = [COLUMNS.replace(" ", ";")]
    for number, (patient, target) in enumerate(zip(patients, targets, strict=True), 1):
        age, sex, *measures = patient.split()
        cells = [f"{float(cell):g}" for cell in (*measures, target)]
        lines.append(";".join([str(number), f"{float(age):g}", SEX[f"{float(sex):g}"], *cells]))
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    content = gzip.compress(text.encode(), mtime=0)  # without the time the same rows are the same bytes
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
    print(f"diabetes: {text.count(chr(10)) - 1} rows written to {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
