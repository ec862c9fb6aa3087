"""Reading logs: ours, KServe's, and plain files. Needs: the environment in which TFDV runs."""

import base64
import csv
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InputError
from components.prediction_log.events import REQUEST, RESPONSE
from components.prediction_log.form import LogCounts, fit, form_of
from components.prediction_log.labels import read_labels
from components.prediction_log.reader import LogReader
from components.prediction_log.windows import parse_window, scheduled_window
from components.settings import CsvOptions, LogColumns, RequestLog
from tests.monitor_model.world import World, draw_rows

MARCH = parse_window("2025-03")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish()
    return made


def read(world: World, source: str = "", **log: Any) -> tuple[pa.Table, LogCounts]:
    """Reads March."""
    form = form_of(world.spec(1), ["visit"])
    reader = LogReader(RequestLog(source=source or world.log_uri, **log), form, MARCH)
    batches = [
        pa.RecordBatch.from_arrays([plain(column) for column in batch.columns], schema=form.schema)
        for batch in reader.batches()
    ]
    return pa.Table.from_batches(batches, form.schema), reader.counts


def plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


# ------------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2025", "2025-01-01T00", "2026-01-01T00"),
        ("2025-02", "2025-02-01T00", "2025-03-01T00"),
        ("2024-12", "2024-12-01T00", "2025-01-01T00"),
        ("2025-02-28", "2025-02-28T00", "2025-03-01T00"),
        ("2025-02-28T23", "2025-02-28T23", "2025-03-01T00"),
        ("2025-02..2025-03", "2025-02-01T00", "2025-04-01T00"),
        ("2025-02-03..2025-02-09", "2025-02-03T00", "2025-02-10T00"),
    ],
)
def test_a_window_holds_both_of_its_ends(text: str, start: str, end: str) -> None:
    window = parse_window(text)
    assert (f"{window.start:%Y-%m-%dT%H}", f"{window.end:%Y-%m-%dT%H}") == (start, end)
    assert window.name == text


@pytest.mark.parametrize(
    "text", ["", "march", "2025-13", "2025-3", "2025-02-30", "2025-03..2025-02", "../../etc", "9999"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="window"):
        parse_window(text)


@pytest.mark.parametrize(
    ("period", "name"),
    [("hour", "2025-03-03T06"), ("day", "2025-03-02"), ("week", "2025-02-24..2025-03-02"), ("month", "2025-02")],
)
def test_a_schedule_judges_the_last_whole_period_however_late_it_runs(period: Any, name: str) -> None:
    assert scheduled_window(datetime(2025, 3, 3, 7, 1, tzinfo=UTC), period).name == name
    assert scheduled_window(datetime(2025, 3, 3, 7, 59, 59, tzinfo=UTC), period).name == name


@given(st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)), st.sampled_from(["hour", "day", "week", "month"]))
def test_windows_of_schedules_leave_no_gap(at: datetime, period: Any) -> None:
    window = scheduled_window(at.replace(tzinfo=UTC), period)
    assert window.end <= at.replace(tzinfo=UTC)
    assert scheduled_window(window.end, period) == window
    assert scheduled_window(window.start, period).end == window.start
    assert scheduled_window(at.replace(tzinfo=UTC), period, delay=1) == scheduled_window(window.start, period)


# ---------------------------------------------------------------------------------------------------- our own log


def test_our_own_log_is_read_as_it_was_written(world: World) -> None:
    rows = draw_rows(1234, seed=2)
    world.serve(rows)
    table, counts = read(world)
    table = table.sort_by("request_time")
    assert table["visit"].to_pylist() == rows.visit.tolist()
    assert np.array_equal(table["price"].to_numpy(), rows.price)
    assert table["age"].null_count == int((rows.age < 0).sum())
    assert table["shop"].to_pylist() == rows.shop.tolist()
    assert set(table["model_version"].to_pylist()) == {world.version}
    assert (counts.rows, counts.duplicates, counts.outside, counts.unreadable) == (1234, 0, 0, [])


@pytest.mark.parametrize("place", ["gcs", "s3"])
def test_a_log_in_a_bucket_is_read_too(world: World, place: str, request: pytest.FixtureRequest) -> None:
    bucket = request.getfixturevalue(f"{place}_bucket")
    world.log_uri = f"{bucket}/requests"
    world.serve(draw_rows(700, seed=2))
    table, counts = read(world)
    assert table.num_rows == 700
    assert counts.unreadable == []
    found, _ = read(world, f"{bucket}/requests/*/*.parquet", format="table")
    assert sorted(found["visit"].to_pylist()) == sorted(table["visit"].to_pylist())
    with pytest.raises(InputError, match="does not exist"):
        read(world, f"{bucket}/nothing")


