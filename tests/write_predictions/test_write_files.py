"""Predictions in files: formats, spans, partitions, what surrounds them.

Needs: the venv twin of the tensorflow image.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataRejectedError, InputError
from components.settings import Batch, BatchOutput
from components.write_predictions.files import json_lines, write_files
from components.write_predictions.folders import FolderTarget
from tests.write_predictions.made import rows_of, settings, write_dataset, written

ADDED = ["decision", "request_time", "model_name", "model_version"]


def read(folder: Path) -> pa.Table:
    return pa.dataset.dataset(folder, partitioning="hive").to_table()


def test_a_span_is_written_with_what_was_predicted(tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "in", {"2013-12": 50})
    result = written(tmp_path / "in", settings(tmp_path / "out"))
    assert result.verdict == "pass"
    assert result.reason == "50 rows predicted, 0 rejected"
    assert result.uri == str(tmp_path / "out" / "shop" / "span=2013-12")
    table = pq.ParquetFile(Path(result.uri) / "part-00000.parquet").read()
    assert table.column_names == [*rows.column_names, *ADDED]
    assert table.select(rows.column_names).equals(rows)
    assert table["decision"].to_pylist() == [p >= 0.5 for p in rows["probability"].to_pylist()]
    assert set(table["model_version"].to_pylist()) == {"v0007-aaaaaaaa"}
    record = FolderTarget(str(tmp_path / "out"), "shop", BatchOutput()).record("2013-12")
    assert record
    assert (record.rows, record.rejected, record.files) == (50, 0, ["part-00000.parquet"])
    assert sum(record.distribution.counts) == 50


def test_rows_go_to_the_span_they_came_from(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"2013-10": 10, "2013-11": 7, "2013-12": 30}, rejected=(0, 9, 10, 46), parts=3)
    result = written(tmp_path / "in", settings(tmp_path / "out", max_rejected=0.5))
    assert result.uri == str(tmp_path / "out" / "shop")
    table = read(tmp_path / "out" / "shop")
    found = {span: [] for span in ("2013-10", "2013-11", "2013-12")}  # type: ignore[var-annotated]
    for span, name in zip(table["span"].to_pylist(), table["id"].to_pylist(), strict=True):
        found[span].append(int(name.rpartition("-")[2]))
    assert found == {
        "2013-10": list(range(1, 9)),
        "2013-11": list(range(11, 17)),
        "2013-12": list(range(17, 46)),
    }
    target = FolderTarget(str(tmp_path / "out"), "shop", BatchOutput())
    assert [target.record(span).rejected for span in found] == [2, 1, 1]  # type: ignore[union-attr]


def test_a_rerun_overwrites_its_own_span_and_nothing_else(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", {"2013-10": 10, "2013-11": 10})
    written(tmp_path / "a", settings(tmp_path / "out"))
    untouched = tmp_path / "out" / "shop" / "span=2013-10" / "part-00000.parquet"
    before = untouched.stat().st_mtime_ns, untouched.stat().st_ino
    write_dataset(tmp_path / "b", {"2013-11": 3}, seed=1)
    written(tmp_path / "b", settings(tmp_path / "out"))
    table = read(tmp_path / "out" / "shop")
    assert table["span"].to_pylist().count("2013-11") == 3
    assert (untouched.stat().st_mtime_ns, untouched.stat().st_ino) == before
    assert not list((tmp_path / "out" / "shop").glob(".*.partial"))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_each_format_holds_the_same(tmp_path: Path, kind: str, form: str) -> None:
    rows = write_dataset(tmp_path / "in", {"7": 20}, kind=kind)
    result = written(tmp_path / "in", settings(tmp_path / "out", output={"format": form}), kind)
    file = Path(result.uri) / f"part-00000.{form}"
    if form == "csv":
        found = pa.csv.read_csv(file).to_pylist()
    elif form == "jsonl":
        found = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        found = pq.ParquetFile(file).read().to_pylist()
    assert [row["id"] for row in found] == rows["id"].to_pylist()
    name = {"binary": "probability", "multiclass": "class", "regression": "value"}[kind]
    assert [row[name] for row in found] == pytest.approx(rows[name].to_pylist()) if kind != "multiclass" else True
    assert ("decision" in found[0]) == (kind == "binary")
    if kind == "multiclass":
        shares = found[3]["probabilities"]
        assert (json.loads(shares) if form == "csv" else shares) == pytest.approx(rows["probabilities"][3].as_py())


def test_texts_may_be_compressed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 20})
    output = {"format": "jsonl", "compression": "gzip"}
    result = written(tmp_path / "in", settings(tmp_path / "out", output=output))
    assert len(gzip.decompress((Path(result.uri) / "part-00000.jsonl.gz").read_bytes()).splitlines()) == 20


def test_files_are_divided_by_a_column_and_by_rows(tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "in", {"7": 50})
    output = {"partition_by": "city", "file_rows": 4}
    result = written(tmp_path / "in", settings(tmp_path / "out", output=output))
    files = sorted(str(p.relative_to(result.uri)) for p in Path(result.uri).rglob("*.parquet"))
    assert files[:3] == [f"city=../part-0000{number}.parquet" for number in range(3)]
    assert {name.partition("/")[0] for name in files} == {
        "city=..", "city=Paris", "city=__HIVE_DEFAULT_PARTITION__", "city=a%2Fb%3Dc", "city=q%22uote",
    }  # fmt: skip
    assert len(files) == 15
    found = read(Path(result.uri))
    assert sorted(zip(*(found[n].to_pylist() for n in ("id", "city")), strict=True)) == sorted(
        zip(*(rows[n].to_pylist() for n in ("id", "city")), strict=True)
    )


def test_decisions_may_have_words_and_another_threshold(tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "in", {"7": 20})
    result = written(tmp_path / "in", settings(tmp_path / "out", threshold=0.9, labels=["on_time", "late"]))
    table = pq.ParquetFile(Path(result.uri) / "part-00000.parquet").read()
    wanted = ["late" if p >= 0.9 else "on_time" for p in rows["probability"].to_pylist()]
    assert table["decision"].to_pylist() == wanted


def test_the_top_rows_have_reasons(tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "in", {"6": 20, "7": 21}, top=5, parts=3)
    result = written(tmp_path / "in", settings(tmp_path / "out", reasons=1))
    table = read(Path(result.uri))
    highest = sorted(rows["probability"].to_pylist())[-5:]
    explained = [p for p, r in zip(table["probability"].to_pylist(), table["reasons"].to_pylist(), strict=True) if r]
    assert sorted(explained) == highest
    assert "amount = 1" in (tmp_path / "in.html").read_text()


def test_too_many_rejected_rows_write_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", {"7": 100})
    kept = written(tmp_path / "a", settings(tmp_path / "out")).uri
    write_dataset(tmp_path / "b", {"7": 100}, rejected=(1, 3, 4))
    result = written(tmp_path / "b", settings(tmp_path / "out"))
    assert (result.verdict, result.uri) == ("fail", "")
    assert result.reason == (
        "3 of 100 rows rejected (3.00%, allowed: 1.00%), mostly (2) because amount is infinite; fix the source, or "
        "raise batch.max_rejected; nothing was written"
    )
    assert pq.ParquetFile(Path(kept) / "part-00000.parquet").metadata.num_rows == 100
    page = (tmp_path / "b.html").read_text()
    assert "amount cannot be float</td>" in page
    assert "Nothing was written" in page


def test_all_rows_rejected_write_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 3}, rejected=(0, 1, 2))
    result = written(tmp_path / "in", settings(tmp_path / "out", max_rejected=1.0))
    assert result.verdict == "fail"
    assert not (tmp_path / "out").exists()


def test_the_span_before_is_compared(tmp_path: Path) -> None:
    for number, span in enumerate(("9", "10", "11")):
        table = rows_of("binary", 200, number)
        if span == "11":
            half = pa.array([p / 2 for p in table["probability"].to_pylist()], pa.float32())
            table = table.set_column(table.column_names.index("probability"), "probability", half)
        write_dataset(tmp_path / span, {span: 200}, table=table)
        result = written(tmp_path / span, settings(tmp_path / "out", max_shift=0.3))
        if span == "10":
            assert result.verdict == "pass"
            assert result.reason.endswith(" from 9")
            assert result.figures["shift"] < 0.2
    assert result.verdict == "fail"
    assert "from those of 10 (allowed: 0.3" in result.reason
    assert not (tmp_path / "out" / "shop" / "span=11").exists()


def test_one_row_and_a_source_without_spans(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"": 1})
    result = written(tmp_path / "in", settings(tmp_path / "out"))
    assert result.uri.endswith("/span=all")
    assert result.figures["rows"] == 1


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 0})
    with pytest.raises(DataRejectedError, match="there are no rows to write"):
        written(tmp_path / "in", settings(tmp_path / "out"))


@pytest.mark.parametrize("name", ["decision", "request_time", "model_version", "span"])
def test_a_raw_column_must_not_have_the_name_of_one_that_is_added(tmp_path: Path, name: str) -> None:
    table = rows_of("binary", 5).append_column(name, pa.array([1] * 5))
    write_dataset(tmp_path / "in", {"7": 5}, table=table)
    with pytest.raises(InputError, match=f"column '{name}' of the rows has the name of one that is written"):
        written(tmp_path / "in", settings(tmp_path / "out"))


def test_a_column_that_divides_must_be_there_and_have_few_values(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 50})
    with pytest.raises(InputError, match="'town' is no column of the predictions"):
        written(tmp_path / "in", settings(tmp_path / "out", output={"partition_by": "town"}))
    with pytest.raises(DataRejectedError, match=r"'id' has more than 20 values \(batch.output.max_partitions\)"):
        written(tmp_path / "in", settings(tmp_path / "out", output={"partition_by": "id", "max_partitions": 20}))
    assert not list((tmp_path / "out" / "shop").glob("[!.]*"))


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path / "in", {"7": 5})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/shop.*; check the path"):
        written(tmp_path / "in", settings(tmp_path / "file"))
    with pytest.raises(InputError, match="proc/nowhere"):
        written(tmp_path / "in", settings("/proc/nowhere"))


WRITER = """
import sys
from pathlib import Path
from tests.write_predictions.made import settings, written
while True:
    written(Path(sys.argv[1]), settings(sys.argv[2]))
    print("written", flush=True)
