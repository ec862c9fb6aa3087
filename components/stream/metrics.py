"""What a stream counts: for Prometheus, and for a person who looks."""

import time
from collections import Counter as Count
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from components.predictor.served_model import LABEL
from components.settings import Stream
from components.stream.decisions import SCORES, Batch
from components.stream.events import CODES, now_ms
from components.stream.scoring import Scorer

disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
_PHASES = ("read", "decide", "commit")
_SHARES = tuple(tenth / 10 for tenth in range(1, 11))
_CHOICES = (LABEL, "class", "cluster")

EVENTS = Counter("lockgate_stream_events", "Events whose transaction is committed, by what became of them", ["result"])
REJECTED = Counter("lockgate_stream_rejected", "Events that went to the dead-letter topic", ["reason"])
DECISIONS = Counter("lockgate_stream_decisions", "Decisions by class, or cluster", ["name"])
PREDICTIONS = Histogram("lockgate_stream_predictions", "Decisions by probability, or anomaly score", buckets=_SHARES)
LATENCY = Histogram("lockgate_stream_latency_seconds", "From the message to its committed decision", buckets=_LATENCY)
PHASE = Histogram("lockgate_stream_batch_seconds", "Time of a batch, by phase", ["phase"], buckets=_LATENCY)
BATCH = Histogram("lockgate_stream_batch_events", "Events of a batch", buckets=_EVENTS)
LAG = Gauge("lockgate_stream_lag", "Messages behind what was read", ["partition"])
ODD = Counter("lockgate_stream_odd_events", "Events that are decided and noted", ["what"])
ABORTED = Counter("lockgate_stream_aborted_batches", "Batches that were taken back and came again")
LOST = Counter("lockgate_stream_lost_sessions", "Sessions with the broker that had to be begun anew")
RETRIES = Counter("lockgate_stream_retries", "Batches that waited for the model server or the schema registry")
SWAPS = Counter("lockgate_stream_model_swaps", "Models that took over while the stream ran")
MODEL = Gauge("lockgate_stream_model", "1, and which model decides", ["name", "version"])

ODDITIES = ("duplicate", "late", "future", "unknown_field")
RECENT_SECONDS = 10.0
_LATENCY_STEPS = np.geomspace(1e-3, 3600, 1000)
"""Seconds, each 1.5 % more than the one before: latencies of all events are told that exactly."""


class Figures:
    """Counts, and what is true of the last seconds."""

    def __init__(self, stream: Stream) -> None:
        """Makes the counters, at 0, so that a rate has a start."""
        self._stream = stream
        self._recent: deque[tuple[float, np.ndarray[Any, Any]]] = deque()
        self._started = time.monotonic()
        self._latencies = np.zeros(len(_LATENCY_STEPS) + 1, np.int64)
        self.rejected: Count[str] = Count()
        self.decided = 0
        self.classes: Count[str] = Count()
        self.odd: Count[str] = Count()
        self.lags: dict[int, int] = {}
        self.model = ""
        for result in ("decided", "rejected", "dropped"):
            EVENTS.labels(result)
        for reason in CODES:
            REJECTED.labels(reason)
        for what in ODDITIES:
            ODD.labels(what)

    def deciding(self, scorer: Scorer) -> None:
        """Notes which model decides."""
        if self.model != f"{scorer.name} {scorer.version}":
            self.model = f"{scorer.name} {scorer.version}"
            MODEL.clear()
            MODEL.labels(scorer.name, scorer.version).set(1)

    def committed(self, batch: Batch, unknown_fields: int, seconds: Mapping[str, float]) -> None:
        """Counts a batch whose transaction stands.

        Args:
            batch: of events.
            unknown_fields: its events with a field that is not known.
            seconds: that each phase took.
        """
        now = now_ms()
        for phase in _PHASES:
            PHASE.labels(phase).observe(seconds[phase])
        BATCH.observe(len(batch.decided) + len(batch.rejections) + len(batch.dropped))
        for result, count in (("rejected", batch.rejections), ("dropped", batch.dropped), ("decided", batch.decided)):
            EVENTS.labels(result).inc(len(count))
        for rejection in batch.rejections:
            REJECTED.labels(rejection.code).inc()
            self.rejected[rejection.code] += 1
        self._count_odd(batch, now, unknown_fields)
        if batch.decided:
            self.decided += len(batch.decided)
            self._count_outputs(batch)
            written = np.array([event.timestamp_ms for event in batch.decided], np.float64)
            latencies = np.maximum(now - written, 0) / 1000
            for latency in latencies.tolist():
                LATENCY.observe(latency)
            self._recent.append((time.monotonic(), latencies))
            steps = np.searchsorted(_LATENCY_STEPS, latencies)
            self._latencies += np.bincount(steps, minlength=len(self._latencies))
        self._forget()

    def behind(self, lags: Mapping[int, int]) -> None:
        """Notes the lag of each partition that this member has."""
        for partition in self.lags.keys() - lags.keys():
            LAG.remove(str(partition))
        self.lags = dict(lags)
        for partition, lag in lags.items():
            LAG.labels(str(partition)).set(lag)

    def summary(self) -> dict[str, Any]:
        """Gives what a person wants to see: of the last seconds, and of all since the start."""
        self._forget()
        recent = list(self._recent)
        latencies = np.concatenate([latencies for _, latencies in recent]) if recent else np.empty(0)
        over = min(RECENT_SECONDS, time.monotonic() - self._started)
        p50, p99 = (np.quantile(latencies, (0.5, 0.99)) * 1000).tolist() if len(latencies) else (None, None)
        return {
            "model": self.model,
            "events_per_second": len(latencies) / over if over else 0.0,
            "p50_ms": p50,
            "p99_ms": p99,
            "p50_ms_of_all": self._latency_of_all(0.5),
            "p99_ms_of_all": self._latency_of_all(0.99),
            "lag": sum(self.lags.values()),
            "partitions": sorted(self.lags),
            "decided": self.decided,
            "classes": dict(self.classes.copy()),
            "rejected": dict(self.rejected.copy()),
            "odd": dict(self.odd.copy()),
        }

    def _latency_of_all(self, share: float) -> float | None:
        """Gives a quantile of all latencies so far, in milliseconds; None: there are none."""
        counts = np.cumsum(self._latencies)
        if not counts[-1]:
            return None
        step = min(int(np.searchsorted(counts, share * counts[-1])), len(_LATENCY_STEPS) - 1)
        return float(_LATENCY_STEPS[step] * 1000)

    def _count_odd(self, batch: Batch, now: int, unknown_fields: int) -> None:
        oldest, newest = now - self._stream.late_seconds * 1000, now + self._stream.future_seconds * 1000
        counts = Count(
            duplicate=sum(event.duplicate for event in batch.decided) + len(batch.dropped),
            late=sum(event.time_ms < oldest for event in batch.decided),
            future=sum(event.time_ms > newest for event in batch.decided),
            unknown_field=unknown_fields,
        )
        for what, count in counts.items():
            if count:
                ODD.labels(what).inc(count)
                self.odd[what] += count

    def _count_outputs(self, batch: Batch) -> None:
        chosen = next((batch.outputs[name] for name in _CHOICES if name in batch.outputs), None)
        if chosen is not None:
            for name, count in Count(chosen.tolist()).items():
                DECISIONS.labels(name.decode(errors="replace")).inc(count)
                self.classes[name.decode(errors="replace")] += count
        for share in batch.outputs.keys() & set(SCORES):
            for value in batch.outputs[share].tolist():
                PREDICTIONS.observe(value)

    def _forget(self) -> None:
        oldest = time.monotonic() - RECENT_SECONDS
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
