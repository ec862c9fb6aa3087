"""A stream of events: throughput, latency, and what kills do to it, beside a loop that does one event at a time.

`.venvs/predictor/bin/python benchmarks/stream.py` after `make run`; with `kills` behind it that part alone. One member,
which never has more than one core, decides the events of examples/flights in its own process, beside broker, producer
and observer.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from confluent_kafka import Producer  # noqa: E402

from components.model_store import ModelStore  # noqa: E402
from components.settings import Stream  # noqa: E402
from pipelines.kafka_broker import Broker, broker  # noqa: E402
from tests import kafka  # noqa: E402
from tests.stream.processes import Process, running, write_job  # noqa: E402

STORE = ROOT / "examples" / "flights" / "models"
PARTS = ("throughput", "latency", "naive", "kills")
LAST_CORE = max(os.sched_getaffinity(0))
PINNED = ("taskset", "-c", str(LAST_CORE))


@dataclass(frozen=True)
class _Place:
    """Where a part is measured: a broker of its own."""

    broker: Broker
    folder: Path
    partitions: int

    def stream(self, **changes: Any) -> Stream:
        """Makes topics; gives the settings of a stream over them."""
        names = ("input_topic", "output_topic", "dead_letter_topic")
        topics = {name: kafka.new_topic(self.broker, self.partitions) for name in names}
        return Stream(servers=self.broker.servers, group=topics["input_topic"], event_id="n", **topics, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--partitions", type=int, default=4, help="of each topic")
    parser.add_argument("--events", type=int, default=100_000, help="of the throughput")
    parser.add_argument("--rate", type=int, default=2500, help="events a second, of the latency")
    parser.add_argument("--seconds", type=int, default=30, help="of the latency")
    parser.add_argument("--warm-up", type=int, default=45, help="seconds before, in which Java compiles the broker")
    parser.add_argument("--kill-events", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    parts = given.parts or PARTS
    rows = _rows()
    figures: dict[str, Any] = {"load before": os.getloadavg()[0]}
    measures: dict[str, Callable[[_Place], dict[str, Any]]] = {
        "throughput": lambda place: throughput(place, rows, given.events),
        "latency": lambda place: latency(place, rows, given.rate, given.seconds, given.warm_up),
        "naive": lambda place: naive(place, rows, given.events),
        "kills": lambda place: kills(place, rows, given.kill_events, given.kills),
    }
    for name in parts:
        with tempfile.TemporaryDirectory(prefix="lockgate-benchmark-") as made:
            folder = Path(made)
            with broker(folder / "broker", long_running=True) as started:
                figures[name] = measures[name](_Place(started, folder, given.partitions))
                print(name, json.dumps(figures[name]), flush=True)
    figures["load after"] = os.getloadavg()[0]
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def throughput(place: _Place, rows: list[dict[str, Any]], events: int) -> dict[str, Any]:
    """All events are there before the member is: how many it decides in a second."""
    stream = place.stream()
    _send(place.broker, stream.input_topic, rows, 0, events)
    with _member(place.folder, stream) as process:
        loaded = kafka.observed(place.broker, stream.output_topic, 1)
        before = _cpu_seconds(process)
        found = kafka.observed(place.broker, stream.output_topic, events)
        seconds = _cpu_seconds(process) - before
    times = np.array([json.loads(message.value())["decided_at_ms"] for message, _ in found])
    first, last = times.min(), times.max()
    later = int((times > first).sum())
    per_cpu_second = (events - len(loaded)) / seconds
    return {
        "events": events,
        "events per second": round(later / (last - first) * 1000),
        # What other work on the machine changes least.
        "events per second of the processor": round(per_cpu_second),
    }


def latency(place: _Place, rows: list[dict[str, Any]], rate: int, seconds: int, warm_up: int) -> dict[str, Any]:
    """Events come evenly: how long each takes until somebody who reads what is committed has its decision."""
    stream, events = place.stream(), rate * (warm_up + seconds)
    gc.freeze()
    gc.disable()  # the observer's pauses are not the stream's
    with _member(place.folder, stream):
        sender = threading.Thread(target=_send_evenly, args=(place.broker, stream, rows, rate, events))
        sender.start()
        found = kafka.observed(place.broker, stream.output_topic, events)
        sender.join()
    gc.enable()
    decisions = [(json.loads(message.value()), received) for message, received in found]
    warm = [(d, received) for d, received in decisions if int(d["event_id"]) >= rate * warm_up]
    # Until it is decided, not yet committed; and until somebody who reads what is committed has it.
    decided = np.quantile([d["decided_at_ms"] - d["event_time_ms"] for d, _ in warm], (0.5, 0.99)).tolist()
    read = np.quantile([received - d["event_time_ms"] for d, received in warm], (0.5, 0.99, 1)).tolist()
    return {"rate": rate, "events": len(warm), "decided, p50 and p99 ms": decided, "read, p50, p99, longest ms": read}


def naive(place: _Place, rows: list[dict[str, Any]], events: int) -> dict[str, Any]:
    """The loop that one writes first: read one, predict one, write one, commit."""
    stream = place.stream()
    events = min(events, 3000)
    _send(place.broker, stream.input_topic, rows, 0, events)
    code = [*PINNED, sys.executable, __file__.replace("stream.py", "naive_stream.py")]
    version = ModelStore(str(STORE), "flights").uri_of(str(ModelStore(str(STORE), "flights").latest()))
    done = subprocess.run(
        [*code, place.broker.servers, stream.input_topic, stream.output_topic, version, str(events)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, processor = map(float, done.stdout.split())
    return {
        "events": events,
        "events per second": round(wall),
        "events per second of the processor": round(processor),
    }


def kills(place: _Place, rows: list[dict[str, Any]], events: int, count: int) -> dict[str, Any]:
    """Two members and the broker are killed at random times while events come: each event must be decided once."""
    stream = place.stream(session_seconds=3, transaction_seconds=3)
    job = write_job(place.folder / "job-kills.json", "flights", STORE, stream)
    generator = random.Random(20)
    began = time.monotonic()
    victims: Counter[str] = Counter()
    with running(job, "a", place.folder / "a.log") as first, running(job, "b", place.folder / "b.log") as second:
        over = threading.Event()
        sender = threading.Thread(target=_send_slowly, args=(place.broker, stream, rows, events, count, over))
        sender.start()
        for _ in range(count):
            time.sleep(generator.uniform(1, 8))
            victim = generator.choice(["a", "b", "broker"])
            victims[victim] += 1
            if victim == "broker":
                place.broker.kill()
                time.sleep(generator.uniform(0, 2))
                place.broker.start()
            else:
                process: Process = first if victim == "a" else second
                process.kill()
                time.sleep(generator.uniform(0, 2))
                process.start()
        over.set()
        sender.join()
        found = kafka.wait_for(place.broker, stream.output_topic, events, 600)
    ids = Counter(json.loads(message.value())["event_id"] for message in found)
    return {
        "events": events,
        "kills": dict(victims),
        "decisions": len(found),
        "lost": events - len(ids),
        "decided twice": sum(number > 1 for number in ids.values()),
        "seconds": round(time.monotonic() - began),
    }


# ----------------------------------------------------------------------------------------------------- helpers


def _rows() -> list[dict[str, Any]]:
    store = ModelStore(str(STORE), "flights")
    version = store.latest()
    if version is None:
        raise SystemExit("there is no model of examples/flights; run `make run` first")
    inputs = {i["name"] for i in json.loads(Path(store.uri_of(version), "model", "spec.json").read_text())["inputs"]}
    parts = sorted(ROOT.glob(f"runs/{store.card(version).run_name}/*/examples/eval/*.parquet"))
    table = pq.read_table(parts[0]).slice(0, 20_000)
    return [
        {name: value for name, value in row.items() if name in inputs and value is not None}
        for row in table.to_pylist()
    ]


@contextlib.contextmanager
def _member(folder: Path, stream: Stream) -> Iterator[psutil.Process]:
    job = write_job(folder / "job.json", "flights", STORE, stream)
    with running(job, "one", folder / "member.log", *PINNED) as process:
        assert process.process
        yield psutil.Process(process.process.pid)
        process.stop()


def _cpu_seconds(process: psutil.Process) -> float:
    """Gives the time that all threads of a process had on a processor."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _send(started: Broker, topic: str, rows: list[dict[str, Any]], start: int, end: int) -> None:
    messages = ({"key": str(n), "value": orjson.dumps({**rows[n % len(rows)], "n": n})} for n in range(start, end))
    kafka.send(started, topic, messages)


