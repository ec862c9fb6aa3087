"""Streams on a real broker. Needs: the venv twin of the predictor's image, Java 17."""

import json
import random
import urllib.error
import urllib.request
from collections import defaultdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.predictor.served_model import read_facts
from components.stream.scoring import EndpointScorer, LocalScorer
from pipelines.kafka_broker import Broker
from tests import kafka
from tests.predictor import running
from tests.stream.conftest import Streams, rows_of


def events(rows: list[dict[str, Any]], count: int, keys: int = 7) -> list[dict[str, Any]]:
    return [{"key": f"key-{n % keys}", "value": {**rows[n % len(rows)], "order": f"order-{n}"}} for n in range(count)]


def decided(broker: Broker, topic: str, count: int) -> list[dict[str, Any]]:
    return [json.loads(message.value()) for message in kafka.wait_for(broker, topic, count)]


def test_every_event_is_decided_once_and_in_the_order_of_its_key(
    streams: Streams, broker: Broker, rows: list[dict[str, Any]]
) -> None:
    stream = streams.settings(event_id="order", max_batch_events=50)
    kafka.send(broker, stream.input_topic, events(rows, 1000))
    kafka.send(broker, stream.input_topic, [{"key": "key-1", "value": b"{bad"}, {"key": "key-1", "value": None}])
    member = streams.run(stream)
    messages = kafka.wait_for(broker, stream.output_topic, 1000)
    by_key = defaultdict(list)
    for message in messages:
        by_key[message.key()].append(int(json.loads(message.value())["event_id"].removeprefix("order-")))
    assert {key: len(numbers) for key, numbers in by_key.items()} == {
        f"key-{k}".encode(): len(range(k, 1000, 7)) for k in range(7)
    }
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    letters = kafka.wait_for(broker, stream.dead_letter_topic, 2)
    assert [(kafka.headers(letter)["lockgate-reason"], letter.value()) for letter in letters] == [
        ("malformed", b"{bad"),
        ("empty", None),
    ]
    member.until(lambda: member.figures.summary()["lag"] == 0 and len(member.figures.lags) == 4)
    summary = member.figures.summary()
    assert (summary["decided"], summary["rejected"]) == (1000, {"malformed": 1, "empty": 1})
    assert sum(summary["classes"].values()) == 1000


def test_batch_server_and_stream_predict_alike(streams: Streams, broker: Broker, models: Path) -> None:
    """The same rows by predict_batch, by the model server, and by both kinds of stream."""
    predicted = pq.read_table(models / "binary" / "predictions" / "eval")
    names = [i.name for i in streams.scorer.inputs]
    rows = list(islice(cycle(predicted.select(names).to_pylist()), 10_000))
    batch = np.resize(predicted["probability"].to_numpy(), 10_000)
    messages = [{"value": {**row, "n": n}} for n, row in enumerate(rows)]
    with running.serving(models / "binary", max_rows=10_000) as server:
        answer = server.rows(rows).json()["predictions"]
        by_server = np.array([row["probability"] for row in answer], np.float32)
        endpoint = EndpointScorer(f"{server.url}/v2/models/{server.name}", 30)
        results = []
        for scorer in (streams.scorer, endpoint):
            stream = streams.settings(event_id="n")
            kafka.send(broker, stream.input_topic, messages)
            member = streams.run(stream, scorer)
            found_rows = {int(d["event_id"]): d for d in decided(broker, stream.output_topic, 10_000)}
            member.stop()
            results.append([found_rows[n] for n in range(10_000)])
    in_process, by_endpoint = results
    for one in results:
        probabilities = np.array([decision["prediction"]["probability"] for decision in one], np.float32)
        # A batch of another size may add up in another order: the last bit.
        np.testing.assert_allclose(probabilities, batch, rtol=3e-6, atol=1e-7)
        np.testing.assert_allclose(probabilities, by_server, rtol=3e-6, atol=1e-7)
        assert [d["prediction"]["label"] for d in one] == [row["label"] for row in answer]
    assert {d["version"] for d in in_process} == {d["version"] for d in by_endpoint} == {"v0001-0123abcd"}


def test_a_model_takes_over_between_two_batches(streams: Streams, broker: Broker, models: Path, tmp_path: Path) -> None:
    rows = rows_of(models, "binary")
    card = json.loads((models / "binary" / "card.json").read_text())
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "model").symlink_to(models / "binary" / "model")
    (newer / "card.json").write_text(json.dumps(card | {"version": "v0002-89abcdef"}))
    stream = streams.settings(event_id="order", partitions=1)
    member = streams.run(stream)
    kafka.send(broker, stream.input_topic, events(rows, 200))
    kafka.wait_for(broker, stream.output_topic, 200)
    member.next_scorers.append(LocalScorer(read_facts(str(newer))))
    member.until(lambda: "v0002" in member.figures.model)
    kafka.send(broker, stream.input_topic, events(rows, 200))
    versions = [d["version"] for d in decided(broker, stream.output_topic, 400)]
    assert versions == ["v0001-0123abcd"] * 200 + ["v0002-89abcdef"] * 200


