import gzip
import hashlib
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import MANIFEST, read_manifest
from tests.ingest_data.source import COLUMNS, ROWS_A_MONTH, Source, arrow_table, csv_text, months

ROOT = Path(__file__).parents[2]
ALL_ROWS = [row for rows in months().values() for row in rows]


def expected_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def seconds(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())

    return [row | {"departs": seconds(row["departs"])} for row in rows]


def part_bytes(source: Source) -> dict[str, bytes]:
    return {split: (source.output / split / "part-00000.parquet").read_bytes() for split in ("train", "eval")}


def test_every_row_arrives_once_with_the_types_of_the_schema(flights: Source) -> None:
    manifest = flights.ingest()
    assert flights.all_rows() == expected_rows(ALL_ROWS)
    for split in ("train", "eval"):
        table = flights.split(split)
        assert table.column_names == COLUMNS
        types = [pa.int64(), pa.string(), pa.float32(), pa.int64(), pa.int64(), pa.int64()]
        assert table.schema.types == types
        assert manifest.splits[split] == table.num_rows > 0
    assert read_manifest(flights.output) == manifest


def test_the_manifest_records_what_was_read(flights: Source) -> None:
    manifest = flights.ingest(window="2013-02..2013-03")
    assert manifest.spans == ["2013-02", "2013-03"]
    for file in manifest.files:
        content = Path(file.uri).read_bytes()
        assert (file.rows, file.bytes) == (ROWS_A_MONTH, len(content))
        assert file.digest == hashlib.sha256(content).hexdigest()


def test_the_digest_follows_content_options_and_schema_but_not_places(flights: Source, tmp_path: Path) -> None:
    first = flights.ingest().digest
    assert flights.ingest().digest == first
    elsewhere = Source(tmp_path / "elsewhere")
    for span, rows in months().items():
        elsewhere.write_csv(f"flights-{span}.csv", rows)
    assert elsewhere.ingest().digest == first
    salted = flights.ingest(split={"by": "hash", "key": ["id"], "salt": "x"}).digest
    flights.schema += 'feature { name: "other" type: INT }'
    flights.schema = flights.schema.replace('feature { name: "other" type: INT }', "# a comment")
    assert flights.ingest().digest == first
    flights.schema = flights.schema.replace('"seats" type: INT', '"seats" type: FLOAT')
    other_schema = flights.ingest().digest
    flights.write("flights-2013-01.csv", (flights.folder / "flights-2013-01.csv").read_text().replace("AA", "AB"))
    assert len({first, salted, other_schema, flights.ingest().digest}) == 4


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("semicolons.csv", csv_text(ALL_ROWS, delimiter=";"), {"csv": {"delimiter": ";"}}),
        ("tabs.tsv", csv_text(ALL_ROWS, delimiter="\t"), {"csv": {"delimiter": "\t"}}),
        ("single-quotes.csv", csv_text(ALL_ROWS, quotechar="'"), {"csv": {"quote": "'"}}),
        ("all-quoted.csv", csv_text(ALL_ROWS, quoting=1), {}),
        ("crlf.csv", csv_text(ALL_ROWS).replace("\n", "\r\n"), {}),
        ("bom.csv", csv_text(ALL_ROWS).encode("utf-8-sig"), {}),
        ("latin.csv", csv_text(ALL_ROWS).encode("latin-1"), {"csv": {"encoding": "latin-1"}}),
        ("utf16.csv", csv_text(ALL_ROWS).encode("utf-16"), {"csv": {"encoding": "utf-16"}}),
        ("packed.csv.gz", gzip.compress(csv_text(ALL_ROWS).encode()), {}),
        ("two-members.csv.gz", gzip.compress(csv_text(ALL_ROWS[:9]).encode()) + gzip.compress(
            csv_text(ALL_ROWS[9:]).partition("\n")[2].encode()), {}),
        ("packed.csv.zst", pa.compress(csv_text(ALL_ROWS).encode(), "zstd", asbytes=True), {}),
        ("no-suffix", csv_text(ALL_ROWS), {"format": "csv"}),
        ("reordered.csv", csv_text(ALL_ROWS, COLUMNS[::-1]), {}),
        ("extra.csv", csv_text([row | {"note": "x"} for row in ALL_ROWS], ["note", *COLUMNS]), {}),
        ("floats.csv", csv_text([r | {"seats": r["seats"] and f"{r['seats']}.0"} for r in ALL_ROWS]), {}),
        ("late-floats.csv", csv_text(
            [r | {"seats": r["seats"] and f"{r['seats']}.0"} if i > 60 else r for i, r in enumerate(ALL_ROWS)]), {}),
        ("zones.csv", csv_text([r | {"departs": f"{r['departs'].replace(' ', 'T')}Z"} for r in ALL_ROWS]), {}),
        ("truth.csv", csv_text([r | {"late": ["False", "true"][r["late"]]} for r in ALL_ROWS]), {}),
        ("nulls.csv", csv_text([r | {"seats": r["seats"] or "-"} for r in ALL_ROWS]), {"csv": {"null_values": ["-"]}}),
        ("blank-lines.csv", csv_text(ALL_ROWS).replace("\n", "\n\n"), {}),
    ],
)  # fmt: skip
def test_one_table_in_many_forms(source: Source, name: str, content: str | bytes, options: dict[str, Any]) -> None:
    path = source.write(name, content)
    source.ingest(source=str(path), **options)
    assert source.all_rows() == expected_rows(ALL_ROWS)


