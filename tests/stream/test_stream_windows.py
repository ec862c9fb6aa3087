"""Window features in a stream. Needs: the venv twin of the predictor's image, Java 17 for the broker."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from components.predictor.columns import column
from components.settings import Stream, WindowFeatures
from components.stream.job import Job
from components.stream.windows.topology import group_of
from components.window_features.values import InputColumn
from pipelines.kafka_broker import Broker
from tests import kafka, kafka_broker
from tests.stream.conftest import Streams
from tests.stream.processes import Process
from tests.window_features.made import TYPES, by_arrays

START = 1_767_312_000_000
BY_CARD: dict[str, Any] = {
    "time": "time",
    "key": ["card"],
    "features": [
        {"name": "count_10m", "of": "count", "window": "10 minutes"},
        {"name": "sum_1h", "of": "sum", "column": "amount", "window": "1 hour"},
        {"name": "mean_1h", "of": "mean", "column": "amount", "window": "1 hour"},
        {"name": "items_1h", "of": "sum", "column": "items", "window": "1 hour"},
        {"name": "cities_1h", "of": "distinct", "column": "city", "window": "1 hour"},
        {"name": "since", "of": "time_since_last", "window": "1 day"},
    ],
}
BY_SHOP = {"name": "shop_10m", "of": "count", "key": ["shop"], "window": "10 minutes"}
COLUMNS = {
    name: InputColumn.model_validate({"type": str(kind) if str(kind) != "float" else "float32"})
    for name, kind in TYPES.items()
}


def made(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Events in the order of their times, of which some are equal."""
    rng = np.random.default_rng(seed)
    times = START + np.cumsum(rng.integers(0, 9, count) * 1000)
    return [
        {
            "time": int(time),
            "card": None if rng.random() < 0.02 else f"card {rng.integers(40)} ü",
            "shop": int(rng.integers(12)),
            "amount": None if rng.random() < 0.05 else float(np.float32(rng.lognormal(3, 2))),
            "items": int(rng.integers(5)),
            "city": f"city {rng.integers(9)}",
        }
        for time in times
    ]


def job(folder: Path, broker: Broker, windows: dict[str, Any], partitions: int, **changes: Any) -> tuple[Path, Job]:
    names = {
        f"{name}_topic": kafka.new_topic(broker, partitions) for name in ("input", "output", "dead_letter", "features")
    }
    short = {"session_seconds": 3, "transaction_seconds": 3, "group": kafka.new_topic(broker, 1)}
    told = Job(
        name="shop",
        store=str(folder / "store"),
        stream=Stream.model_validate({"servers": broker.servers, **short, **names, **changes}),
        window_features=WindowFeatures.model_validate(windows),
        window_columns={name: COLUMNS[name] for name in WindowFeatures.model_validate(windows).inputs},
    )
    path = folder / "job.json"
    path.write_text(told.model_dump_json(exclude_none=True))
    return path, told


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    running: list[Process] = []
    yield running
    for one in running:
        if one.process and one.process.poll() is None:
            one.kill()


def started(path: Path, folder: Path, processes: list[Process], number: int = 0) -> Process:
    """Starts a process; it ends with the test."""
    one = Process(path, f"member-{number}", folder / f"windows-{number}.log", state=folder / f"state-{number}")
    processes.append(one)
    one.start()
    return one


def send(broker: Broker, topic: str, events: list[dict[str, Any]], first: int = 0) -> None:
    kafka.send(
        broker,
        topic,
        [{"key": str(event["card"]), "value": {**event, "n": first + n}} for n, event in enumerate(events)],
    )


def found(broker: Broker, topic: str, count: int) -> list[dict[str, Any]]:
    """Gives the features in the order of the events, of which each must be there once."""
    messages = kafka.wait_for(broker, topic, count, 120)
    by_number = {}
    for message in messages:
        by_number[json.loads(message.value())["n"]] = json.loads(kafka.headers(message)["lockgate-window-features"])
    assert len(messages) == len(by_number) == count
    return [by_number[n] for n in range(count)]


def bits(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: float(v).hex() if isinstance(v, float) else v for name, v in row.items()} for row in features]


@pytest.mark.parametrize(
    ("windows", "partitions"), [(BY_CARD, 4), (BY_CARD | {"features": [*BY_CARD["features"], BY_SHOP]}, 1)]
)
def test_a_batch_that_is_replayed_has_the_features_of_the_batch(
    broker: Broker, tmp_path: Path, processes: list[Process], windows: dict[str, Any], partitions: int
) -> None:
    path, told = job(tmp_path, broker, windows, partitions)
    events = made(2000)
    send(broker, told.stream.input_topic, events)
    one = started(path, tmp_path, processes)
    features = found(broker, told.stream.features_topic, 2000)
    assert bits(features) == bits(by_arrays(WindowFeatures.model_validate(windows), events))
    assert one.stop() == 0