def test_members_come_and_go_without_loss_or_double(
    streams: Streams, broker: Broker, rows: list[dict[str, Any]]
) -> None:
    stream = streams.settings(event_id="order", max_batch_events=20)
    first = streams.run(stream)
    kafka.send(broker, stream.input_topic, events(rows, 1000, keys=40))
    first.until(lambda: first.figures.decided > 0)
    second = streams.run(stream)
    second.until(lambda: len(second.figures.lags) > 0)
    kafka.send(broker, stream.input_topic, events(rows, 1000, keys=40))
    second.until(lambda: second.figures.decided > 0)
    first.stop()
    kafka.send(broker, stream.input_topic, events(rows, 1000, keys=40))
    second.until(lambda: len(second.figures.lags) == 4)
    ids = [d["event_id"] for d in decided(broker, stream.output_topic, 3000)]
    assert sorted(ids) == sorted([f"order-{n}" for n in range(1000)] * 3)


@pytest.mark.parametrize("duplicates", ["count", "drop"])
def test_duplicates_are_known_over_a_restart(
    streams: Streams, broker: Broker, rows: list[dict[str, Any]], duplicates: str
) -> None:
    stream = streams.settings(partitions=1, event_id="order", duplicates=duplicates, duplicate_window=300)
    kafka.send(broker, stream.input_topic, [*events(rows, 100), *events(rows, 10)])
    member = streams.run(stream)
    kafka.wait_for(broker, stream.output_topic, 110 if duplicates == "count" else 100)
    member.until(lambda: member.figures.odd["duplicate"] == 10)
    member.stop()
    # 50 again, of which the window still holds all; and 300 new ones, behind which it holds none.
    more = [{"value": {**rows[0], "order": f"new-{n}"}} for n in range(300)]
    kafka.send(broker, stream.input_topic, [*events(rows, 50), *more, *events(rows, 10)])
    member = streams.run(stream)
    member.until(lambda: member.figures.decided + 0 >= (360 if duplicates == "count" else 310))
    member.until(lambda: member.figures.odd["duplicate"] == 50)
    member.stop()
    for _ in range(3):  # what is read again for its ids is neither decided nor taken for progress
        again = streams.run(stream.model_copy(update={"max_batch_events": 7}))
        again.until(lambda figures=again.figures: bool(figures.lags))
        again.stop()
    found = decided(broker, stream.output_topic, 470 if duplicates == "count" else 410)
    assert len(found) == (470 if duplicates == "count" else 410)
    assert sum(d.get("duplicate", False) for d in found) == (60 if duplicates == "count" else 0)


def test_what_the_broker_does_not_take_becomes_a_dead_letter(
    streams: Streams, broker: Broker, rows: list[dict[str, Any]]
) -> None:
    small = kafka.new_topic(broker, 1, **{"max.message.bytes": "2000"})
    stream = streams.settings(partitions=1, output_topic=small, event_id="order", pass_through=["note"])
    found = events(rows, 20)
    found[7]["value"]["note"] = random.Random(1).randbytes(10_000).hex()  # which compresses to a half at best
    kafka.send(broker, stream.input_topic, found)
    streams.run(stream)
    ids = [d["event_id"] for d in decided(broker, small, 19)]
    assert ids == [f"order-{n}" for n in range(20) if n != 7]
    (letter,) = kafka.wait_for(broker, stream.dead_letter_topic, 1)
    assert kafka.headers(letter)["lockgate-reason"] == "undeliverable"


def test_a_server_that_is_away_holds_the_stream_up_and_loses_nothing(
    streams: Streams, broker: Broker, models: Path, rows: list[dict[str, Any]]
) -> None:
    stream = streams.settings(event_id="order")
    with running.serving(models / "binary") as server:
        scorer = EndpointScorer(f"{server.url}/v2/models/{server.name}", 5)
        port = server.http_port
        server.stop()
        kafka.send(broker, stream.input_topic, [*events(rows, 50), {"value": {"trip km": "far", "order": "x"}}])
        streams.run(stream, scorer)
    with running.serving(models / "binary", http_port=port) as server:
        assert len(decided(broker, stream.output_topic, 50)) == 50
        (letter,) = kafka.wait_for(broker, stream.dead_letter_topic, 1)
        assert kafka.headers(letter)["lockgate-message"].startswith("feature 'trip km': 'far' is text")


def test_health_and_metrics_tell_how_it_is(streams: Streams, broker: Broker, rows: list[dict[str, Any]]) -> None:
    stream = streams.settings(event_id="order", late_seconds=1, future_seconds=1, event_time="at")
    member = streams.run(stream)

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{member.health.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    times = ["2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z", "2020-01-01"]
    values = [{**rows[0], "order": n, "at": at, "novel": 1} for n, at in enumerate(times)]
    kafka.send(broker, stream.input_topic, [{"value": value} for value in values])
    member.until(lambda: member.figures.decided == 3 and len(member.figures.lags) == 4)
    assert get("/ready") == (200, "ready\n")
    assert get("/live") == (200, "live\n")
    assert get("/nothing")[0] == 404
    status = json.loads(get("/status")[1])
    assert status["odd"] == {"late": 2, "future": 1, "unknown_field": 3}
    metrics = get("/metrics")[1]
    for line in (
        'lockgate_stream_model{name="binary",version="v0001-0123abcd"} 1.0',
        'lockgate_stream_lag{partition="0"} 0.0',
        'lockgate_stream_rejected_total{reason="malformed"}',
        'lockgate_stream_events_total{result="decided"}',
        "lockgate_stream_latency_seconds_bucket",
    ):
        assert line in metrics
    member.stop()
    assert get("/ready")[0] == 503
