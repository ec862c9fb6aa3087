"""The topology, by Quix Streams: input topic, then for each key a topic with that key and a store, then features topic.

A store is RocksDB on the disk, and a changelog topic in Kafka. What is read, what is written and what a store keeps are
one transaction.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quixstreams import Application, State, message_context
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.models import Topic, TopicConfig
from quixstreams.models.serializers import Serializer

from components.kafka_clients import properties
from components.settings import Stream, WindowFeatures
from components.stream.clients import consuming, producing
from components.stream.windows.enriched import Enriched
from components.stream.windows.steps import Reading, Step
from components.window_features.values import InputColumn

_ROOM_BYTES = 100_000  # of a message, for what is added to it
_ALIKE = ("retention.ms", "retention.bytes", "max.message.bytes")


def build(
    stream: Stream,
    windows: WindowFeatures,
    columns: Mapping[str, InputColumn],
    avro_schema: str,
    *,
    instance: str,
    folder: Path,
    processed: Callable[[str, int, int], None],
    statistics: Callable[[str], None],
) -> Application:
    """Builds the topology; nothing runs yet. Where its group begins, `beginning.begin` has told.

    Args:
        stream: with every name filled in.
        windows: which features.
        columns: their inputs, by name.
        avro_schema: the writer's schema, where the format has one in a file.
        instance: names this process among the group's; the same when it starts again.
        folder: of the stores; what is not there is read from Kafka.
        processed: told of each message of each topic: topic, partition, offset.
        statistics: told once a second what the consumer knows, as JSON.

    Raises:
        InputError: the Avro schema is none, or a client's property makes no sense.
    """
    app = Application(
        broker_address=stream.servers,
        consumer_group=group_of(stream),
        auto_offset_reset="earliest",  # `begin` has told where that is
        processing_guarantee="exactly-once",
        commit_interval=stream.window_commit_ms / 1000,
        commit_every=stream.max_batch_events,
        # A message waits at most so long for its transaction to end.
        consumer_poll_timeout=stream.window_commit_ms / 1000,
        state_dir=folder,
        consumer_extra_config={**_logging_in(stream), **_consumer_properties(stream), "stats_cb": statistics},
        producer_extra_config={**_logging_in(stream), **_producer_properties(stream, instance)},
        on_message_processed=processed,
        loglevel=None,
        broker_availability_timeout=stream.session_seconds * 6,
    )
    reading = Reading(stream, windows, columns, avro_schema)
    steps = [Step(windows, key) for key in dict.fromkeys(tuple(windows.key_of(one)) for one in windows.features)]
    source = app.topic(stream.input_topic, value_deserializer="bytes", key_deserializer="bytes")
    target = app.topic(stream.features_topic, value_serializer=_Value(), key_serializer="bytes")
    keyed = [_keyed_topic(app, source, f"{group_of(stream)}.{step.name}") for step in steps]

    def read(value: Any, key: Any, timestamp: int, headers: Any) -> Enriched:
        at = message_context()
        return reading.read(value, key, headers, (at.topic, at.partition, at.offset))

    frame = app.dataframe(source).apply(read, metadata=True)
    for step, topic in zip(steps, keyed, strict=True):
        frame = frame.set_headers(lambda message, *_: message.between())
        frame.to_topic(topic, key=step.key_of)
        frame = _with_features(app.dataframe(topic), step)
    frame = frame.set_headers(lambda message, *_: message.outside())
    frame.to_topic(target, key=lambda message: message.key)
    return app


def group_of(stream: Stream) -> str:
    """Names the consumer group, and with it the topics that are the topology's own."""
    return f"{stream.group}.windows"


def _keyed_topic(app: Application, source: Topic, name: str) -> Topic:
    """Makes a topic between two steps, unless it is there, with as many partitions and replicas as the input topic."""
    like = source.broker_config
    config = TopicConfig(
        num_partitions=like.num_partitions,
        replication_factor=like.replication_factor,
        extra_config={name: like.extra_config[name] for name in _ALIKE if name in like.extra_config},
    )
    return app.topic(
        name,
        value_deserializer="bytes",
        key_deserializer="bytes",
        value_serializer=_Value(),
        key_serializer="bytes",
        config=config,
    )


def _with_features(frame: StreamingDataFrame, step: Step) -> StreamingDataFrame:
    def parse(value: Any, key: Any, timestamp: int, headers: Any) -> Enriched:
        return Enriched.parse(value, headers)

    def add(message: Enriched, key: Any, timestamp: int, headers: Any, state: State) -> Enriched:
        return step.add(message, state, timestamp)

    return frame.apply(parse, metadata=True).apply(add, metadata=True, stateful=True)


class _Value(Serializer):
    """Writes a message's bytes as they came."""

    def __call__(self, value: Enriched, ctx: Any) -> bytes | None:
        return value.value


def _logging_in(stream: Stream) -> dict[str, Any]:
    told = properties(stream.servers)
    return {name: value for name, value in told.items() if name not in ("bootstrap.servers", "logger")}


def _consumer_properties(stream: Stream) -> dict[str, Any]:
    return consuming(stream) | {"fetch.wait.max.ms": 20, "statistics.interval.ms": 1000}


def _producer_properties(stream: Stream, instance: str) -> dict[str, Any]:
    return producing(stream, group_of(stream), instance) | {
        "message.max.bytes": max(1_000_000, stream.max_event_bytes + _ROOM_BYTES)
    }
