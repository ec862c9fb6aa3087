"""`python -m pipelines stream`: a project's stream on this machine, in the predictor's environment."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.live import Live

from components.errors import InputError
from components.model_store import ModelStore
from components.parquet_files import local_parquet
from components.schema import columns, parse_schema
from components.settings import Project, Stream, Task, WindowFeatures
from components.window_features.values import InputColumn
from pipelines import stream_history, stream_picture
from pipelines.environments import PREDICTOR, ROOT
from pipelines.project import LoadedProject
from pipelines.stream_alerts import Alerts, Follower, Truth
from pipelines.stream_view import line, picture, summary

LOCAL = "local"
_LINE_SECONDS = 5.0
_PICTURE_SECONDS = 0.5
_IDLE_PICTURES = 40
"""Without a decision, after which what was replayed counts as decided: duplicates may have been dropped."""
_PARTITIONS = 4
_BATCH_ROWS = 1000


def job(project: LoadedProject) -> dict[str, Any]:
    """Gives what the stream's process is told (components/stream/__main__.py).

    Raises:
        InputError: the Avro schema is not there, or the one that window features need.
    """
    settings = project.settings
    stream = settings.stream.named(settings.name)
    schema = project.beside(stream.format.schema_file) if stream.format.schema_file else ""
    return {
        "name": settings.name,
        "store": project.resolve(settings.publication.store),
        "stream": stream.model_dump(mode="json", exclude_none=True),
        "avro_schema": schema,
        **_windows(project),
    }


def _windows(project: LoadedProject) -> dict[str, Any]:
    windows = project.settings.window_features
    if windows is None:
        return {}
    if not project.schema_text:
        raise InputError(
            f"{project.path}: window_features in a stream need the types of a schema, since there are no files to tell "
            "them; name `schema` (a run without one has written it, in the folder of validate_data)"
        )
    known = columns(parse_schema(project.schema_text))
    return {
        "window_features": windows.model_dump(mode="json"),
        "window_columns": {name: InputColumn.of(known[name]).model_dump(mode="json") for name in windows.inputs},
    }


def budget_of(settings: Project) -> float | None:
    """Gives the alerts per 1,000 events that there is time for; None: the settings do not say."""
    decision, evaluated = settings.training.decision, settings.evaluation.alert_budget
    if decision.by == "alert_budget":
        return decision.alerts_per_1000_rows
    return evaluated.alerts if evaluated and evaluated.per == "1000_rows" else None


@dataclass(frozen=True)
class Replay:
    """Events that are made of the rows of a run's evaluation split."""

    rate: float
    """A second."""
    split: Path
    task: Task
    events: int = 0
    """After so many it is over, once they are decided; 0: all rows, again and again."""
    truth: Truth | None = None
    """What turns out about them; None: their labels, at once."""


@dataclass(frozen=True)
class Shown:
    """What a person is shown besides how a stream runs."""

    budget: float | None = None
    """Alerts per 1,000 events that there is time for; None: nobody says."""
    picture: Path | None = None
    """SVG to write at the end."""


