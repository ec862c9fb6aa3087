"""Metrics for Prometheus, at /metrics."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from components.model_spec import ModelSpec, classes_of
from components.predictor.columns import is_missing
from components.predictor.served_model import LABEL, Facts
from components.rows import Arrays, marker

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the size of a scrape

_LATENCY = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_NUMBERS = {"binary": "probability", "regression": "value", "anomaly_detection": "anomaly_score"}
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
_SHARES = tuple(tenth / 10 for tenth in range(1, 11))
PHASES = ("decode", "queue", "predict", "encode")

REQUESTS = Counter("lockgate_requests", "Requests for predictions", ["protocol", "code"])
ROWS = Counter("lockgate_rows", "Rows predicted", ["protocol"])
SECONDS = Histogram("lockgate_request_seconds", "Time of a request, by phase", ["protocol", "phase"], buckets=_LATENCY)
BATCH_ROWS = Histogram("lockgate_batch_rows", "Rows predicted in one call of the model", buckets=_ROWS)
EXPLANATIONS = Counter("lockgate_explanations", "Requests for explanations", ["code"])
EXPLAINED_ROWS = Counter("lockgate_explained_rows", "Rows explained")
EXPLANATION_SECONDS = Histogram("lockgate_explanation_seconds", "Time of a request for explanations", buckets=_LATENCY)
QUEUE = Gauge("lockgate_queue_requests", "Requests that wait for the model")
IN_FLIGHT = Gauge("lockgate_in_flight_requests", "Requests that are read, predicted or answered")
MODEL = Gauge("lockgate_model", "1, and which model is served", ["name", "version", "digest"])
LOGGED = Counter("lockgate_request_log_rows", "Rows for the request log", ["result"])
LOG_FAILURES = Counter("lockgate_request_log_failures", "Files of the request log that could not be written")
MISSING = Counter("lockgate_missing_values", "Rows without a value", ["feature"])
UNKNOWN = Counter("lockgate_out_of_vocabulary", "Rows with a value that the model does not know", ["feature"])
CLASSES = Counter("lockgate_predicted_classes", "Rows by predicted class, or cluster", ["name"])


class RowMetrics:
    """What came in and what came out, for seeing a change of the data."""

    def __init__(self, facts: Facts) -> None:
        """Makes the counters, at 0, so that a rate has a start."""
        self._spec: ModelSpec = facts.spec
        self._missing = {i.name: MISSING.labels(i.name) for i in facts.spec.inputs if not i.required}
        self._vocabularies: Mapping[str, frozenset[object]] = {
            name: frozenset(map(_as_value(facts.by_name[name].dtype), values)) | {marker(facts.by_name[name].dtype)}
            for name, values in facts.vocabularies.items()
        }
        self._unknown = {name: UNKNOWN.labels(name) for name in self._vocabularies}
        kind = facts.spec.label.kind
        self._class_output = LABEL if facts.threshold is not None else "cluster" if kind == "clustering" else "class"
        self._classes = (
            {name.encode(): CLASSES.labels(name) for name in classes_of(facts.spec)}
            if kind in ("multiclass", "clustering") or facts.threshold is not None
            else {}
        )
        self._number = _NUMBERS.get(kind)
        self._predictions: Histogram | None = None
        if self._number:
            self._bounds = _buckets(facts.label_range) if kind == "regression" else _SHARES
            self._predictions = Histogram(
                "lockgate_predictions", f"Predicted rows by {self._number}", buckets=self._bounds
            )
        MODEL.labels(facts.name, facts.version, facts.spec.weights_digest[:12]).set(1)

    def count(self, arrays: Arrays, outputs: Arrays) -> None:
        """Counts the rows of one answer."""
        for i in self._spec.inputs:
            values = arrays[i.name]
            if i.name in self._missing and (missing := int(np.count_nonzero(is_missing(i.dtype, values)))):
                self._missing[i.name].inc(missing)
            vocabulary = self._vocabularies.get(i.name)
            if vocabulary is not None and (unknown := sum(value not in vocabulary for value in values.tolist())):
                self._unknown[i.name].inc(unknown)
        if self._predictions is not None and self._number:
            for value in outputs[self._number].tolist():
                self._predictions.observe(value)
        if self._classes:
            for value in outputs[self._class_output].tolist():
                self._classes[value].inc()


def _as_value(dtype: str) -> Callable[[str], object]:
    return (lambda text: text.encode()) if dtype == "string" else _integer


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _buckets(bounds: tuple[float, float] | None) -> tuple[float, ...]:
    """Gives ten buckets over the labels of the training data; without statistics, powers of ten."""
    if bounds is None or not all(map(math.isfinite, bounds)):
        return (*(-(10.0**power) for power in range(6, -1, -1)), 0.0, *(10.0**power for power in range(7)))
    low, high = bounds
    return tuple(low + (high - low) * tenth / 10 for tenth in range(11))