def _send_evenly(started: Broker, stream: Stream, rows: list[dict[str, Any]], rate: int, events: int) -> None:
    # As Java's producer: so few requests under way that a slow broker is sent larger ones, and not more of them.
    producer = Producer({"bootstrap.servers": started.servers, "max.in.flight.requests.per.connection": 5})
    began = time.perf_counter()
    for n in range(events):
        producer.produce(stream.input_topic, orjson.dumps({**rows[n % len(rows)], "n": n}), key=str(n))
        ahead = n / rate - (time.perf_counter() - began)
        if ahead > 0.001:
            producer.poll(0)
            time.sleep(ahead)
    producer.flush()


def _send_slowly(
    started: Broker, stream: Stream, rows: list[dict[str, Any]], events: int, kills_due: int, over: threading.Event
) -> None:
    """Spreads events over the time of the kills; idempotent, so that the broker's kills double none of them here."""
    producer = Producer(
        {
            "bootstrap.servers": started.servers,
            "enable.idempotence": True,
            "message.timeout.ms": 600_000,
            "log_level": 0,
        }
    )
    pause = kills_due * 8.0 / (events / 500)
    for n in range(events):
        while True:
            try:
                producer.produce(stream.input_topic, orjson.dumps({**rows[n % len(rows)], "n": n}), key=str(n))
                break
            except BufferError:
                producer.poll(0.1)
        if n % 500 == 499:
            producer.poll(0)
            over.wait(pause)
    producer.flush()


if __name__ == "__main__":
    main()
