"""Defective inputs: each ends with an exit code and one line that says what to do, and leaves nothing behind."""

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import DataRejectedError, InputError, UnavailableError
from tests.ingest_data.source import COLUMNS, SCHEMA, Source, arrow_table, csv_text, months

ROOT = Path(__file__).parents[2]
INPUT, REJECTED, UNAVAILABLE = InputError.exit_code, DataRejectedError.exit_code, UnavailableError.exit_code
MONTHS = months()
JANUARY = MONTHS["2013-01"]
NEXT_TO_LAST = "flights-2013-02.csv"


@dataclass
class Defect:
    """What is wrong, and what comes of it."""

    name: str
    make: Callable[[Source], object]
    """Changes three good monthly CSV files."""
    code: int
    words: str
    """In the one line."""
    data: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA


def nothing(source: Source) -> None:
    """The defect is in the configuration."""


def rewrite(**changes: Any) -> Callable[[Source], object]:
    """Changes columns of the second month: a value for all its rows, or a function of the row."""

    def make(source: Source) -> None:
        rows = [row | {k: v(row) if callable(v) else v for k, v in changes.items()} for row in MONTHS["2013-02"]]
        source.write_csv(NEXT_TO_LAST, rows)

    return make


def rewrite_all(**changes: Any) -> Callable[[Source], object]:
    def make(source: Source) -> None:
        for span, rows in MONTHS.items():
            changed = [row | {k: v(row) if callable(v) else v for k, v in changes.items()} for row in rows]
            source.write_csv(f"flights-{span}.csv", changed)

    return make


def content(text: str | bytes, name: str = NEXT_TO_LAST) -> Callable[[Source], object]:
    return lambda source: source.write(name, text)


def parquet(**types: pa.DataType) -> Callable[[Source], object]:
    def make(source: Source) -> None:
        table = arrow_table(JANUARY, {})
        for name, kind in types.items():
            table = table.set_column(table.column_names.index(name), name, pa.nulls(len(table), kind))
        pq.write_table(table, source.folder / "rows.parquet")

    return make


def truncated_parquet(source: Source) -> None:
    parquet()(source)
    path = source.folder / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def damaged_parquet_page(source: Source) -> None:
    path = source.write_parquet("rows.parquet", JANUARY)
    damaged = bytearray(path.read_bytes())
    damaged[4:400] = bytes(396)
    path.write_bytes(bytes(damaged))


def twice_the_column(source: Source) -> None:
    table = arrow_table(JANUARY, {}).append_column("carrier", pa.nulls(len(JANUARY), pa.string()))
    pq.write_table(table, source.folder / "rows.parquet")


def constant_target(source: Source) -> None:
    source.write_csv("flat.csv", [row | {"flat": 1.5} for row in JANUARY], [*COLUMNS, "flat"])


ROWS_PARQUET = {"source": "rows.parquet"}
PACKED = gzip.compress(csv_text(JANUARY * 50).encode())
ZSTD = pa.compress(csv_text(JANUARY * 50).encode(), "zstd", asbytes=True)
BY_TIME = {"by": "time", "column": "departs"}