def test_kills_lose_and_double_nothing_and_what_is_kept_survives(
    broker: Broker, tmp_path: Path, processes: list[Process]
) -> None:
    path, told = job(tmp_path, broker, BY_CARD, 4)
    events = made(2400)
    one = started(path, tmp_path, processes)
    for number in range(3):
        send(broker, told.stream.input_topic, events[number * 600 : (number + 1) * 600], number * 600)
        kafka.wait_for(broker, told.stream.features_topic, number * 600 + 100, 120)
        one.kill()
        if number == 1:
            shutil.rmtree(tmp_path / "state-0")  # it comes from Kafka again
        one.start()
    # A second member takes some of the partitions, with what is kept for them, and then all.
    other = started(path, tmp_path, processes, 1)
    send(broker, told.stream.input_topic, events[1800:2100], 1800)
    kafka.wait_for(broker, told.stream.features_topic, 2100, 120)
    one.kill()
    send(broker, told.stream.input_topic, events[2100:], 2100)
    features = found(broker, told.stream.features_topic, 2400)
    assert bits(features) == bits(by_arrays(WindowFeatures.model_validate(BY_CARD), events))
    assert other.stop() == 0


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    yield from kafka_broker.started(tmp_path / "broker")


def test_a_broker_that_is_killed_loses_and_doubles_nothing(
    own_broker: Broker, tmp_path: Path, processes: list[Process]
) -> None:
    broker = own_broker
    path, told = job(tmp_path, broker, BY_CARD, 2)
    events = made(600)
    one = started(path, tmp_path, processes)
    send(broker, told.stream.input_topic, events[:300])
    kafka.wait_for(broker, told.stream.features_topic, 50, 120)
    broker.kill()
    broker.start()
    send(broker, told.stream.input_topic, events[300:], 300)
    features = found(broker, told.stream.features_topic, 600)
    assert bits(features) == bits(by_arrays(WindowFeatures.model_validate(BY_CARD), events))
    assert one.stop() == 0


