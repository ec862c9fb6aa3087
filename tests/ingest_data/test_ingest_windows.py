"""Window features on the way into a dataset. Needs: the venv twin of the base image; Java 17 for the topic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import split_files
from components.errors import DataRejectedError, InputError
from components.ingest_data.ingestion import ingest
from components.settings import Data, Task, WindowFeatures
from pipelines.kafka_broker import Broker
from tests import kafka, kafka_broker
from tests.ingest_data.source import COLUMNS, SCHEMA, Source, months

Row = dict[str, Any]

WINDOWS: Row = {
    "time": "departs",
    "key": ["carrier"],
    "features": [
        {"name": "flights_2d", "of": "count", "window": "2 days"},
        {"name": "miles_5w", "of": "sum", "column": "distance", "window": "5 weeks"},
        {"name": "seats_2d", "of": "mean", "column": "seats", "window": "2 days"},
        {"name": "since", "of": "time_since_last", "window": "1 week"},
    ],
}
DESCRIBED = """
feature { name: "flights_2d" type: INT }
feature { name: "miles_5w" type: FLOAT }
feature { name: "seats_2d" type: FLOAT }
feature { name: "since" type: FLOAT }
"""
NAMES = ["flights_2d", "miles_5w", "seats_2d", "since"]


@pytest.fixture(params=["with a schema", "without"])
def windowed(flights: Source, request: pytest.FixtureRequest) -> Source:
    flights.schema = SCHEMA + DESCRIBED if request.param == "with a schema" else ""
    return flights


def features(rows: list[Row]) -> dict[int, list[Any]]:
    return {row["id"]: [row[name] for name in NAMES] for row in rows}


def test_they_are_columns_behind_the_others_in_every_split(windowed: Source) -> None:
    windowed.ingest(windows=WINDOWS)
    for split in ("train", "eval"):
        table = windowed.split(split)
        assert table.column_names == [*COLUMNS, *NAMES]
        assert table.schema.field("flights_2d").type == pa.int64()
        assert table.schema.field("miles_5w").type == pa.float32()
    first = min(windowed.all_rows(), key=lambda row: row["departs"])
    assert [first[name] for name in NAMES] == [1, first["distance"], first["seats"], None]


def test_the_split_does_not_matter(windowed: Source) -> None:
    windowed.ingest(windows=WINDOWS)
    by_hash = features(windowed.all_rows())
    windowed.ingest(windows=WINDOWS, split={"by": "time", "column": "departs", "eval_from": "2013-02-10"})
    assert features(windowed.all_rows()) == by_hash


def test_the_first_rows_of_a_window_see_those_before_it(windowed: Source, capsys: pytest.CaptureFixture[str]) -> None:
    whole = windowed.ingest(windows=WINDOWS)
    everything = features(windowed.all_rows())
    manifest = windowed.ingest(windows=WINDOWS, window="2013-03..2013-03")
    assert "look back into 2 files, 2013-01 to 2013-02" in capsys.readouterr().out
    assert features(windowed.all_rows()) == {id_: found for id_, found in everything.items() if id_ >= 3000}
    assert manifest.spans == ["2013-03"]
    assert whole.digest != manifest.digest


def test_what_is_looked_back_into_is_part_of_the_digest(flights: Source) -> None:
    flights.schema = ""
    before = flights.ingest(windows=WINDOWS, window="2013-03..2013-03").digest
    assert flights.ingest(windows=WINDOWS, window="2013-03..2013-03").digest == before
    rows = months()["2013-02"]
    flights.write_csv("flights-2013-02.csv", rows[:-1])
    assert flights.ingest(windows=WINDOWS, window="2013-03..2013-03").digest != before


def test_what_is_looked_back_into_needs_no_label(flights: Source) -> None:
    flights.schema = SCHEMA + DESCRIBED
    columns = ["carrier", "distance", "departs", "seats"]
    flights.write_csv("flights-2013-02.csv", months()["2013-02"], columns)
    flights.ingest(windows=WINDOWS, window="2013-03..2013-03")
    flights.write_csv("flights-2013-02.csv", months()["2013-02"], columns[:-1])
    with pytest.raises(DataRejectedError, match=r"flights-2013-02.csv': 1 of 4 columns missing: 'seats'"):
        flights.ingest(windows=WINDOWS, window="2013-03..2013-03")


def test_a_span_that_is_not_there_is_told(flights: Source, capsys: pytest.CaptureFixture[str]) -> None:
    flights.schema = ""
    (flights.folder / "flights-2013-02.csv").unlink()
    flights.ingest(windows=WINDOWS, window="2013-03..2013-03")
    told = capsys.readouterr().out
    assert "warning: 1 span that window features look back into not there: 2013-02; they count as" in told


def test_spans_that_are_numbers_are_all_looked_back_into(source: Source) -> None:
    source.schema = ""
    for number, rows in enumerate(months().values()):
        source.write_csv(f"part-{number}.csv", rows)
    pattern = str(source.folder / "part-{SPAN}.csv")
    source.ingest(windows=WINDOWS, source=pattern)
    everything = features(source.all_rows())
    source.ingest(windows=WINDOWS, source=pattern, window="last 1 span")
    assert features(source.all_rows()) == {id_: found for id_, found in everything.items() if id_ >= 3000}


def test_rows_to_predict_have_them_too(windowed: Source) -> None:
    windowed.ingest(windows=WINDOWS)
    learnt = features(windowed.all_rows())
    windowed.ingest(windows=WINDOWS, environment="SERVING")
    assert features(windowed.split("batch").to_pylist()) == learnt


@pytest.mark.parametrize("spelled", ["{}", "2013-01-01T00:00:{:02d}Z", "2013-01-01 01:00:{:02d}+01:00", "ms"])
def test_times_may_be_spelled_in_several_ways(source: Source, spelled: str) -> None:
    source.schema = ""
    seconds = [0, 7, 7, 30]
    texts = [str(1_356_998_400_000 + s * 1000) if spelled == "ms" else spelled.format(s) for s in seconds]
    rows = [{"id": n, "at": text, "key": "a", "late": n % 2} for n, text in enumerate(texts)]
    source.write_csv("rows.csv", rows, ["id", "at", "key", "late"])
    windows = {
        "time": "at",
        "key": ["key"],
        "features": [{"name": "since", "of": "time_since_last", "window": "1 day"}],
    }
    source.ingest(windows=windows, source=str(source.folder / "rows.csv"), split={"by": "hash", "key": ["id"]})
    assert [row["since"] for row in source.all_rows()] == [None, 7.0, 7.0, 23.0]


def changed(**of_first: Any) -> Row:
    first, *others = WINDOWS["features"]
    return {**WINDOWS, "features": [{**first, **of_first}, *others]}


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ({**WINDOWS, "time": "departed"}, "window_features.time: column 'departed' is not in the schema; did you mean"),
        ({**WINDOWS, "key": ["distance"]}, r"window_features.key\[0\]: column 'distance' is FLOAT, and a key is"),
        ({**WINDOWS, "time": "distance"}, "window_features.time: column 'distance' is FLOAT, too coarse for times"),
        (changed(of="sum", column="carrier"), "column 'carrier' holds text, of which there is no sum"),
        (changed(of="mean", column="departs"), "column 'departs' holds times, of which there is no mean"),
        (changed(name="other"), "'other' is not in the schema; add feature { name: \"other\" type: INT }"),
        (changed(of="sum", column="distance"), "'flights_2d' is INT in the schema, and sum gives FLOAT"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(flights: Source, windows: Row, says: str) -> None:
    flights.schema = SCHEMA + DESCRIBED
    with pytest.raises(InputError, match=says):
        flights.ingest(windows=windows)


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        ({**WINDOWS, "key": ["carier"]}, "window_features: column 'carier' is not in .*; did you mean 'carrier'"),
        (changed(of="sum", column="carrier"), "column 'carrier' holds text, of which there is no sum"),
        (changed(name="id"), "'id' is a column of '.*' already; give the feature another name"),
    ],
)
def test_what_the_files_do_not_allow_is_refused(flights: Source, windows: Row, says: str) -> None:
    flights.schema = ""
    with pytest.raises(InputError, match=says):
        flights.ingest(windows=windows)


@pytest.mark.parametrize("value", ["soon", "99999999999999999"])
def test_what_is_no_time_is_refused(flights: Source, value: str) -> None:
    flights.schema = ""
    rows = months(1)["2013-01"]
    rows[3]["seats"] = value
    flights.write_csv("flights-2013-01.csv", rows[3:4])
    with pytest.raises(DataRejectedError, match=f"window_features.time: 'seats' .*{value}"):
        flights.ingest(
            windows={**WINDOWS, "time": "seats", "features": WINDOWS["features"][:1]}, window="2013-01..2013-01"
        )


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from kafka_broker.started(tmp_path_factory.mktemp("broker"))


def test_a_window_of_a_topic_looks_back_too(broker: Broker, tmp_path: Path) -> None:
    topic, start, minute = kafka.new_topic(broker, 3), 1_767_312_000_000, 60_000
    rows = [{"id": n, "card": f"c{n % 5}", "amount": n / 4, "label": n % 2} for n in range(120)]
    kafka.send(
        broker,
        topic,
        [{"value": row, "partition": row["id"] % 3, "timestamp": start + row["id"] * minute} for row in rows],
    )
    windows = WindowFeatures.model_validate(
        {
            "time": "at",
            "key": ["card"],
            "features": [
                {"name": "n", "of": "count", "window": "20 minutes"},
                {"name": "total", "of": "sum", "column": "amount", "window": "50 minutes"},
            ],
        }
    )

    def read(window: str) -> dict[int, list[Any]]:
        data = {
            "source": f"kafka://{broker.servers}/{topic}",
            "window": window,
            "kafka": {"timestamp_column": "at"},
            "split": {"by": "hash", "key": ["id"]},
        }
        task = Task.model_validate({"type": "binary", "label": "label"})
        output = tmp_path / window.replace(" ", "-")
        ingest(Data.model_validate(data), task, "", str(output), "SERVING", windows)
        table = pq.read_table(split_files(output, "batch")[0])
        return {row["id"]: [row["n"], row["total"]] for row in table.to_pylist()}

    everything = read("all")
    later = read("2026-01-02T01")  # the second hour
    assert later == {id_: found for id_, found in everything.items() if 60 <= id_ < 120}
    assert read("offsets 0:30..40,1:30..40,2:30..40") == {id_: everything[id_] for id_ in range(90, 120)}