def run(
    told: dict[str, Any], port: int, instance: str, replay: Replay | None = None, shown: Shown | None = None
) -> int:
    """Decides until Ctrl-C, or until what is replayed is decided; gives the exit code.

    Where there are window features, a process that gives them runs beside the one that decides.

    Args:
        told: as `job` makes it; with servers "local" a broker is run beside the stream.
        port: of health and metrics.
        instance: names the stream's process among its group; empty: by the machine and the process.
        replay: makes events; None: others do.
        shown: to a person who looks.
    """
    stream = Stream.model_validate(told["stream"])
    windows = WindowFeatures.model_validate(told["window_features"]) if "window_features" in told else None
    console, shown = Console(stderr=True, highlight=False), shown or Shown()
    alerts = Alerts(truth_of(replay, stream) if replay else None)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockgate-stream-")))
        if stream.servers == LOCAL:
            from pipelines.kafka_broker import broker

            console.print("starting a Kafka broker on this machine …")
            started = stack.enter_context(broker(folder / "broker", long_running=True))
            stream = stream.model_copy(update={"servers": started.servers})
            # With one partition, the events of every key of window features come in the order in which they are sent.
            make_topics(stream, windows is not None, 1 if windows and replay else _PARTITIONS)
            console.print(f"Kafka at {started.servers}: {stream.input_topic} → {stream.output_topic}")
        told = told | {"stream": stream.model_dump(mode="json", exclude_none=True)}
        path = folder / "job.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        processes = []
        if windows:
            # Its stores are read from Kafka each time: nothing of them stays here.
            options = ("--port", "0", "--instance", instance, "--state", str(folder / "state"))
            processes.append(_start("components.stream.windows", path, *options))
            stack.callback(processes[0].kill)
            if replay:
                _fill(stream, windows, told["window_columns"], replay, processes[0], console)
        processes.append(_start("components.stream", path, "--port", str(port), "--instance", instance))
        with Follower(stream, alerts), _replaying(stream, replay, port, windows) as replayed:
            status, code = _watch(processes, port, console, alerts, shown, replayed, replay.events if replay else 0)
    if status:
        for text in summary(status, alerts, shown.budget):
            console.print(text, soft_wrap=True)
        if shown.picture and alerts.kept:
            stream_picture.write(shown.picture, alerts, told["name"], shown.budget)
            console.print(f"picture  {shown.picture}", soft_wrap=True)
    return code


def _fill(
    stream: Stream,
    windows: WindowFeatures,
    made_of: Mapping[str, Any],
    replay: Replay,
    process: "subprocess.Popen[bytes]",
    console: Console,
) -> None:
    """Lets window features of a replay see what was before it."""
    columns = {name: InputColumn.model_validate(column) for name, column in made_of.items()}
    rows = stream_history.before(replay.split, windows, columns)
    console.print(f"window features look back into {len(rows):,} events before those that are replayed …")
    stream_history.fill(stream, windows, rows, process)


def make_topics(stream: Stream, has_windows: bool, partitions: int) -> None:
    """Makes a stream's topics on a broker that has none of them."""
    from confluent_kafka.admin import AdminClient, NewTopic

    from components.kafka_clients import properties

    names = [stream.input_topic, stream.output_topic, stream.dead_letter_topic]
    names += [stream.features_topic] if has_windows else []
    admin = AdminClient(properties(stream.servers))
    for made in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        made.result(30)


