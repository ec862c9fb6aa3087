"""Writes the penguins of the Palmer Archipelago as one CSV file.

Source: the package `palmerpenguins` (data: CC0; K. B. Gorman, T. D. Williams, W. R. Fraser, PLoS ONE 2014). A row
number becomes the key; `NA` stays what it is, a missing value. Does nothing when the file is up to date.
"""

import argparse
import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Writes the file unless it is there; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data", help="folder for the file")
    output: Path = parser.parse_args().output
    # Importing the package itself costs the import of pandas.
    package = importlib.util.find_spec("palmerpenguins")
    if package is None or package.origin is None:
        return _fail("package 'palmerpenguins' is not installed; run `make setup`")
    try:
        header, *rows = (Path(package.origin).parent / "data" / "penguins.csv").read_text().splitlines()
        lines = [f"penguin,{header}", *(f"P{number:03d},{row}" for number, row in enumerate(rows, 1))]
        _write(output / "penguins.csv", "\n".join(lines) + "\n")
    except OSError as error:
        return _fail(f"'{error.filename or output}': {error.strerror or error}; make room or give another --output")
    return 0


def _fail(message: str) -> int:
    print(f"prepare_data: {message}", file=sys.stderr)
    return 2


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
    print(f"penguins: {text.count(chr(10)) - 1} rows written to {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