def test_what_is_no_event_passes_as_it_is(broker: Broker, tmp_path: Path, processes: list[Process]) -> None:
    path, told = job(tmp_path, broker, BY_CARD, 2)
    good = made(1)[0] | {"card": "a"}
    huge = b"[" + b" " * 900_000
    cases: list[tuple[bytes | None, str]] = [
        (b"{bad", "no event"),
        (None, "no event"),
        (b"[1, 2]", "no event"),
        (huge, "no event"),
        (json.dumps(good | {"card": 7}).encode(), "'card' is 7, and window features take text there"),
        (json.dumps(good | {"time": "soon"}).encode(), "'time' is 'soon', and window features take ISO 8601 text"),
        (json.dumps(good | {"amount": "much"}).encode(), "'amount' is 'much', and window features take a number"),
        (json.dumps(good | {"time": None}).encode(), ""),
        (json.dumps(good).encode(), ""),
    ]
    given = [("trace", b"7"), ("lockgate-window-features", b'{"count_10m": 99}'), ("trace", b"8")]
    kafka.send(
        broker,
        told.stream.input_topic,
        [
            {"key": f"key-{n}", "value": value, "headers": given, "timestamp": START + n, "partition": n % 2}
            for n, (value, _) in enumerate(cases)
        ],
    )
    started(path, tmp_path, processes)
    messages = {
        message.timestamp()[1] - START: message
        for message in kafka.wait_for(broker, told.stream.features_topic, len(cases), 120)
    }
    for number, (value, fault) in enumerate(cases):
        message, headers = messages[number], kafka.headers(messages[number])
        assert message.key() == f"key-{number}".encode()
        assert message.value() == (value if value is None else value[:900_000])
        theirs = [header for header in message.headers() if not header[0].startswith("lockgate-")]
        # Of what is too large, as much is kept as a dead letter keeps.
        assert theirs == ([] if value is huge else [("trace", b"7"), ("trace", b"8")])
        assert headers["lockgate-topic"] == told.stream.input_topic
        assert headers["lockgate-partition"] == str(number % 2)
        assert headers["lockgate-offset"] == str(number // 2)
        assert fault in headers.get("lockgate-window-fault", "")
        assert ("lockgate-window-features" in headers) == (not fault)
    assert kafka.headers(messages[3])["lockgate-original-bytes"] == "900001"
    assert json.loads(kafka.headers(messages[7])["lockgate-window-features"]) == dict.fromkeys(
        WindowFeatures.model_validate(BY_CARD).names
    )
    assert json.loads(kafka.headers(messages[8])["lockgate-window-features"])["count_10m"] == 1


def test_a_group_may_begin_at_the_latest_event(broker: Broker, tmp_path: Path, processes: list[Process]) -> None:
    path, told = job(tmp_path, broker, BY_CARD, 2, start="latest")
    events = made(300)
    send(broker, told.stream.input_topic, events[:100], 1000)
    one = started(path, tmp_path, processes)
    group = group_of(told.named)
    places = [TopicPartition(told.stream.input_topic, number) for number in range(2)]
    consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": group, **kafka.QUIET})
    deadline = time.monotonic() + 60
    while any(place.offset < 0 for place in consumer.committed(places, 10)):
        assert time.monotonic() < deadline, one.log()
        time.sleep(0.2)
    consumer.close()
    send(broker, told.stream.input_topic, events[100:])
    features = found(broker, told.stream.features_topic, 200)
    assert bits(features) == bits(by_arrays(WindowFeatures.model_validate(BY_CARD), events[100:]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window_features": None}, "stream: fix your input: the job has no window_features"),
        ({"stream": {"input_topic": "nowhere"}}, "has no topic 'nowhere'"),
        ({"extra": 1}, "write it again with `python -m pipelines stream --show-job`"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(
    broker: Broker, tmp_path: Path, processes: list[Process], changes: dict[str, Any], says: str
) -> None:
    path, _ = job(tmp_path, broker, BY_CARD, 1)
    content = json.loads(path.read_text())
    content["stream"] |= changes.pop("stream", {})
    path.write_text(json.dumps(content | changes))
    one = started(path, tmp_path, processes)
    assert one.process
    assert one.process.wait(60) == 2
    last = one.log().strip().splitlines()[-1]
    assert says in last
    assert "Traceback" not in one.log()


def test_a_late_event_sees_what_was_before_it(broker: Broker, tmp_path: Path, processes: list[Process]) -> None:
    path, told = job(tmp_path, broker, BY_CARD, 1)
    events = [event | {"card": "a"} for event in made(200)]
    late = [*events[:50], *events[60:], *events[50:60]]
    send(broker, told.stream.input_topic, late)
    started(path, tmp_path, processes)
    features = found(broker, told.stream.features_topic, 200)
    in_order = by_arrays(WindowFeatures.model_validate(BY_CARD), events)
    assert bits(features[190:]) == bits(in_order[50:60])
    # Who came before them could not see them.
    assert features[50]["count_10m"] == in_order[60]["count_10m"] - 10


def test_the_model_decides_with_the_features_of_the_batch(
    streams: Streams, broker: Broker, tmp_path: Path, processes: list[Process], rows: list[dict[str, Any]]
) -> None:
    """From the input topic to the decision, with kills of the process between."""
    number = "trip km"  # a number that the model takes
    windows = {
        "time": "time",
        "key": ["card"],
        "features": [{"name": number, "of": "mean", "column": "amount", "window": "1 hour"}],
    }
    path, told = job(tmp_path, broker, windows, 2)
    events = [event | {"card": event["card"] or "none", "amount": event["amount"] or 1.5} for event in made(600)]
    batch = by_arrays(WindowFeatures.model_validate(windows), events)
    raw = [{**rows[n % len(rows)], **event} for n, event in enumerate(events)]
    raw = [{name: value for name, value in row.items() if name != number} for row in raw]
    send(broker, told.stream.input_topic, raw)
    kafka.send(broker, told.stream.input_topic, [{"key": "k", "value": b"{bad"}, {"value": {**raw[0], "card": 7}}])
    one = started(path, tmp_path, processes)
    stream = told.deciding.model_copy(update={"event_id": "n"})
    member = streams.run(stream, windows=told.window_features)
    for least in (100, 300):
        kafka.wait_for(broker, told.stream.features_topic, least, 120)
        one.kill()
        one.start()
    decisions = [json.loads(message.value()) for message in kafka.wait_for(broker, stream.output_topic, 600, 120)]
    letters = kafka.wait_for(broker, stream.dead_letter_topic, 2, 60)
    member.stop()
    assert sorted(int(decision["event_id"]) for decision in decisions) == list(range(600))
    by_number = {int(decision["event_id"]): decision for decision in decisions}
    complete = [{**row, number: features[number]} for row, features in zip(raw, batch, strict=True)]
    arrays = {i.name: column(i, [row.get(i.name) for row in complete]) for i in streams.scorer.inputs}
    expected = streams.scorer.predict(arrays)["probability"]
    probabilities = [by_number[n]["prediction"]["probability"] for n in range(600)]
    # A batch of another size may add up in another order: the last bit.
    np.testing.assert_allclose(np.array(probabilities, np.float32), expected, rtol=3e-6, atol=1e-7)
    assert {decision["source"]["topic"] for decision in decisions} == {told.stream.input_topic}
    reasons = {kafka.headers(letter)["lockgate-reason"]: letter for letter in letters}
    assert reasons["malformed"].value() == b"{bad"
    assert kafka.headers(reasons["malformed"])["lockgate-topic"] == told.stream.input_topic
    assert "'card' is 7, and window features take text" in kafka.headers(reasons["invalid"])["lockgate-message"]
