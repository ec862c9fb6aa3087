"""`python -m pipelines stream`: a project's stream on this machine, in the predictor's environment."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.live import Live
from rich.table import Table

from components.errors import InputError
from components.model_store import ModelStore
from components.settings import Stream
from pipelines.environments import PREDICTOR, ROOT
from pipelines.project import LoadedProject

LOCAL = "local"
_LINE_SECONDS = 5.0
_PICTURE_SECONDS = 0.5
_PARTITIONS = 4
_BATCH_ROWS = 1000


def job(project: LoadedProject) -> dict[str, Any]:
    """Gives what the stream's process is told (components/stream/__main__.py).

    Raises:
        InputError: the Avro schema is not there.
    """
    settings = project.settings
    stream = settings.stream.named(settings.name)
    schema = project.beside(stream.format.schema_file) if stream.format.schema_file else ""
    return {
        "name": settings.name,
        "store": project.resolve(settings.publication.store),
        "stream": stream.model_dump(mode="json", exclude_none=True),
        "avro_schema": schema,
    }


def run(told: dict[str, Any], port: int, instance: str, replay: float, runs: Path, label: str | None) -> int:
    """Decides until Ctrl-C; gives the exit code.

    Args:
        told: as `job` makes it; with servers "local" a broker is run beside the stream.
        port: of health and metrics.
        instance: names the stream's process among its group; empty: by the machine and the process.
        replay: events a second that are made of a run's evaluation split; 0: none.
        runs: folder of the runs.
        label: column that no event has; None: there is none.
    """
    stream = Stream.model_validate(told["stream"])
    console = Console(stderr=True, highlight=False)
    split = _rows(told, runs) if replay else None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockgate-stream-")))
        if stream.servers == LOCAL:
            from pipelines.kafka_broker import broker

            console.print("starting a Kafka broker on this machine …")
            started = stack.enter_context(broker(folder / "broker", long_running=True))
            stream = stream.model_copy(update={"servers": started.servers})
            make_topics(stream)
            console.print(f"Kafka at {started.servers}: {stream.input_topic} → {stream.output_topic}")
        told = told | {"stream": stream.model_dump(mode="json", exclude_none=True)}
        path = folder / "job.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        if split:
            stack.enter_context(_replaying(stream, split, replay, label))
        return _watch(_start(path, port, instance), port, console)


def make_topics(stream: Stream) -> None:
    """Makes a stream's topics on a broker that has none of them."""
    from confluent_kafka.admin import AdminClient, NewTopic

    from components.kafka_clients import properties

    names = (stream.input_topic, stream.output_topic, stream.dead_letter_topic)
    admin = AdminClient(properties(stream.servers))
    for made in admin.create_topics([NewTopic(name, _PARTITIONS, 1) for name in names]).values():
        made.result(30)


def _start(job_file: Path, port: int, instance: str) -> "subprocess.Popen[bytes]":
    command = [str(PREDICTOR.executable), "-m", "components.stream", "--job", str(job_file), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not PREDICTOR.executable.is_file():
        raise InputError(f"no environment '{PREDICTOR.name}': make setup")
    return subprocess.Popen([*command, "--instance", instance], env=environment)


def _watch(process: "subprocess.Popen[bytes]", port: int, console: Console) -> int:
    """Shows how the stream is until it ends: Ctrl-C reaches both processes, and this one ends after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    shown_at = time.monotonic()
    live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while process.poll() is None:
            time.sleep(_PICTURE_SECONDS)
            status = _status(port)
            if status is None:
                continue
            if live:
                live.update(picture(status), refresh=True)
            elif time.monotonic() - shown_at >= _LINE_SECONDS:
                shown_at = time.monotonic()
                console.print(line(status), soft_wrap=True)
    return process.wait()


def _status(port: int) -> dict[str, Any] | None:
    # No proxy: it is a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/status", timeout=2) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except (OSError, ValueError):
        return None


def picture(status: Mapping[str, Any]) -> Table:
    """Draws how a stream is."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    latency = "–" if status["p50_ms"] is None else f"p50 {status['p50_ms']:.0f} ms   p99 {status['p99_ms']:.0f} ms"
    state = "[green]deciding[/]" if status["ready"] else "[yellow]waiting[/]"
    table.add_row("model", f"{status['model'] or '–'}   {state}")
    table.add_row(
        "events", f"{status['events_per_second']:,.0f}/s   lag {status['lag']:,}   {status['decided']:,} decided"
    )
    table.add_row("latency", latency)
    total = sum(status["classes"].values())
    for name, count in sorted(status["classes"].items(), key=lambda item: -item[1])[:8]:
        table.add_row("", f"{name:>12}  {'█' * round(30 * count / total)} {count / total:.1%}")
    for title, counts in (("rejected", status["rejected"]), ("noted", status["odd"])):
        if counts:
            table.add_row(title, "   ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if count))
    return table


def line(status: Mapping[str, Any]) -> str:
    """Writes how a stream is on one line."""
    latency = "" if status["p50_ms"] is None else f", p50 {status['p50_ms']:.0f} ms, p99 {status['p99_ms']:.0f} ms"
    rejected = sum(status["rejected"].values())
    return (
        f"stream: {status['events_per_second']:,.0f} events/s{latency}, lag {status['lag']:,}, "
        f"{status['decided']:,} decided, {rejected:,} rejected by {status['model'] or 'no model yet'}"
    )


# ------------------------------------------------------------------------------------------------- replaying


def _rows(told: Mapping[str, Any], runs: Path) -> Path:
    """Finds the evaluation split of a run of the model in production.

    Raises:
        InputError: there is none.
    """
    store = ModelStore(told["store"], told["name"])
    version = store.latest()
    run_name = store.card(version).run_name if version else ""
    own, others = runs / run_name, sorted(runs.glob(f"{told['name']}-*"), reverse=True)
    for place in [own, *others] if run_name else others:
        for split in place.glob("*/examples/eval"):
            return split
    raise InputError(f"--replay: no run of '{told['name']}' under '{runs}' has an evaluation split; run it first")


@contextlib.contextmanager
def _replaying(stream: Stream, split: Path, rate: float, label: str | None) -> Iterator[None]:
    """Writes rows as events while the block goes on, over and over."""
    over = threading.Event()
    thread = threading.Thread(target=_replay, args=(stream, split, rate, label, over), name="replay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def _replay(stream: Stream, split: Path, rate: float, label: str | None, over: threading.Event) -> None:
    from confluent_kafka import Producer

    from components.kafka_clients import properties

    producer = Producer(properties(stream.servers) | {"linger.ms": 5})
    began, sent = time.monotonic(), 0
    while not over.is_set():
        for part in sorted(split.glob("*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    event = {name: value for name, value in row.items() if value is not None and name != label}
                    value = json.dumps(event, default=str)
                    while not _produced(producer, stream.input_topic, value, str(sent)):
                        if over.is_set():
                            return
                    sent += 1
                    ahead = sent / rate - (time.monotonic() - began)
                    if ahead > 0.005:
                        producer.poll(0)
                        if over.wait(ahead):
                            return


def _produced(producer: Any, topic: str, value: str, key: str) -> bool:
    """Hands an event to the client; False: it holds so many that the broker has not taken yet."""
    try:
        producer.produce(topic, value, key=key)
    except BufferError:
        producer.poll(0.1)
        return False
    return True