TEXT_TIMES = arrow_table(ALL_ROWS, {})
STAMPS = TEXT_TIMES.column("departs").cast(pa.timestamp("s"))


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"departs": STAMPS},
        {"departs": STAMPS.cast(pa.timestamp("ns")).cast(pa.timestamp("ns", "UTC"))},
        {"departs": STAMPS.cast(pa.int64())},
        {"carrier": TEXT_TIMES.column("carrier").dictionary_encode()},
        {"carrier": TEXT_TIMES.column("carrier").cast(pa.large_string())},
        {"carrier": TEXT_TIMES.column("carrier").cast(pa.binary())},
        {"seats": TEXT_TIMES.column("seats").cast(pa.int16())},
        {"seats": TEXT_TIMES.column("seats").cast(pa.float64())},
        {"seats": pa.array([float("nan") if row["seats"] is None else row["seats"] for row in ALL_ROWS], pa.float64())},
        {"seats": TEXT_TIMES.column("seats").cast(pa.uint64())},
        {"distance": TEXT_TIMES.column("distance").cast(pa.decimal128(10, 2))},
        {"late": TEXT_TIMES.column("late").cast(pa.bool_())},
        {"late": TEXT_TIMES.column("late").cast(pa.decimal128(20, 0))},
    ],
    ids=lambda columns: ", ".join(f"{name} as {array.type}" for name, array in columns.items()) or "as it is",
)
def test_parquet_types_become_those_of_the_schema(source: Source, columns: dict[str, pa.Array]) -> None:
    table = TEXT_TIMES
    for name, array in columns.items():
        table = table.set_column(table.column_names.index(name), name, array)
    pq.write_table(table, source.folder / "rows.parquet")
    source.ingest(source=str(source.folder / "rows.parquet"))
    assert source.all_rows() == expected_rows(ALL_ROWS)


def test_dates_and_early_times(source: Source) -> None:
    texts = ("1969-12-31 23:59:59.5", "1900-01-01", "2013-07-01T02:00:00+02:00", "")
    rows = [row | {"departs": text} for row, text in zip(ALL_ROWS[:4], texts, strict=True)]
    path = source.write_csv("rows.csv", rows + ALL_ROWS[40:])
    source.ingest(source=str(path))
    assert [row["departs"] for row in source.all_rows()[:4]] == [-1, -2208988800, 1372636800, None]


def test_csv_and_parquet_in_any_layout_give_the_same_bytes(flights: Source, tmp_path: Path) -> None:
    flights.ingest()
    expected = part_bytes(flights)
    once = Source(tmp_path / "once")
    once.folder.mkdir()
    pq.write_table(TEXT_TIMES, once.folder / "rows.parquet", row_group_size=7)
    once.ingest(source=str(once.folder / "rows.parquet"))
    assert part_bytes(once) == expected


def test_without_a_schema_types_come_from_the_first_file(flights: Source) -> None:
    flights.schema = ""
    flights.ingest()
    assert flights.all_rows() == expected_rows(ALL_ROWS)
    assert flights.split("train").schema.types == [
        pa.int64(), pa.string(), pa.float32(), pa.int64(), pa.int64(), pa.int64()
    ]  # fmt: skip


