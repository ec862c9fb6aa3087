"""Window features in a stream: throughput and latency of the process that gives them, on a real broker.

`.venvs/predictor/bin/python benchmarks/stream_windows.py`, with Java 17. Five features of one key, an event a second of
each of 2,000 cards, so that a key has some 90 events in its longest window; one process, four partitions.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from confluent_kafka import Producer  # noqa: E402

from components.settings import Stream, WindowFeatures  # noqa: E402
from components.stream.job import Job  # noqa: E402
from components.window_features.values import InputColumn  # noqa: E402
from pipelines.kafka_broker import Broker, broker  # noqa: E402
from tests import kafka  # noqa: E402
from tests.stream.processes import Process  # noqa: E402

CARDS = 2_000
WINDOWS = WindowFeatures.model_validate(
    {
        "time": "time",
        "key": ["card"],
        "features": [
            {"name": "count_1h", "of": "count", "window": "1 hour"},
            {"name": "sum_24h", "of": "sum", "column": "amount", "window": "24 hours"},
            {"name": "mean_24h", "of": "mean", "column": "amount", "window": "24 hours"},
            {"name": "merchants_24h", "of": "distinct", "column": "merchant", "window": "24 hours"},
            {"name": "since", "of": "time_since_last", "window": "24 hours"},
        ],
    }
)
COLUMNS = {"time": "int64", "card": "string", "amount": "float32", "merchant": "string"}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="of the throughput")
    parser.add_argument("--rate", type=int, default=500, help="events a second, of the latency")
    parser.add_argument("--seconds", type=int, default=20, help="of the latency")
    given = parser.parse_args()
    print("load before", os.getloadavg()[0])
    with (
        tempfile.TemporaryDirectory(prefix="lockgate-benchmark-") as made,
        broker(Path(made) / "broker", long_running=True) as started,
    ):
        stream = _settings(started)
        process = Measured(Path(made), stream)
        for n in range(given.events):
            _send(process.producer, stream, n, spread_ms=480)
        process.producer.flush()
        began = time.monotonic()
        process.start()
        topic = stream.features_topic
        first, found = kafka.observed(started, topic, 1), kafka.observed(started, topic, given.events)
        seconds = (found[-1][1] - first[0][1]) / 1000
        cpu = process.cpu()
        print(
            f"throughput: {given.events / seconds:,.0f} events/s, {given.events / cpu:,.0f} a second of the "
            f"processor; the first after {first[0][1] / 1000 - began - (time.time() - time.monotonic()):.1f} s"
        )
        sender = threading.Thread(target=_send_evenly, args=(process.producer, stream, given))
        sender.start()
        found = kafka.observed(started, topic, given.events + given.rate * given.seconds)[given.events :]
        sender.join()
        taken = np.array([received - message.timestamp()[1] for message, received in found[given.rate * 3 :]])
        print(f"latency at {given.rate}/s: p50, p99, longest ms", np.quantile(taken, (0.5, 0.99, 1)).round().tolist())
        process.stop()
    print("load after", os.getloadavg()[0])


class Measured(Process):
    """The process, and who sends it events."""

    def __init__(self, folder: Path, stream: Stream) -> None:
        columns = {name: InputColumn.model_validate({"type": kind}) for name, kind in COLUMNS.items()}
        job = Job(name="b", store="", stream=stream, window_features=WINDOWS, window_columns=columns)
        (folder / "job.json").write_text(job.model_dump_json(exclude_none=True))
        super().__init__(folder / "job.json", "one", folder / "log", state=folder / "state")
        self.producer = Producer(
            {"bootstrap.servers": stream.servers, "linger.ms": 2, "queue.buffering.max.messages": 1_000_000}
        )

    def cpu(self) -> float:
        """Gives the time that all its threads had on a processor."""
        assert self.process
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


def _settings(started: Broker) -> Stream:
    names = ("input_topic", "output_topic", "dead_letter_topic", "features_topic")
    topics = {name: kafka.new_topic(started, 4) for name in names}
    return Stream(servers=started.servers, group=topics["input_topic"], **topics)


def _send(producer: Producer, stream: Stream, n: int, spread_ms: int) -> None:
    event: dict[str, Any] = {
        "time": 1_767_225_600_000 + n * spread_ms,
        "card": f"card-{n * 7919 % CARDS}",
        "amount": n % 1000 / 8,
        "merchant": f"merchant-{n % 97}",
    }
    producer.produce(stream.input_topic, json.dumps(event), key=event["card"])
    producer.poll(0)


def _send_evenly(producer: Producer, stream: Stream, given: argparse.Namespace) -> None:
    began = time.perf_counter()
    for n in range(given.rate * given.seconds):
        _send(producer, stream, given.events + n, spread_ms=480)
        ahead = n / given.rate - (time.perf_counter() - began)
        if ahead > 0.001:
            time.sleep(ahead)
    producer.flush()


if __name__ == "__main__":
    main()