DEFECTS = [
    # Columns
    Defect(
        "missing column",
        content(csv_text(JANUARY, COLUMNS[:-2])),
        REJECTED,
        "2 of 6 columns missing: 'departs', 'late'",
    ),
    Defect(
        "renamed column", content(csv_text(JANUARY).replace("carrier", "carier", 1)), REJECTED, "did you mean 'carier'?"
    ),
    Defect("other case", content(csv_text(JANUARY).replace("seats", "SEATS", 1)), REJECTED, "did you mean 'SEATS'?"),
    Defect("duplicate column", content(csv_text(JANUARY).replace("seats", "id", 1)), REJECTED, "'id' is there 2 times"),
    Defect("duplicate column in Parquet", twice_the_column, REJECTED, "'carrier' is there 2 times", ROWS_PARQUET),
    Defect("no header", content(csv_text(JANUARY).partition("\n")[2]), REJECTED, "6 of 6 columns missing"),
    # Types
    Defect(
        "text in an integer column",
        rewrite(seats=lambda r: "many" if r["id"] == 2030 else 1),
        REJECTED,
        "flights-2013-02.csv' row 31: column 'seats': 'many' does not fit type INT",
    ),
    Defect("fraction in an integer column", rewrite(seats=12.5), REJECTED, "'12.5' does not fit type INT"),
    Defect("integer too large", rewrite(seats=2**63), REJECTED, "'9223372036854775808' does not fit"),
    Defect(
        "text in a number column", rewrite(distance="1,5"), REJECTED, "column 'distance': '1,5' does not fit type FLOAT"
    ),
    Defect("number too large", rewrite(distance="1e300"), REJECTED, "1e+300 does not fit type FLOAT"),
    Defect("no time", rewrite(departs="2013-02-30 10:00"), REJECTED, "does not fit type INT with time_domain (a time)"),
    Defect("very long value in the wrong place", rewrite(seats="x" * 1_000_000), REJECTED, "(1,000,002 characters)"),
    Defect(
        "text in an integer column of Parquet",
        parquet(seats=pa.string()),
        REJECTED,
        "column 'seats' is string, not INT",
        ROWS_PARQUET,
    ),
    Defect(
        "integers in a text column of Parquet",
        parquet(carrier=pa.int64()),
        REJECTED,
        "column 'carrier' is int64, not BYTES",
        ROWS_PARQUET,
    ),
    Defect(
        "timestamp in an integer column",
        parquet(seats=pa.timestamp("us")),
        REJECTED,
        "is timestamp[us], not INT",
        ROWS_PARQUET,
    ),
    Defect("list column", parquet(carrier=pa.list_(pa.string())), REJECTED, "not BYTES", ROWS_PARQUET),
    Defect(
        "list column without a schema",
        parquet(carrier=pa.list_(pa.string())),
        REJECTED,
        "which no table of ours",
        ROWS_PARQUET,
        schema="",
    ),
    # Files
    Defect("no file", nothing, REJECTED, "no file matches", {"source": "flghts-{YYYY}-{MM}.csv"}),
    Defect("folder", nothing, REJECTED, "it is a folder", {"source": "."}),
    Defect(
        "missing span",
        lambda s: (s.folder / NEXT_TO_LAST).unlink(),
        REJECTED,
        "missing: 2013-02",
        {"window": "2013-01..2013-03"},
    ),
    Defect("span with no rows", content(csv_text([])), REJECTED, "no rows in span 2013-02"),
    Defect(
        "no rows at all", content(csv_text([]), "rows.csv"), REJECTED, "no rows in 'rows.csv'", {"source": "rows.csv"}
    ),
    Defect("no bytes", content(""), REJECTED, "is empty (0 bytes)"),
    Defect("blank lines only", content("\n\n\n"), REJECTED, "holds no header"),
    Defect(
        "truncated gzip",
        content(PACKED[: len(PACKED) // 2], "rows.csv.gz"),
        REJECTED,
        "rows.csv.gz' cannot be read",
        {"source": "rows.csv.gz"},
    ),
    Defect(
        "damaged gzip",
        content(PACKED[:200] + bytes(50) + PACKED[250:], "rows.csv.gz"),
        REJECTED,
        "cannot be read",
        {"source": "rows.csv.gz"},
    ),
    Defect(
        "truncated zstd",
        content(ZSTD[: len(ZSTD) // 2], "rows.csv.zst"),
        REJECTED,
        "cannot be read",
        {"source": "rows.csv.zst"},
    ),
    Defect("gzip under a plain name", content(PACKED), REJECTED, "is gzip data, not CSV"),
    Defect(
        "plain text under a packed name",
        content("a,b\n", "rows.csv.gz"),
        REJECTED,
        "is something else, not gzip",
        {"source": "rows.csv.gz"},
    ),
    Defect("truncated Parquet", truncated_parquet, REJECTED, "cannot be read: Parquet magic bytes", ROWS_PARQUET),
    Defect("damaged Parquet page", damaged_parquet_page, REJECTED, "rows.parquet' cannot be read", ROWS_PARQUET),
    Defect(
        "CSV named Parquet",
        content(csv_text(JANUARY), "rows.parquet"),
        REJECTED,
        "is something else, not a Parquet",
        ROWS_PARQUET,
    ),
    Defect(
        "Parquet named CSV", lambda s: s.write_parquet(NEXT_TO_LAST, JANUARY), REJECTED, "is a Parquet file, not CSV"
    ),
    Defect("Excel named CSV", content(b"PK\x03\x04" + bytes(60)), REJECTED, "an Excel workbook, not CSV"),
    Defect("binary named CSV", content(bytes(range(256)) * 4), REJECTED, "flights-2013-02.csv'"),
    Defect("unknown format", content("{}", "rows.json"), INPUT, "the name tells no format", {"source": "rows.json"}),
    # CSV
    Defect("ragged row", content(csv_text(JANUARY) + "1,2,3\n"), REJECTED, "Expected 6 columns, got 3"),
    Defect(
        "quote never closed",
        content(csv_text(JANUARY) + '77,"AA,1.5,1,,1\n78,B6,1,1,,0\n'),
        REJECTED,
        "Expected 6 columns",
    ),
    Defect(
        "last quote never closed",
        content(csv_text(JANUARY, COLUMNS[:1] + COLUMNS[2:] + ["carrier"]) + '77,1,1,,1,"AA\n'),
        REJECTED,
        'a quote (") is never closed',
    ),
    Defect(
        "last quote never closed, in a column that is left out",
        content(
            csv_text([r | {"note": ""} for r in JANUARY], [*COLUMNS, "note"]) + '77,AA,1,1,,1,"x\n78,AA,1,1,,1,x\n'
        ),
        REJECTED,
        'a quote (") is never closed',
    ),
    Defect("other delimiter", content(csv_text(JANUARY, delimiter=";")), REJECTED, "6 of 6 columns missing"),
    Defect("other encoding", content(csv_text(JANUARY).encode("latin-1")), REJECTED, "set data.csv.encoding"),
    Defect(
        "other encoding than said",
        nothing,
        REJECTED,
        "is not ascii; set data.csv.encoding",
        {"csv": {"encoding": "ascii"}},
    ),
    Defect("UTF-16 without saying so", content(csv_text(JANUARY).encode("utf-16")), REJECTED, "data.csv.encoding"),
    Defect(
        "unknown encoding",
        nothing,
        INPUT,
        "unknown encoding 'utf8x'; did you mean 'utf8'?",
        {"csv": {"encoding": "utf8x"}},
    ),
    Defect("delimiter that is no ASCII", nothing, INPUT, "data.csv.delimiter is '§'", {"csv": {"delimiter": "§"}}),
    Defect("delimiter that is the quote", nothing, INPUT, "they must differ", {"csv": {"delimiter": '"'}}),
    Defect(
        "column without a name",
        content(csv_text(JANUARY, ["", *COLUMNS]), "rows.csv"),
        REJECTED,
        "column 1 has no name",
        {"source": "rows.csv"},
        schema="",
    ),
    # Configuration against the data
    Defect(
        "unknown split column",
        nothing,
        INPUT,
        "data.split: column 'carier' is neither in the schema nor in the files; did you mean 'carrier'?",
        {"split": {"by": "hash", "key": ["carier"]}},
    ),
    Defect("unknown key column", nothing, INPUT, "data.key: column 'ids' is neither", {"key": ["ids"]}),
    Defect("unknown label", nothing, INPUT, "did you mean 'late'?", task={"label": "latte"}),
    Defect(
        "label outside the schema",
        nothing,
        INPUT,
        "in the files but not in the schema",
        schema=SCHEMA.replace('feature { name: "late" type: INT }', ""),
    ),
    Defect("unknown placeholder", nothing, INPUT, "did you mean {YYYY}?", {"source": "flights-{YYY}-{MM}.csv"}),
    Defect("window without spans", nothing, INPUT, "tells no span", {"source": "*.csv", "window": "last 2 months"}),
    Defect("broken schema", nothing, INPUT, "schema: 1:", schema="feature { nam: 'x' }"),
    Defect("struct in the schema", nothing, INPUT, "has type STRUCT", schema='feature { name: "x" type: STRUCT }'),
    # Rows
    Defect(
        "one row", content(csv_text(JANUARY[:1]), "rows.csv"), REJECTED, "is empty: all 1 rows", {"source": "rows.csv"}
    ),
    Defect(
        "split date too late",
        nothing,
        REJECTED,
        "split 'eval' is empty",
        {"split": {**BY_TIME, "eval_from": "2014-01-01"}},
    ),
    Defect(
        "split date too early",
        nothing,
        REJECTED,
        "split 'train' is empty",
        {"split": {**BY_TIME, "eval_from": "2012-01-01"}},
    ),
    Defect(
        "time missing",
        rewrite(departs=None),
        REJECTED,
        "'departs' is missing in 40 of 40 rows",
        {"split": {**BY_TIME, "eval_from": "2013-02-10"}},
    ),
    Defect(
        "split by text that is no time",
        nothing,
        REJECTED,
        "'carrier' holds what is no time",
        {"split": {"by": "time", "column": "carrier", "eval_from": "2013-02-10"}},
    ),
    Defect(
        "unknown split value",
        nothing,
        REJECTED,
        "'carrier' has other values than AA, B6",
        {"split": {"by": "column", "column": "carrier", "train": ["AA"], "eval": ["B6"]}},
    ),
    Defect(
        "duplicate keys",
        rewrite(id=2007),
        REJECTED,
        "39 rows repeat the key of another, e.g. id=2007 (40 rows)",
        {"key": ["id"]},
    ),
    Defect(
        "label missing", rewrite_all(late=None), REJECTED, "task.label 'late' is missing in every row of split 'train'"
    ),
    Defect("one class", rewrite_all(late=1), REJECTED, "has one value in split 'train', 1"),
    Defect("three classes in a binary task", rewrite_all(late=lambda r: r["id"] % 3), REJECTED, "more than two values"),
    Defect(
        "constant target",
        constant_target,
        REJECTED,
        "has one value",
        task={"type": "regression", "label": "flat"},
        schema=SCHEMA + 'feature { name: "flat" type: FLOAT }',
        data={"source": "flat.csv"},
    ),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_ends_in_one_line(
    defect: Defect, flights: Source, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(flights.folder)
    flights.schema = defect.schema
    defect.make(flights)
    with pytest.raises(SystemExit) as caught:
        flights.run(defect.task, **({"source": "flights-{YYYY}-{MM}.csv"} | defect.data))
    errors = capsys.readouterr().err
    assert caught.value.code == defect.code, errors
    assert errors.count("\n") == 1
    assert defect.words in errors
    assert len(errors) < 800
    assert not flights.output.exists()
    assert list(flights.folder.rglob("*.partial")) == []


def test_a_rejected_run_leaves_the_earlier_result(flights: Source) -> None:
    flights.run()
    before = flights.all_rows()
    rewrite(seats="many")(flights)
    with pytest.raises(SystemExit):
        flights.run()
    assert flights.all_rows() == before


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read every file")
def test_no_permission(flights: Source) -> None:
    (flights.folder / NEXT_TO_LAST).chmod(0)
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = run_in_child(flights, "flights-{YYYY}-{MM}.csv", prefix=as_anybody)
    assert done.returncode == INPUT
    assert done.stderr.count("\n") == 1
    assert "permission denied" in done.stderr


def test_no_space(source: Source) -> None:
    # The limit on the size of a file stands in for a full disk: both are an OSError in the middle of writing.
    rows = [row | {"id": number, "carrier": f"carrier {number}"} for number, row in enumerate(JANUARY * 5000)]
    source.write_csv("rows.csv", rows)
    done = run_in_child(source, "rows.csv", prefix=["prlimit", "--fsize=100000"])
    assert done.returncode == UNAVAILABLE
    assert done.stderr.count("\n") == 1
    assert "free the resource" in done.stderr
    assert not source.output.exists()
    assert list(source.folder.rglob("*.partial")) == []


def test_many_distinct_categories_are_fine(source: Source) -> None:
    rows = [JANUARY[number % 40] | {"id": number, "carrier": f"carrier {number}"} for number in range(200_000)]
    source.write_csv("rows.csv", rows)
    assert sum(source.run(source=str(source.folder / "rows.csv"), key=["carrier"]).splits.values()) == len(rows)


def test_defects_of_structure_show_before_any_row_is_read(source: Source) -> None:
    # The first files are large, the last one is wrong.
    large = csv_text([row | {"id": number} for number, row in enumerate(JANUARY * 2000)])
    for month in range(1, 12):
        source.write(f"flights-2013-{month:02d}.csv", large)
    source.write_csv("flights-2013-12.csv", JANUARY, COLUMNS[:-1])
    with pytest.raises(SystemExit):
        source.run()
    assert not source.output.parent.exists()


def run_in_child(source: Source, name: str, prefix: list[str]) -> subprocess.CompletedProcess[str]:
    code = (
        "from tests.ingest_data.source import Source; from pathlib import Path\n"
        f"Source(Path({str(source.folder)!r})).run(source={str(source.folder / name)!r})"
    )
    return subprocess.run([*prefix, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
