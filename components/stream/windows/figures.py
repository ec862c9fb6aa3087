"""What is counted of window features: for Prometheus, and for a person who looks."""

import time
from collections import deque
from typing import Any

from prometheus_client import Counter, Gauge, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

MESSAGES = Counter("lockgate_windows_messages", "Messages read, those of the topics between keys as well")
LAG = Gauge("lockgate_windows_lag", "Messages behind what was read", ["topic", "partition"])
LOST = Counter("lockgate_windows_lost_sessions", "Sessions with the broker that had to be begun anew")

_RECENT_SECONDS = 10.0


class Figures:
    """Counts, and what is true of the last seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._lags: dict[tuple[str, str], int] = {}

    def processed(self, topic: str, partition: int, offset: int) -> None:
        """Counts a message."""
        self._count += 1
        MESSAGES.inc()

    def lost(self) -> None:
        """Counts a session that had to be begun anew."""
        LOST.inc()

    def behind(self, statistics: dict[str, Any]) -> None:
        """Notes lags, of what librdkafka tells of a consumer once a second."""
        found = {
            (name, number): partition["consumer_lag"]
            for name, topic in statistics.get("topics", {}).items()
            for number, partition in topic["partitions"].items()
            if partition.get("consumer_lag", -1) >= 0 and not name.startswith("changelog__")
        }
        for gone in self._lags.keys() - found.keys():
            LAG.remove(*gone)
        for (name, number), lag in found.items():
            LAG.labels(name, number).set(lag)
        self._lags = found
        now = time.monotonic()
        self._recent.append((now, self._count))
        while now - self._recent[0][0] > _RECENT_SECONDS:
            self._recent.popleft()

    def summary(self) -> dict[str, Any]:
        """Gives what a person wants to see."""
        recent = list(self._recent)
        seconds = recent[-1][0] - recent[0][0] if recent else 0.0
        return {
            "messages": self._count,
            "messages_per_second": (recent[-1][1] - recent[0][1]) / seconds if seconds else 0.0,
            "lag": sum(self._lags.values()),
        }
