"""Runs over a Kafka topic: what is pinned when they are submitted. Needs: the authoring environment, Java 17."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import submission
from pipelines.kafka_broker import Broker
from pipelines.project import load_project
from tests import kafka, kafka_broker

VALID = """\
name: shop
data:
  source: kafka://%s/%s
  window: last 2 days
  kafka: {format: {type: avro, schema_file: order.avsc}}
  split: {by: hash, key: [customer]}
task: {type: binary, label: bought}
"""
SCHEMA = '{"type": "record", "name": "Order", "fields": [{"name": "customer", "type": "string"}]}'
DAY = 86_400_000
START = 1_767_312_000_000  # 2026-01-02


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from kafka_broker.started(tmp_path_factory.mktemp("broker"))


def test_offsets_and_schema_travel_with_a_run(broker: Broker, tmp_path: Path) -> None:
    topic = kafka.new_topic(broker, 1)
    kafka.send(broker, topic, [{"value": b"x", "timestamp": START + n * DAY // 4} for n in range(20)])
    (tmp_path / "pipeline.yaml").write_text(VALID % (broker.servers, topic))
    (tmp_path / "order.avsc").write_text(SCHEMA)
    prepared = submission.prepare(load_project(tmp_path))
    data = prepared.arguments["data"]
    assert data["window"] == prepared.spans == "offsets 0:12..20"
    assert data["source"] == f"kafka://{broker.servers}/{topic}"
    assert json.loads(data["kafka"]["avro_schema"])["name"] == "Order"
    kafka.send(broker, topic, [{"value": b"x", "timestamp": START + 5 * DAY}])
    again = submission.prepare(load_project(tmp_path))
    assert again.arguments["data"]["window"] == "offsets 0:16..21"
    assert again.arguments["data_digest"] != prepared.arguments["data_digest"]