def test_damaged_copied_and_foreign_files_are_counted(world: World) -> None:
    world.serve(draw_rows(2000, seed=2))
    files = sorted((world.folder / "log").rglob("*.parquet"))
    shutil.copy(files[0], files[0].with_name("copy.parquet"))
    content = files[0].read_bytes()
    day = files[0].parent
    for name, damaged in {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello",
        "tail": content[40:],
    }.items():
        (day / f"{name}.parquet").write_bytes(damaged)
    (day / ".hidden.parquet.partial").write_bytes(b"x")
    (day / "readme.txt").write_text("not a log")
    table, counts = read(world)
    assert table.num_rows == counts.rows == 2000
    assert counts.duplicates == pq.read_metadata(files[0]).num_rows
    assert sorted(Path(uri).stem for uri in counts.unreadable) == ["cut", "empty", "tail", "text"]


def test_rows_of_other_times_are_left_out(world: World) -> None:
    world.serve(draw_rows(300, seed=2), datetime(2025, 2, 28, tzinfo=UTC), days=3, batch=1)
    table, counts = read(world)
    assert (table.num_rows, counts.outside) == (200, 100)


def test_files_without_some_columns_or_with_other_types_are_read(world: World) -> None:
    day = world.folder / "log" / "2025-03-05"
    day.mkdir(parents=True)
    time = pa.array([datetime(2025, 3, 5, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {
        "request_time": time,
        "request_id": pa.array(["a", "a", "a"]),
        "model_version": pa.array(["v1"] * 3),
        "price": pa.array(["1.5", "much", None]),
        "city": pa.array([b"Rome", b"\xff\xfe", b"Oslo"]),
        "probability": pa.array([0.1, 0.2, 0.3]),
        "surplus": pa.array([1, 2, 3]),
    }
    pq.write_table(pa.table(columns), day / "a.parquet")
    table, counts = read(world)
    # Without a place in the request these are not taken for copies.
    assert table["price"].to_pylist() == [1.5, None, None]
    assert table["city"].to_pylist() == ["Rome", None, "Oslo"]
    assert dict(counts.unfit) == {"price": 1, "city": 1}
    assert counts.unlogged == ["age", "shop"]
    assert counts.duplicates == 0


def test_personal_features_that_are_not_logged_are_named(world: World) -> None:
    world.serve(draw_rows(100, seed=2), redact=["shop"])
    _, counts = read(world)
    assert counts.unlogged == ["shop"]


def test_a_log_that_is_not_there_is_told(world: World) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(world)
    with pytest.raises(InputError, match=r"monitoring\.log\.source is empty"):
        LogReader(RequestLog(), form_of(world.spec(1), []), MARCH)


@given(
    st.lists(
        st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.booleans()),
        max_size=8,
    ),
    st.sampled_from([pa.string(), pa.int64(), pa.float32()]),
)
def test_any_values_fit_or_are_counted(values: list[Any], wanted: pa.DataType) -> None:
    for kind in {type(value) for value in values if value is not None}:
        chosen = [value if type(value) is kind else None for value in values]
        try:
            array = pa.array(chosen)
        except (pa.ArrowException, OverflowError):
            continue
        fitted, unfit = fit(array, wanted)
        assert fitted.type == wanted
        assert len(fitted) == len(values)
        missing = sum(value != value for value in chosen) if pa.types.is_floating(wanted) else 0  # NaN
        assert fitted.null_count == array.null_count + unfit + missing
        fitted.validate(full=True)


# ------------------------------------------------------------------------------------------------- KServe's logger


def bodies(version: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if version == 1:
        asked = {"instances": [{"price": 1.5, "city": "Rome", "visit": "a"}, {"price": 2, "age": 40, "city": "Oslo"}]}
        return asked, {"predictions": [{"probability": 0.25}, {"probability": 0.5}]}
    tensors = [
        {"name": "price", "shape": [2], "datatype": "FP32", "data": [1.5, 2]},
        {"name": "city", "shape": [2, 1], "datatype": "BYTES", "data": [["Rome"], ["Oslo"]]},
        {"name": "age", "shape": [2], "datatype": "INT64", "data": [None, 40]},
        {"name": "visit", "shape": [2], "datatype": "BYTES", "data": ["a", None]},
    ]
    outputs = [{"name": "probability", "shape": [2], "datatype": "FP32", "data": [0.25, 0.5]}]
    return {"inputs": tensors}, {"model_name": "shop", "model_version": "v7", "outputs": outputs}


def cloud_events(version: int, identity: str = "1", **more: Any) -> list[dict[str, Any]]:
    """As a sink of CloudEvents keeps them in structured JSON."""
    shared = {"specversion": "1.0", "id": identity, "source": "http://localhost:9081/", "inferenceservicename": "shop"}
    shared |= {"time": "2025-03-05T06:07:08.123456789Z", "datacontenttype": "application/json", "endpoint": "default"}
    asked, answered = bodies(version)
    return [
        {**shared, "type": REQUEST, "data": asked, **more},
        {**shared, "type": RESPONSE, "data": answered, **more},
    ]


def stored(version: int, identity: str = "1") -> list[dict[str, Any]]:
    """As KServe's logger marshals events for a bucket: Go's names, bodies in base64."""
    return [
        {
            "Url": {"Scheme": "s3", "Host": "bucket"},
            "ContentType": "application/json",
            "ReqType": kind,
            "Id": identity,
            "InferenceService": "shop",
            "Namespace": "ns",
            "Component": "predictor",
            "Endpoint": "",
            "Metadata": {},
            "Annotations": {"model-version": "v7"},
            "CertName": "",
            "TlsSkipVerify": False,
            "Bytes": base64.b64encode(json.dumps(body).encode()).decode(),
        }
        for kind, body in zip((REQUEST, RESPONSE), bodies(version), strict=True)
    ]


def check_pair(table: pa.Table) -> None:
    assert table["price"].to_pylist() == [1.5, 2.0]
    assert table["age"].to_pylist() == [None, 40]
    assert table["city"].to_pylist() == ["Rome", "Oslo"]
    assert table["visit"].to_pylist() == ["a", None]
    assert table["probability"].to_pylist() == [0.25, 0.5]
    assert table["request_row"].to_pylist() == [0, 1]


@pytest.mark.parametrize("version", [1, 2])
def test_cloud_events_in_lines_of_json(world: World, version: int) -> None:
    folder = world.folder / "events"
    folder.mkdir()
    request, response = cloud_events(version)
    # The answer may lie in an earlier file than the request.
    (folder / "1.jsonl").write_text(json.dumps(response) + "\n\n")
    (folder / "2.jsonl").write_text(json.dumps(request) + "\n" + json.dumps(request) + "\nnot json\n[1]\n{}\n")
    table, counts = read(world, str(folder / "*.jsonl"), format="kserve")
    check_pair(table)
    assert table["request_time"].to_pylist()[0] == datetime(2025, 3, 5, 6, 7, 8, 123456, UTC)
    assert table["model_version"].to_pylist() == [None if version == 1 else "v7"] * 2
    assert (counts.rows, counts.malformed, counts.unanswered) == (2, 3, 0)


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_the_logger_stores_in_a_bucket(
    world: World, version: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.folder / "events" / "ns" / "shop" / "predictor"
    folder.mkdir(parents=True)
    for event, what in zip(stored(version), ("request", "response"), strict=True):
        file = folder / f"1-{what}.{form}"
        if form == "json":
            file.write_text(json.dumps([event]))
        elif form == "csv":
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, [*event])
                writer.writeheader()
                writer.writerow(event | {"Annotations": json.dumps(event["Annotations"])})
        else:
            row = {"url": "s3://bucket", "bytes": base64.b64decode(event["Bytes"]), "req_type": event["ReqType"]}
            row |= {"id": event["Id"], "annotations": [("model-version", "v7")]}
            kinds = {"annotations": pa.map_(pa.string(), pa.string())}
            columns = {name: pa.array([value], kinds.get(name)) for name, value in row.items()}
            pq.write_table(pa.table(columns), file)
        # The stored form has no time: that of the file stands for it.
        stamp = datetime(2025, 3, 9, tzinfo=UTC).timestamp()
        os.utime(file, (stamp, stamp))
    table, counts = read(world, str(world.folder / "events" / "**"), format="kserve")
    check_pair(table)
    assert table["model_version"].to_pylist() == ["v7", "v7"]
    assert table["request_time"].to_pylist()[0] == datetime(2025, 3, 9, tzinfo=UTC)
    assert counts.malformed == 0


def test_odd_events_are_counted(world: World) -> None:
    folder = world.folder / "events"
    folder.mkdir()
    lines = [
        *cloud_events(1, "short", data={"instances": [{"price": 1}]})[:1],
        {**cloud_events(1, "short")[1]},
        *cloud_events(2, "again"),
        *cloud_events(2, "again"),
        cloud_events(1, "lonely")[0],
        *cloud_events(1, "b64", data={"instances": [{"b64": "aGVsbG8="}], "predictions": [0.5]}),
        *cloud_events(1, "shape", data={"inputs": 3, "outputs": None}),
        {"id": 7, "type": REQUEST, "data": {}},
        {"id": "\ud800", "type": REQUEST, "data": "\ud800"},
    ]
    (folder / "1.json").write_text("\n".join(json.dumps(line) for line in lines))
    (folder / "2.json").write_bytes(b"\xff\xfe\x00")
    table, counts = read(world, str(folder / "*.json"), format="kserve")
    assert table["request_id"].to_pylist() == ["again", "again"]
    assert (counts.rows, counts.duplicates, counts.unanswered) == (2, 1, 1)
    assert counts.malformed == 5
    assert [Path(uri).name for uri in counts.unreadable] == ["2.json"]


# ------------------------------------------------------------------------------------------------------ plain files


def test_plain_files_with_names_of_their_own(world: World) -> None:
    (world.folder / "predictions").mkdir()
    (world.folder / "predictions" / "2025-03.csv").write_text(
        "when,score,cost,city,visit,age\n"
        "2025-03-05 06:07:08,0.25,1.5,Rome,a,\n"
        "1741154828,0.5,much,Oslo,b,40.0\n"
        ",0.5,2,Oslo,c,41\n"
        "2025-04-01,0.5,2,Oslo,d,42\n"
    )
    columns = LogColumns(request_time="when", prediction="score", features={"price": "cost"})
    source = str(world.folder / "predictions" / "{YYYY}-{MM}.csv")
    table, counts = read(world, source, format="table", columns=columns)
    assert table["visit"].to_pylist() == ["a", "b"]
    assert table["price"].to_pylist() == [1.5, None]
    assert table["age"].to_pylist() == [None, 40]
    assert table["probability"].to_pylist() == [0.25, 0.5]
    assert table["request_time"].to_pylist()[1] == datetime(2025, 3, 5, 6, 7, 8, tzinfo=UTC)
    assert (counts.outside, counts.without_time, dict(counts.unfit)) == (1, 1, {"price": 1})
    with pytest.raises(InputError, match="is a folder; add a pattern"):
        read(world, str(world.folder / "predictions"), format="table")


def test_plain_parquet_with_ids_drops_copies(world: World) -> None:
    times = pa.array([datetime(2025, 3, 5, tzinfo=UTC)] * 3, pa.timestamp("ms", "UTC"))
    table = pa.table(
        {"request_time": times, "request_id": ["a", "b", "a"], "price": [1.0, 2.0, 1.0], "probability": [0.5] * 3}
    )
    pq.write_table(table, world.folder / "p-2025-03.parquet")
    source = str(world.folder / "p-{YYYY}-{MM}.parquet")
    found, counts = read(world, source, format="table")
    assert found["request_id"].to_pylist() == ["a", "b"]
    assert counts.duplicates == 1
    assert counts.unlogged == ["age", "city", "shop"]


# ----------------------------------------------------------------------------------------------------------- labels


def test_labels_are_found_by_key_and_the_last_one_counts(world: World, tmp_path: Path) -> None:
    (tmp_path / "l-2025-03.csv").write_text("visit,bought\na,1\nb,0\na,0\n,1\nc,\n")
    (tmp_path / "l-2025-04.csv").write_text("visit,bought\nd,1\n")
    (tmp_path / "l-2025-05.csv").write_bytes(b"\xff\xfe\x00broken")
    source = str(tmp_path / "l-{YYYY}-{MM}.csv")
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b", "c", "d", None])], ["visit"])
    labels = read_labels(source, MARCH, 0, ["visit"], "bought", CsvOptions())
    assert labels.find(batch, ["visit"]).to_pylist() == ["0", "0", None, None, None]
    assert labels.counts.contradictory == 1
    later = read_labels(source, MARCH, 2, ["visit"], "bought", CsvOptions())
    assert later.find(batch, ["visit"]).to_pylist() == ["0", "0", None, "1", None]
    early = read_labels(source, parse_window("2025-02"), 0, ["visit"], "bought", CsvOptions())
    assert early.counts.absent_spans == ["2025-02"]
    assert early.find(batch, ["visit"]).to_pylist() == [None] * 5
    with pytest.raises(InputError, match="has no column 'id'"):
        read_labels(source, MARCH, 0, ["id"], "bought", CsvOptions())


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_keys_are_alike_whatever_their_type(tmp_path: Path, kind: pa.DataType) -> None:
    keys = pa.array([1, 22, 333]).cast(pa.string() if not pa.types.is_integer(kind) else kind)
    keys = keys.dictionary_encode() if pa.types.is_dictionary(kind) else keys
    pq.write_table(pa.table({"a": keys, "b": ["x", "y", "z"], "bought": [True, False, True]}), tmp_path / "l.parquet")
    labels = read_labels(str(tmp_path / "l.parquet"), MARCH, 0, ["a", "b"], "bought", CsvOptions())
    batch = pa.RecordBatch.from_arrays([pa.array(["1", "22", "1"]), pa.array(["x", "y", "y"])], ["a", "b"])
    assert labels.find(batch, ["a", "b"]).to_pylist() == ["true", "false", None]
