"""What a stream decides, as somebody sees it who looks at its alerts: how many, which, why, and how many are right.

Decisions are read from the output topic, as any other reader would, so that what is shown is what was committed.
"""

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from components.kafka_clients import properties
from components.settings import Stream

RECENT = 1000
"""Decisions among which alerts are counted against the budget."""
KEPT = 200_000
"""Decisions that are remembered for a picture: the last ones."""
_LAST_ALERTS = 8
_SCORES = ("probability", "anomaly_score")
_POLL_SECONDS = 0.2
_MESSAGES = 1000
_SECONDS = 5


@dataclass(frozen=True)
class Truth:
    """What turns out about events, and when: mostly long after they are decided."""

    positive: Mapping[str, int]
    """By the id of each positive event: when it is reported, although nobody was alerted; ms since 1970."""
    known: frozenset[str]
    """Ids of all events of which anything will be known, positive ones among them."""
    alert_ms: int = 0
    """How long after its event an alert has been looked at."""

    def is_positive(self, decision: "Decision") -> bool | None:
        """Tells what is true of an event; None: it is never known."""
        return decision.id in self.positive if decision.id in self.known else None


@dataclass(frozen=True)
class Decision:
    """What was decided about one event."""

    id: str
    time_ms: int
    """Of the event."""
    score: float
    threshold: float
    fields: Mapping[str, Any]
    """That pass through."""
    reasons: list[dict[str, Any]]

    @property
    def alert(self) -> bool:
        """Whether somebody is alerted."""
        return self.score >= self.threshold

    @classmethod
    def read(cls, value: bytes) -> "Decision | None":
        """Reads a message of the output topic; None: its model has no threshold to reach."""
        told = json.loads(value)
        score = next((told["prediction"][name] for name in _SCORES if name in told["prediction"]), None)
        if score is None or "threshold" not in told:
            return None
        return cls(
            told["event_id"],
            told["event_time_ms"],
            score,
            told["threshold"],
            told.get("event", {}),
            told.get("reasons") or [],
        )


@dataclass(frozen=True)
class Known:
    """What is known at one time."""

    alerts: int = 0
    """That have been looked at."""
    right: int = 0
    reported: int = 0
    """Positive events that raised no alert, and were reported."""


@dataclass
class Alerts:
    """The decisions of a stream so far."""

    truth: Truth | None = None
    decided: int = 0
    alerts: int = 0
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Of the last decisions, whether each was an alert."""
    last: deque[Decision] = field(default_factory=lambda: deque(maxlen=_LAST_ALERTS))
    """Alerts, the newest first."""
    kept: deque[Decision] = field(default_factory=lambda: deque(maxlen=KEPT))
    clock_ms: int = 0
    """The latest time of an event."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a decision is added, or all are looked at."""
    _raised: list[Decision] = field(default_factory=list)
    _missed: list[Decision] = field(default_factory=list)

    def add(self, decision: Decision) -> None:
        """Counts a decision."""
        self.decided += 1
        self.alerts += decision.alert
        self.recent.append(decision.alert)
        self.kept.append(decision)
        self.clock_ms = max(self.clock_ms, decision.time_ms)
        if decision.alert:
            self.last.appendleft(decision)
        positive = self.truth.is_positive(decision) if self.truth else None
        if decision.alert and positive is not None:
            self._raised.append(decision)
        elif positive:
            self._missed.append(decision)

    @property
    def recent_rate(self) -> float:
        """Alerts per 1,000 of the last decisions."""
        return 1000 * sum(self.recent) / len(self.recent) if self.recent else 0.0

    def known(self, at_ms: int | None = None) -> Known:
        """Tells what is known by a time of events, the latest if none is given; of all time: what is true."""
        truth, now = self.truth, self.clock_ms if at_ms is None else at_ms
        if truth is None:
            return Known()
        seen = [alert for alert in self._raised if alert.time_ms + truth.alert_ms <= now]
        return Known(
            alerts=len(seen),
            right=sum(alert.id in truth.positive for alert in seen),
            reported=sum(truth.positive[missed.id] <= now for missed in self._missed),
        )

    def verdict(self, alert: Decision) -> bool | None:
        """Tells whether an alert was right; None: nobody knows yet."""
        if self.truth is None or alert.time_ms + self.truth.alert_ms > self.clock_ms:
            return None
        return self.truth.is_positive(alert)


class Follower:
    """Reads decisions while the block goes on, from the first that is made in it."""

    def __init__(self, stream: Stream, alerts: Alerts) -> None:
        """Takes where decisions are, and who counts them."""
        self._stream, self._alerts = stream, alerts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="decisions", daemon=True)

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Reads what is there, and ends."""
        self._over.set()
        self._thread.join(30)

    def _follow(self) -> None:
        from confluent_kafka import Consumer

        own = {"group.id": f"{self._stream.group}-shown", "enable.auto.commit": False}
        consumer = Consumer(properties(self._stream.servers) | own | {"isolation.level": "read_committed"})
        try:
            if self._assign(consumer):
                self._read(consumer)
        finally:
            consumer.close()

    def _assign(self, consumer: Any) -> bool:
        """Begins at the end of each partition, as soon as the broker and the topic are there; False: it is over."""
        from confluent_kafka import KafkaException, TopicPartition

        topic = self._stream.output_topic
        while not self._over.is_set():
            try:
                found = consumer.list_topics(topic, _SECONDS).topics[topic].partitions
                places = [TopicPartition(topic, number) for number in found]
                for place in places:
                    place.offset = consumer.get_watermark_offsets(place, _SECONDS)[1]
                if places:
                    consumer.assign(places)
                    return True
            except KafkaException:
                pass  # the stream itself says what is wrong
            self._over.wait(1)
        return False

    def _read(self, consumer: Any) -> None:
        over = False
        while not over:
            over = self._over.is_set()
            for message in consumer.consume(_MESSAGES, _POLL_SECONDS):
                over = False  # as long as there are some
                if message.error() is None and (decision := Decision.read(message.value())):
                    with self._alerts.lock:
                        self._alerts.add(decision)
