"""Runs over a Kafka topic: what is pinned when they are submitted. Needs: the authoring environment, Java 17."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UnavailableError
from pipelines import commands, submission
from pipelines.kafka_broker import Broker
from pipelines.project import load_project
from tests import kafka, kafka_broker
from tests.pipelines.kubeflow_server import serving

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


def test_offsets_of_a_broker_out_of_reach_are_as_they_are_named(broker: Broker, tmp_path: Path) -> None:
    topic = kafka.new_topic(broker, 1)
    kafka.send(broker, topic, [{"value": b"x"} for _ in range(20)])
    (tmp_path / "order.avsc").write_text(SCHEMA)
    found = {}
    for place, servers in (("here", broker.servers), ("afar", "127.0.0.1:9")):
        settings = VALID.replace("last 2 days", "'offsets 0:5..20'") % (servers, topic)
        (tmp_path / "pipeline.yaml").write_text(settings)
        found[place] = submission.prepare(load_project(tmp_path)).arguments["data"] | {"source": ""}
    assert found["here"] == found["afar"]
    (tmp_path / "pipeline.yaml").write_text(VALID % ("127.0.0.1:9", topic))
    with pytest.raises(UnavailableError, match="does not answer"):
        submission.prepare(load_project(tmp_path))


def test_a_backfill_goes_over_the_days_of_a_topic(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka.new_topic(broker, 2)
    days = [{"value": b"x", "partition": n % 2, "timestamp": START + n * DAY // 4} for n in range(20)]
    kafka.send(broker, topic, [*days, {"value": b"x", "timestamp": START + 6 * DAY}])
    (tmp_path / "pipeline.yaml").write_text(VALID % (broker.servers, topic))
    (tmp_path / "order.avsc").write_text(SCHEMA)

    with serving() as kubeflow:
        monkeypatch.setenv("LOCKGATE_KFP_HOST", kubeflow.url)

        def backfill(*arguments: str) -> tuple[int, str, str]:
            monkeypatch.setattr(
                sys, "argv", ["pipelines", "backfill", str(tmp_path), "--dry-run", "--json", *arguments]
            )
            code = commands.main()
            return code, *capsys.readouterr()

        code, printed, said = backfill("--from", "2026-01-03", "--to", "2026-01-05", "--spans", "2")
        assert code == 0, said
        assert [(one["span"], one["window"]) for one in json.loads(printed)] == [
            ("2026-01-03", "2026-01-02..2026-01-03"),
            ("2026-01-04", "2026-01-03..2026-01-04"),
            ("2026-01-05", "2026-01-04..2026-01-05"),
        ]
        code, _, said = backfill("--from", "2026-01-05", "--to", "2026-01-08")
        assert (code, "holds no message in 1 of 4 days: 2026-01-07; supply them" in said) == (3, True), said
        code, _, said = backfill("--from", "2026-01-05", "--to", "2026-02")
        assert (code, "write both as hours, days, months or years" in said) == (2, True), said
