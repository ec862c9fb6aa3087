"""A real Kafka broker for tests: by Java and the archives of tools/kafka/jars.lock, or a skip that says what lacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import LockgateError
from pipelines.kafka_broker import Broker


def started(folder: Path) -> Iterator[Broker]:
    """Runs a broker; skips where it cannot run."""
    try:
        broker = Broker(folder)
    except LockgateError as error:
        pytest.skip(f"no Kafka broker: {error}")
    broker.start()
    yield broker
    broker.kill()
