"""Kills, lost brokers, new versions and wrong settings, on the stream's own process. Needs: as test_stream_kafka."""

import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.credentials import secret
from components.errors import InputError, UnavailableError
from components.kafka_clients import partitions, properties
from pipelines.kafka_broker import Broker
from tests import kafka, kafka_broker
from tests.servers import free_port
from tests.stream import processes
from tests.stream.conftest import Streams

EVENTS = 5000
KILLS = 3


@pytest.fixture
def store(models: Path, tmp_path: Path) -> Path:
    processes.publish(tmp_path / "store", "shop", models / "binary", "one", 0.4)
    return tmp_path / "store"


def numbered(rows: list[dict[str, Any]], start: int, end: int) -> list[dict[str, Any]]:
    return [{"key": str(n % 50), "value": {**rows[n % len(rows)], "n": n}} for n in range(start, end)]


def ids(messages: list[Any]) -> Counter[str]:
    return Counter(json.loads(message.value())["event_id"] for message in messages)


def test_kills_of_members_and_broker_lose_and_double_nothing(
    streams: Streams, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, store: Path, rows: list[dict[str, Any]]
) -> None:
    for broker in kafka_broker.started(tmp_path_factory.mktemp("broker")):
        streams.broker = broker
        stream = streams.settings(event_id="n", max_batch_events=100)
        job = processes.write_job(tmp_path / "job.json", "shop", store, stream)
        generator = random.Random(9)
        with (
            processes.running(job, "a", tmp_path / "a.log") as first,
            processes.running(job, "b", tmp_path / "b.log") as second,
        ):
            kafka.send(broker, stream.input_topic, numbered(rows, 0, 500))
            kafka.wait_for(broker, stream.output_topic, 500)
            step = (EVENTS - 500) // KILLS
            for kill in range(KILLS):
                start = 500 + kill * step
                kafka.send(broker, stream.input_topic, numbered(rows, start, start + step))
                time.sleep(generator.uniform(0, 0.5))
                if kill % 3 == 2:
                    broker.kill()
                    broker.start()
                else:
                    victim = (first, second)[kill % 2]
                    victim.kill()
                    victim.start()
            found = kafka.wait_for(broker, stream.output_topic, EVENTS, 120)
            assert ids(found) == Counter(str(n) for n in range(EVENTS))
            assert [first.stop(), second.stop()] == [0, 0]
        assert "Traceback" not in first.log() + second.log()


def test_a_new_version_takes_over_and_a_damaged_one_does_not(
    streams: Streams, broker: Broker, models: Path, tmp_path: Path, store: Path, rows: list[dict[str, Any]]
) -> None:
    stream = streams.settings(event_id="n", partitions=1, store_poll_seconds=0.3)
    job = processes.write_job(tmp_path / "job.json", "shop", store, stream)
    with processes.running(job, "a", tmp_path / "a.log") as process:
        kafka.send(broker, stream.input_topic, numbered(rows, 0, 10))
        kafka.wait_for(broker, stream.output_topic, 10)
        second = processes.publish(store, "shop", models / "multiclass", "two")
        _until(lambda: f"{second.version} decides from now on" in process.log(), process.log)
        kafka.send(broker, stream.input_topic, numbered(rows, 10, 20))
        kafka.wait_for(broker, stream.output_topic, 20)
        shutil.copytree(models / "regression", tmp_path / "damaged")
        (tmp_path / "damaged" / "model" / "1" / "saved_model.pb").write_bytes(b"damaged")
        third = processes.publish(store, "shop", tmp_path / "damaged", "three")
        _until(
            lambda: f"version {third.version} does not take over, {second.version} goes on" in process.log(),
            process.log,
        )
        kafka.send(broker, stream.input_topic, numbered(rows, 20, 30))
        found = [json.loads(message.value()) for message in kafka.wait_for(broker, stream.output_topic, 30)]
        assert process.stop() == 0
    predictions = [tuple(sorted(decision["prediction"])) for decision in found]
    assert predictions[:20] == [("label", "probability")] * 10 + [("class", "probabilities")] * 10
    assert predictions[20:] == predictions[10:20]
    assert [decision["version"] for decision in found[10:]] == [second.version] * 20


def _until(condition: Any, said: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


def test_a_broker_that_comes_late_is_waited_for(
    streams: Streams, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, store: Path, rows: list[dict[str, Any]]
) -> None:
    for broker in kafka_broker.started(tmp_path_factory.mktemp("late")):
        streams.broker = broker
        stream = streams.settings(event_id="n")
        kafka.send(broker, stream.input_topic, numbered(rows, 0, 20))
        broker.stop()
        job = processes.write_job(tmp_path / "job.json", "shop", store, stream)
        with processes.running(job, "a", tmp_path / "a.log") as process:
            _until(lambda: "trying again in" in process.log(), process.log, 90)
            assert f"Kafka at '{broker.servers}' does not answer" in process.log()
            broker.start()
            assert len(kafka.wait_for(broker, stream.output_topic, 20)) == 20
            assert process.stop() == 0


@pytest.mark.parametrize(
    ("job", "code", "says"),
    [
        ("{", 2, "is damaged: JSON: Invalid JSON"),
        ({"name": "shop", "store": "nowhere", "stream": {}}, 2, "has no version in production"),
        ({"name": "Shop!", "store": "nowhere", "stream": {}}, 2, "model name 'Shop!'"),
        ({"name": "shop", "store": "s", "stream": {"topic": "a"}}, 2, "stream.topic: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_job_ends_with_one_line(tmp_path: Path, job: Any, code: int, says: str) -> None:
    ended, line = processes.one_line(job, tmp_path)
    assert ended == code
    assert line.startswith("stream: fix your input: ")
    assert says in line


def test_a_topic_that_is_not_there_is_named(broker: Broker, tmp_path: Path, store: Path) -> None:
    known = kafka.new_topic(broker)
    job = {"name": "shop", "store": str(store), "stream": {"servers": broker.servers, "input_topic": "nothing"}}
    code, line = processes.one_line(job, tmp_path)
    assert code == 2
    assert f"Kafka at '{broker.servers}' has no topic 'nothing' (it has: " in line
    assert partitions(broker.servers, known) == [0, 1, 2, 3]


def test_nobody_answers() -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        partitions(f"127.0.0.1:{free_port()}", "topic", seconds=1)


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    monkeypatch.setenv("LOCKGATE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("LOCKGATE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("LOCKGATE_KAFKA_SSL_CA_LOCATION", "/certificates/ca.pem")
    told = properties("broker:9092")
    assert told["security.protocol"] == "SASL_SSL"
    assert told["sasl.password"] == "hunter2"
    assert told["ssl.ca.location"] == "/certificates/ca.pem"
    monkeypatch.setenv("LOCKGATE_KAFKA_GROUP_ID", "mine")
    with pytest.raises(InputError, match="LOCKGATE_KAFKA_GROUP_ID: only security"):
        properties("broker:9092")
    monkeypatch.delenv("LOCKGATE_KAFKA_GROUP_ID")
    monkeypatch.setenv("LOCKGATE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"LOCKGATE_KAFKA_SASL_PASSWORD_FILE names '.*none', which cannot be read"):
        secret("LOCKGATE_KAFKA_SASL_PASSWORD")
