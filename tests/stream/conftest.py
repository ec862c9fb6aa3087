"""A broker, models, and streams that decide in a thread of the test's own process."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.predictor.served_model import read_facts
from components.settings import Stream, WindowFeatures
from components.stream.decisions import Decider
from components.stream.health import Health
from components.stream.metrics import Figures
from components.stream.running import Running
from components.stream.scoring import LocalScorer, Scorer
from pipelines.kafka_broker import Broker
from tests import kafka, kafka_broker
from tests.predictor.conftest import exported


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from kafka_broker.started(tmp_path_factory.mktemp("broker"))


@pytest.fixture(scope="session")
def models() -> Path:
    """A folder with a small model of each task."""
    return exported()


@pytest.fixture(scope="session")
def scorer(models: Path) -> LocalScorer:
    return LocalScorer(read_facts(str(models / "binary")), reasons=2)


@pytest.fixture(scope="session")
def rows(models: Path) -> list[dict[str, Any]]:
    """Raw rows of the binary model."""
    return rows_of(models, "binary")


def rows_of(models: Path, kind: str) -> list[dict[str, Any]]:
    return pq.read_table(models / kind / "rows.parquet").to_pylist()


@dataclass
class Member:
    """One member of a stream's group, in a thread."""

    thread: threading.Thread
    over: threading.Event
    health: Health
    figures: Figures
    next_scorers: list[Scorer] = field(default_factory=list)

    def stop(self) -> None:
        self.over.set()
        self.thread.join(60)
        assert not self.thread.is_alive()

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.thread.is_alive(), "the stream ended"
            assert time.monotonic() < deadline, self.figures.summary()
            time.sleep(0.05)


@dataclass
class Streams:
    """Streams of one test; all end with it."""

    broker: Broker
    scorer: Scorer
    members: list[Member] = field(default_factory=list)

    def settings(self, partitions: int = 4, **changes: Any) -> Stream:
        """Makes topics; gives the settings of a stream between them."""
        names = ("input_topic", "output_topic", "dead_letter_topic")
        made = {name: kafka.new_topic(self.broker, partitions) for name in names if name not in changes}
        short = {"session_seconds": 3, "transaction_seconds": 3, "group": f"group-{uuid.uuid4().hex[:8]}"}
        return Stream.model_validate({"servers": self.broker.servers, **short, **made, **changes})

    def run(
        self,
        stream: Stream,
        scorer: Scorer | None = None,
        avro_schema: str = "",
        windows: WindowFeatures | None = None,
    ) -> Member:
        """Starts a member."""
        figures, over = Figures(stream), threading.Event()
        health = Health(0, 60, figures.summary)
        waiting: list[Scorer] = []
        running = Running(
            stream,
            f"member-{uuid.uuid4().hex[:8]}",
            Decider(stream, avro_schema, windows),
            scorer or self.scorer,
            lambda: waiting.pop(0) if waiting else None,
            health,
            figures,
            over,
        )
        thread = threading.Thread(target=running.run, daemon=True)
        member = Member(thread, over, health, figures, waiting)
        self.members.append(member)
        thread.start()
        return member


@pytest.fixture
def streams(broker: Broker, scorer: LocalScorer) -> Iterator[Streams]:
    made = Streams(broker, scorer)
    yield made
    for member in made.members:
        member.stop()
