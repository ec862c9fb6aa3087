"""What was before the events of a replay: window features look back into it, as they did when the model learnt."""

import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import LockgateError
from components.parquet_files import local_parquet
from components.settings import Stream, WindowFeatures
from components.stream.windows.beginning import begin
from components.window_features.values import InputColumn, Inputs

_PATIENCE_SECONDS = 1.0

Row = dict[str, Any]


def before(split: Path, windows: WindowFeatures, columns: Mapping[str, InputColumn]) -> list[Row]:
    """Gives the rows of the train split that the first rows of another one may see, in the order of their times.

    Args:
        split: folder of the split that is replayed; the train split lies beside it.
        windows: which features.
        columns: what they are made of, by name.

    Returns:
        Only these columns.
    """
    inputs = Inputs(windows, columns)
    first = min((time for time, _ in _timed(split, inputs, [windows.time])), default=None)
    if first is None:
        return []
    earliest = first - int(windows.look_back.total_seconds() * 1000)
    rows = [
        (time, row) for time, row in _timed(split.parent / "train", inputs, windows.inputs) if earliest < time < first
    ]
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _timed(split: Path, inputs: Inputs, names: Sequence[str]) -> list[tuple[int, Row]]:
    found = []
    for part in sorted(split.glob("*.parquet")):
        for batch in local_parquet(part).iter_batches(columns=list(names)):
            for row in batch.to_pylist():
                time, _ = inputs.read(row)
                if time is not None:
                    found.append((time, row))
    return found


def key_of(row: Mapping[str, Any], windows: WindowFeatures | None) -> str | None:
    """Gives the key of an event's message: with window features theirs, which keeps its events in their order."""
    if windows is None:
        return None
    return json.dumps([row.get(name) for name in windows.key_of(windows.features[0])])


def fill(stream: Stream, windows: WindowFeatures, rows: Sequence[Row], process: "subprocess.Popen[bytes]") -> None:
    """Sends rows through the process that gives window features, and lets the stream begin behind them.

    Args:
        stream: with every name filled in; the topics are there, and nothing decides yet.
        windows: which features.
        rows: as `before` gives them.
        process: that gives the features.

    Raises:
        LockgateError: the process ends.
    """
    from confluent_kafka import Consumer, Producer

    from components.kafka_clients import properties

    told = properties(stream.servers)
    producer = Producer(told | {"linger.ms": 5, "queue.buffering.max.messages": len(rows) + 1})
    for row in rows:
        event = {name: value for name, value in row.items() if value is not None}
        producer.produce(stream.input_topic, json.dumps(event, default=str), key=key_of(row, windows))
    producer.flush()
    consumer = Consumer(
        told
        | {"group.id": f"lockgate-{uuid.uuid4().hex}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    try:
        consumer.subscribe([stream.features_topic])
        left = len(rows)
        while left > 0:
            left -= sum(not message.error() for message in consumer.consume(1000, _PATIENCE_SECONDS))
            if process.poll() is not None:
                raise LockgateError("the process that gives window features has ended; its last line says why")
    finally:
        consumer.close()
    begin(stream.model_copy(update={"input_topic": stream.features_topic, "start": "latest"}), stream.group)