"""


def test_a_killed_run_leaves_the_span_whole(tmp_path: Path) -> None:
    rows = {seed: write_dataset(tmp_path / f"in{seed}", {"7": 20_000}, seed=seed) for seed in (1, 2)}
    written(tmp_path / "in1", settings(tmp_path / "out"))
    span = tmp_path / "out" / "shop" / "span=7"
    for attempt in range(8):
        source = tmp_path / f"in{1 + attempt % 2}"
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, source, tmp_path / "out"], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout
        if attempt % 2:
            process.stdout.readline()  # one is whole, the next is under way
        time.sleep(0.02 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ids = pq.ParquetFile(span / "part-00000.parquet").read(["id"])["id"].to_pylist()
        assert ids in [table["id"].to_pylist() for table in rows.values()]
        assert json.loads((span / "_record.json").read_text())["rows"] == 20_000
    written(tmp_path / "in1", settings(tmp_path / "out"))
    assert not list((tmp_path / "out" / "shop").glob(".*.partial")), "what killed runs left is removed"


def test_concurrent_runs_on_one_span_leave_one_of_them(tmp_path: Path) -> None:
    rows = [write_dataset(tmp_path / f"in{seed}", {"7": 3_000}, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: written(tmp_path / f"in{seed}", settings(tmp_path / "out")), range(4)))
    found = read(tmp_path / "out" / "shop")["id"].to_pylist()
    assert found in [table["id"].to_pylist() for table in rows]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                't"ext\\': st.none() | st.text(),
                "number": st.none() | st.floats(width=32),
                "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
                "many": st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=3),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_json_lines_are_json(rows: list[dict[str, object]]) -> None:
    schema = pa.schema(
        {'t"ext\\': pa.string(), "number": pa.float32(), "whole": pa.int64(), "many": pa.list_(pa.float32())}
    )
    try:
        table = pa.Table.from_pylist(rows, schema)
    except UnicodeEncodeError:  # surrogates, which no Arrow string holds
        return
    found = [json.loads(line) for line in json_lines(table).decode().split("\n")[:-1]]
    for row, read_back in zip(table.to_pylist(), found, strict=True):
        number = row["number"]
        row["number"] = number if number is not None and abs(number) < float("inf") else None
        # The shortest text of a float32 is that of another float64.
        as_float = read_back["number"]
        read_back["number"] = None if as_float is None else float(np.float32(as_float))
        assert read_back == row


def test_an_empty_span_still_tells_its_columns(tmp_path: Path) -> None:
    schema = rows_of("binary", 1).schema
    assert write_files(tmp_path, [], schema, BatchOutput()) == ["part-00000.parquet"]
    assert pq.read_schema(tmp_path / "part-00000.parquet").names == schema.names


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"output": {"target": "postgresql://me:secret@db/x"}}, "target holds a password"),
        ({"output": {"target": "mysql://db/x"}}, "target is 'mysql://…'; use a local path"),
        ({"output": {"target": "sqlite:///x.db", "partition_by": "a"}}, "a table has no partitions"),
        ({"output": {"table": "scores"}}, "table is for a database"),
        ({"output": {"format": "csv", "compression": "snappy"}}, "snappy is for parquet"),
        ({"labels": ["a", "a"]}, "name the negative and the positive one"),
    ],
)
def test_contradictions_in_the_settings(given_: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Batch.model_validate(given_)
