"""Training data from a Kafka topic: ranges of offsets and times. Needs: the venv twin of the base image, Java 17."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest

from components import spans
from components.artifacts import Manifest
from components.errors import DataRejectedError, InputError, UnavailableError
from components.ingest_data.ingestion import ingest
from components.settings import Data, Task
from pipelines.kafka_broker import Broker
from tests import kafka, kafka_broker
from tests.servers import free_port

SCHEMA = """
feature { name: "id" type: BYTES }
feature { name: "amount" type: FLOAT }
feature { name: "label" type: INT }
"""
DAY = 86_400_000
START = 1_767_312_000_000  # 2026-01-02


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from kafka_broker.started(tmp_path_factory.mktemp("broker"))


def event(n: int) -> dict[str, Any]:
    return {"id": f"row-{n}", "amount": n / 2, "label": n % 2}


@pytest.fixture
def topic(broker: Broker) -> str:
    """200 events of ten days, 20 a day, on two partitions."""
    name = kafka.new_topic(broker, 2)
    messages = [
        {"value": event(n), "partition": n % 2, "key": f"k{n}", "timestamp": START + n * DAY // 20} for n in range(200)
    ]
    kafka.send(broker, name, messages)
    return name


def data(broker: Broker, topic: str, window: str = "all", **kafka_options: Any) -> Data:
    return Data.model_validate(
        {
            "source": f"kafka://{broker.servers}/{topic}",
            "window": window,
            "kafka": kafka_options,
            "split": {"by": "hash", "key": ["id"], "eval_fraction": 0.3},
        }
    )


def ingested(of: Data, folder: Path, schema: str = SCHEMA) -> tuple[Manifest, list[dict[str, Any]]]:
    manifest = ingest(of, Task(type="binary", label="label"), schema, str(folder))
    rows = [row for split in ("train", "eval") for row in pq.read_table(folder / split).to_pylist()]
    return manifest, sorted(rows, key=lambda row: int(row["id"].removeprefix("row-")))


def test_a_topic_becomes_a_dataset_and_the_same_again(broker: Broker, topic: str, tmp_path: Path) -> None:
    files = spans.resolve(f"kafka://{broker.servers}/{topic}", "all")
    pinned = spans.pinned_window(files)
    assert pinned == "offsets 0:0..100,1:0..100"
    manifest, rows = ingested(data(broker, topic, pinned), tmp_path / "one")
    assert rows == [event(n) for n in range(200)]
    kafka.send(broker, topic, [{"value": event(n)} for n in range(200, 260)])
    again, _ = ingested(data(broker, topic, pinned), tmp_path / "two")
    assert again == manifest
    more, rows = ingested(data(broker, topic), tmp_path / "three")
    assert len(rows) == 260
    assert more.digest != manifest.digest
    assert spans.listing_digest(spans.resolve(f"kafka://{broker.servers}/{topic}", pinned)) == spans.listing_digest(
        files
    )


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        ("2026-01-02", 0, 20),
        ("2026-01-03..2026-01-04", 20, 60),
        ("2026-01-02T00..2026-01-02T11", 0, 10),
        ("2026-01", 0, 200),
        ("2026", 0, 200),
        ("last 1 day", 180, 200),
        ("last 3 days", 140, 200),
        ("the last 2 months", 0, 200),
        ("offsets 0:10..20", 20, 40),
    ],
)
def test_windows(broker: Broker, topic: str, window: str, first: int, last: int) -> None:
    found = spans.resolve(f"kafka://{broker.servers}/{topic}", window)
    numbers = [2 * n + file.version.startswith("1:") for file in found for n in _offsets(file.version)]
    wanted = range(first, last) if window != "offsets 0:10..20" else range(first, last, 2)
    assert sorted(numbers) == list(wanted)


def _offsets(version: str) -> range:
    start, _, end = version.partition(":")[2].partition("..")
    return range(int(start), int(end))


@pytest.mark.parametrize(
    ("window", "error", "says"),
    [
        ("2025-01", DataRejectedError, "holds no message in window '2025-01'; change data.window"),
        ("2026-01-04..2026-01-03", InputError, "ends before it begins"),
        ("2026-13", InputError, "'2026-13' is no time; write it like 2013"),
        ("2026-01-02,2026-01-04", InputError, "has several ranges; of a topic, name one"),
        ("last 3 spans", InputError, "a topic has no spans; count hours, days, months or years"),
        ("offsets 0:10..10", InputError, "'0:10..10' holds no message"),
        ("offsets 0:1..9,0:20..30", InputError, "partition 0 is named twice"),
        ("offsets 7:0..10", InputError, "has no partition 7 (it has 0 to 1)"),
        ("offsets 0:0..101", DataRejectedError, "offsets 0:0..101 end after 100, the last there is"),
    ],
)
def test_wrong_windows(broker: Broker, topic: str, window: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        spans.resolve(f"kafka://{broker.servers}/{topic}", window)
    assert says in str(raised.value)


def test_messages_that_are_gone_are_missed(broker: Broker, topic: str) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": broker.servers})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 50)]).values():
        deleted.result(30)
    source = f"kafka://{broker.servers}/{topic}"
    with pytest.raises(DataRejectedError, match=r"offsets 0:40\.\.60 begin before 50, the first that is still there"):
        spans.resolve(source, "offsets 0:40..60")
    with pytest.raises(DataRejectedError, match="begins before 2026-01-07T00:00, the first message of partition 0"):
        spans.resolve(source, "2026-01-05..2026-01-10")
    assert [file.version for file in spans.resolve(source, "2026-01-08")] == ["0:60..70", "1:60..70"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"{bad", "partition 0, offset 0: Expecting property name"),
        (b"[1]", "partition 0, offset 0: the value is [1], no object; leave it out of data.window"),
        (b"\xff", "partition 0, offset 0: "),
        ({"id": "a", "amount": "far", "label": 1}, "column 'amount': 'far' does not fit type FLOAT"),
        ({"id": "a", "amount": {"x": 1}, "label": 1}, "column 'amount' is struct<x: int64>, not FLOAT"),
        ({"id": "a", "sum": 1.0, "label": 1}, "1 of 3 columns missing: 'amount'"),
    ],
)
def test_bad_messages_end_the_run(broker: Broker, tmp_path: Path, value: Any, says: str) -> None:
    topic = kafka.new_topic(broker, 1)
    kafka.send(broker, topic, [{"value": value}])
    with pytest.raises(DataRejectedError) as raised:
        ingested(data(broker, topic), tmp_path / "out")
    assert says in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_fields_of_several_kinds_and_tombstones(broker: Broker, tmp_path: Path) -> None:
    topic = kafka.new_topic(broker, 1)
    values = [{**event(n), "amount": str(n) if n % 2 else n, "other": n} for n in range(40)]
    kafka.send(broker, topic, [{"value": value} for value in values] + [{"value": None}])
    _, rows = ingested(data(broker, topic), tmp_path / "out")
    assert [row["amount"] for row in rows] == [float(n) for n in range(40)]
    assert rows[0].keys() == {"id", "amount", "label"}


def test_key_and_time_become_columns(broker: Broker, topic: str, tmp_path: Path) -> None:
    options = {"timestamp_column": "at", "key_column": "key"}
    schema = SCHEMA + 'feature { name: "at" type: INT time_domain {} }\nfeature { name: "key" type: BYTES }'
    _, rows = ingested(data(broker, topic, **options), tmp_path / "out", schema)
    assert [(row["at"], row["key"]) for row in rows] == [((START + n * DAY // 20) // 1000, f"k{n}") for n in range(200)]


AVRO = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": ["null", "double"]},
        {"name": "label", "type": "int"},
    ],
}


def avro(n: int) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(AVRO), event(n))
    return stream.getvalue()


def test_avro(broker: Broker, tmp_path: Path) -> None:
    topic = kafka.new_topic(broker, 2)
    kafka.send(broker, topic, [{"value": avro(n)} for n in range(50)])
    form = {"type": "avro", "schema_file": "row.avsc"}
    _, rows = ingested(data(broker, topic, format=form, avro_schema=json.dumps(AVRO)), tmp_path / "out")
    assert rows == [event(n) for n in range(50)]


@pytest.fixture
def registry() -> Iterator[str]:
    """A server that answers as Confluent's schema registry does; that one needs a licence."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/schemas/ids/7"
            body = json.dumps({"schema": json.dumps(AVRO)} if known else {"error_code": 40403}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_schema_registry(broker: Broker, tmp_path: Path, registry: str) -> None:
    topic = kafka.new_topic(broker, 1)
    kafka.send(broker, topic, [{"value": b"\0" + (7).to_bytes(4, "big") + avro(n)} for n in range(50)])
    of = data(broker, topic, format={"type": "avro", "schema_registry": registry})
    _, rows = ingested(of, tmp_path / "out")
    assert rows == [event(n) for n in range(50)]
    kafka.send(broker, topic, [{"value": b"\0" + (8).to_bytes(4, "big") + avro(1)}])
    with pytest.raises(DataRejectedError, match="names schema 8, which the registry"):
        ingested(of, tmp_path / "other")
    away = data(broker, topic, format={"type": "avro", "schema_registry": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(UnavailableError, match=r"schema registry .* check that it is reachable"):
        ingested(away, tmp_path / "other")


def test_wrong_sources(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no topic; write kafka://SERVER:9092/TOPIC"):
        spans.resolve("kafka://host", "all")
    with pytest.raises(InputError, match="has no topic 'nothing'"):
        spans.resolve(f"kafka://{broker.servers}/nothing", "all")
    with pytest.raises(UnavailableError, match="does not answer"):
        spans.resolve(f"kafka://127.0.0.1:{free_port()}/topic", "all")
    with pytest.raises(InputError, match=r"names offsets, but data\.source .* is no kafka:// topic"):
        spans.resolve(str(tmp_path / "*.csv"), "offsets 0:1..2")
