"""Topics, events and decisions on a real broker, for tests of several environments."""

import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipelines.kafka_broker import Broker

QUIET = {"log_level": 0, "error_cb": lambda error: None}


def new_topic(broker: Broker, partitions: int = 4, **options: str) -> str:
    """Makes an empty topic; gives its name."""
    name = f"topic-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": broker.servers, **QUIET})
    for made in admin.create_topics([NewTopic(name, partitions, 1, config=options)]).values():
        made.result(30)
    return name


def send(broker: Broker, topic: str, messages: Iterable[dict[str, Any]], **options: Any) -> None:
    """Writes messages, given as `Producer.produce` takes them; a value that is no bytes as JSON."""
    producer = Producer({"bootstrap.servers": broker.servers, "linger.ms": 5, **QUIET, **options})
    for message in messages:
        value = message.get("value")
        raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        while True:
            try:
                producer.produce(topic, **{**message, "value": raw})
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def committed(broker: Broker, topic: str) -> list[Any]:
    """Reads all that is committed to a topic, partition by partition, each in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.servers,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **QUIET,
        }
    )
    found = []
    for partition in sorted(consumer.list_topics(topic, 30).topics[topic].partitions):
        consumer.assign([TopicPartition(topic, partition, 0)])
        while True:
            message = consumer.poll(10)
            assert message is not None, f"partition {partition} of {topic} does not come to its end"
            if message.error():
                break
            found.append(message)
    consumer.close()
    return found


def wait_for(broker: Broker, topic: str, count: int, seconds: float = 90) -> list[Any]:
    """Waits until a topic holds so many committed messages; gives them, and those beyond."""
    deadline = time.monotonic() + seconds
    while True:
        found = committed(broker, topic)
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{topic} has {len(found)} of {count} messages"
        time.sleep(0.2)


def observed(broker: Broker, topic: str, count: int, seconds: float = 600) -> list[tuple[Any, float]]:
    """Reads what is committed as it comes, until so many came; gives messages, and when each was here (ms)."""
    observer = Consumer(
        {
            "bootstrap.servers": broker.servers,
            "group.id": f"observer-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
        }
    )
    observer.subscribe([topic])
    found: list[tuple[Any, float]] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        first = observer.poll(1)
        if first is not None:
            batch = [first, *observer.consume(5000, 0)]
            now = time.time() * 1000
            found += [(message, now) for message in batch if not message.error()]
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came to {topic}"
    observer.close()
    return found


def headers(message: Any) -> dict[str, str]:
    """Gives the headers of a message as text."""
    return {name: (value or b"").decode() for name, value in message.headers() or []}