def test_a_key_outside_the_schema_is_kept_and_a_split_column_is_not(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"row": f"r{row['id']}", "use": "train" if row["id"] % 4 else "eval", "x": 1} for row in ALL_ROWS]
    path = source.write_csv("rows.csv", rows, [*COLUMNS, "row", "use", "x"])
    source.ingest(source=str(path), key=["row"], split={"by": "column", "column": "use"})
    assert source.split("train").column_names == [*COLUMNS, "row"]
    assert source.split("eval").num_rows == sum(row["id"] % 4 == 0 for row in rows)
    assert "left out: use, x" in capsys.readouterr().out


def test_an_empty_file_beside_others_of_its_span_is_fine(source: Source) -> None:
    source.write_csv("part-0.csv", [])
    source.write_csv("part-1.csv", ALL_ROWS)
    assert source.ingest(source=str(source.folder / "part-*.csv")).files[0].rows == 0
    assert source.all_rows() == expected_rows(ALL_ROWS)


def test_long_values_and_quoted_newlines_survive(source: Source) -> None:
    rows = [row | {"carrier": "x" * 1_000_000 if row["id"] % 9 == 0 else 'two\nlines, "quoted"\n'} for row in ALL_ROWS]
    source.ingest(source=str(source.write_csv("rows.csv", rows)))
    assert source.all_rows() == expected_rows(rows)


def test_what_is_missing_infinite_or_not_a_number(source: Source) -> None:
    rows = [
        row | {"distance": value} for row, value in zip(ALL_ROWS, ["inf", "-inf", "NaN", "NA", ""] * 24, strict=True)
    ]
    source.ingest(source=str(source.write_csv("rows.csv", rows)))
    assert [row["distance"] for row in source.all_rows()[:5]] == [float("inf"), float("-inf"), None, None, None]


def test_a_label_leak_is_a_warning(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"id": i, "late": i % 3 % 2, "copy": i % 3 % 2, "delay": (i % 3 % 2) * 100 + i % 50, "hour": i % 25}
            for i, row in enumerate(ALL_ROWS * 10)]  # fmt: skip
    source.schema = source.schema + "".join(f'feature {{ name: "{c}" type: INT }}' for c in ("copy", "delay", "hour"))
    source.ingest(source=str(source.write_csv("rows.csv", rows, [*COLUMNS, "copy", "delay", "hour"])), key=["id"])
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert [line.split("'")[1] for line in warnings] == ["copy", "delay"]


def test_a_second_run_replaces_the_first(flights: Source) -> None:
    flights.ingest(window="2013-01")
    (flights.output / "stray").write_text("x")
    flights.ingest()
    assert sorted(path.name for path in flights.output.iterdir()) == ["eval", MANIFEST, "train"]


def test_killed_half_way_and_run_again(source: Source) -> None:
    rows = [row | {"id": i} for i, row in enumerate(ALL_ROWS * 3000)]
    path = source.write_csv("rows.csv", rows)
    code = (
        "from tests.ingest_data.source import Source; from pathlib import Path\n"
        f"Source(Path({str(source.folder)!r})).ingest(source={str(path)!r})"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    partial = source.output.with_name(".examples.partial")
    deadline = time.monotonic() + 60
    while not list(partial.glob("train/*.parquet")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert partial.is_dir()
    assert not source.output.exists()
    manifest = source.ingest(source=str(path))
    interrupted = part_bytes(source)
    assert source.ingest(source=str(path)) == manifest
    assert part_bytes(source) == interrupted
    assert [path.name for path in source.output.parent.iterdir()] == ["examples"]


def test_memory_does_not_grow_with_the_number_of_files(source: Source) -> None:
    rows = [row | {"id": i, "carrier": f"carrier {i}"} for i, row in enumerate(ALL_ROWS * 400)]
    table = arrow_table(rows, {})
    for number in range(24):
        pq.write_table(table, source.folder / f"flights-20{number:02d}-01.parquet")
    few, many = (_peak(source, f"flights-20{pattern}-01.parquet") for pattern in ("0[01]", "??"))
    content = table.nbytes
    assert many - few < 4 * content, f"{few=:,} {many=:,} {content=:,}"


def _peak(source: Source, pattern: str) -> int:
    """Measures the peak resident set of ingesting in a process of its own, in bytes."""
    code = (
        "from tests.ingest_data.source import Source; from pathlib import Path; import resource\n"
        f"source = Source(Path({str(source.folder)!r}))\n"
        f"source.ingest(source={str(source.folder / pattern)!r}, split={{'by': 'hash', 'key': ['carrier']}})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