def _start(module: str, job_file: Path, *options: str) -> "subprocess.Popen[bytes]":
    # Quix Streams imports what is deprecated, and says so.
    command = [str(PREDICTOR.executable), "-W", "ignore", "-m", module, "--job", str(job_file), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not PREDICTOR.executable.is_file():
        raise InputError(f"no environment '{PREDICTOR.name}': make setup")
    return subprocess.Popen(command, env=environment)


def _watch(
    processes: "list[subprocess.Popen[bytes]]",
    port: int,
    console: Console,
    alerts: Alerts,
    shown: Shown,
    replayed: threading.Event,
    events: int,
) -> tuple[dict[str, Any] | None, int]:
    """Shows how the stream is until one of its processes ends: Ctrl-C reaches all, and this one ends after them.

    Returns:
        What was last known of it, None: nothing; the exit code of the process that ended first.
    """

    def terminate(*_: Any) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    last, shown_at, idle = None, time.monotonic(), 0
    live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while all(process.poll() is None for process in processes):
            time.sleep(_PICTURE_SECONDS)
            before, status = last, _status(port)
            if status is None:
                continue
            last = status
            with alerts.lock:
                if live:
                    live.update(picture(status, alerts, shown.budget), refresh=True)
                elif time.monotonic() - shown_at >= _LINE_SECONDS:
                    shown_at = time.monotonic()
                    console.print(line(status, alerts), soft_wrap=True)
            idle = idle + 1 if replayed.is_set() and before and before["decided"] == status["decided"] else 0
            settled = status["decided"] + sum(status["rejected"].values())
            if replayed.is_set() and (settled >= events or idle == _IDLE_PICTURES):
                terminate()
    code = next(code for process in processes if (code := process.poll()) is not None)
    terminate()
    for process in processes:
        process.wait()
    return last, code


def _status(port: int) -> dict[str, Any] | None:
    # No proxy: it is a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/status", timeout=2) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except (OSError, ValueError):
        return None


# ------------------------------------------------------------------------------------------------- replaying


def split_of(told: Mapping[str, Any], runs: Path) -> Path:
    """Finds the evaluation split of a run of the model in production.

    Args:
        told: as `job` makes it.
        runs: folder of the runs.

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


def truth_of(replay: Replay, stream: Stream) -> Truth | None:
    """Gives what turns out about replayed events; None: nothing names them, or no label tells."""
    if replay.truth or not (stream.event_id and replay.task.has_positive):
        return replay.truth
    table = pq.read_table(replay.split, columns=[stream.event_id, *replay.task.labels])
    ids, labels = (list(map(str, table[name].to_pylist())) for name in table.column_names)
    positive = str(replay.task.positive) if replay.task.positive is not None else ("1", "True", "true")
    return Truth({one: 0 for one, label in zip(ids, labels, strict=True) if label in positive}, frozenset(ids))


@contextlib.contextmanager
def _replaying(
    stream: Stream, replay: Replay | None, port: int, windows: WindowFeatures | None
) -> Iterator[threading.Event]:
    """Writes rows as events while the block goes on; gives what tells that all are written."""
    over, done = threading.Event(), threading.Event()
    if replay is None:
        yield done
        return
    thread = threading.Thread(
        target=_replay, args=(stream, replay, port, windows, over, done), name="replay", daemon=True
    )
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join(5)


def _replay(
    stream: Stream,
    replay: Replay,
    port: int,
    windows: WindowFeatures | None,
    over: threading.Event,
    done: threading.Event,
) -> None:
    from confluent_kafka import Producer

    from components.kafka_clients import properties

    # What waits while the model is loaded would be decided late, and tell nothing of the latency.
    while not ((status := _status(port)) and status["ready"]):
        if over.wait(_PICTURE_SECONDS):
            return
    producer = Producer(properties(stream.servers) | {"linger.ms": 5})
    began = time.monotonic()
    left_out = {*replay.task.labels, *(windows.names if windows else ())}
    for sent, row in enumerate(_rows(replay)):
        event = {name: value for name, value in row.items() if value is not None and name not in left_out}
        value = json.dumps(event, default=str)
        key = stream_history.key_of(row, windows) or str(sent)
        while not _produced(producer, stream.input_topic, value, key):
            if over.is_set():
                return
        ahead = (sent + 1) / replay.rate - (time.monotonic() - began)
        if ahead > 0.005:
            producer.poll(0)
            if over.wait(ahead):
                return
    producer.flush(30)
    done.set()


def _rows(replay: Replay) -> Iterator[dict[str, Any]]:
    """Yields rows of the split, as many as are wanted."""
    left = replay.events or sys.maxsize
    while True:
        for part in sorted(replay.split.glob("*.parquet")):
            for batch in local_parquet(part).iter_batches(_BATCH_ROWS):
                yield from batch.slice(0, left).to_pylist()
                left -= batch.num_rows
                if left <= 0:
                    return


def _produced(producer: Any, topic: str, value: str, key: str) -> bool:
    """Hands an event to the client; False: it holds so many that the broker has not taken yet."""
    try:
        producer.produce(topic, value, key=key)
    except BufferError:
        producer.poll(0.1)
        return False
    return True
