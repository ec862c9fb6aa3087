"""Micro-batches: messages become decisions and dead letters, records that go out in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.predictor.faults import RowError, shown
from components.predictor.responses import as_json, as_rows
from components.rows import Arrays
from components.settings import Stream, WindowFeatures
from components.stream.events import (
    OFFSET,
    ORIGINAL_BYTES,
    PARTITION,
    PREFIX,
    TOPIC,
    Event,
    Reader,
    Rejection,
    now_ms,
    origin,
    original_bytes,
)
from components.stream.scoring import Scorer
from components.stream.validation import Validator

SCORES = ("probability", "anomaly_score")
"""Outputs that reach a threshold or do not."""
_MOST_REASON_BYTES = 500


@dataclass(frozen=True, slots=True)
class Record:
    """A message to write."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    source: Any
    """The message that it comes from."""


@dataclass
class Batch:
    """What becomes of some messages."""

    records: list[Record] = field(default_factory=list)
    decided: list[Event] = field(default_factory=list)
    outputs: Arrays = field(default_factory=dict)
    """Of the decided events."""
    rejections: list[Rejection] = field(default_factory=list)
    dropped: list[Event] = field(default_factory=list)
    """Duplicates that are not decided again."""


class Decider:
    """Decides the events of one stream."""

    def __init__(self, stream: Stream, avro_schema: str = "", windows: WindowFeatures | None = None) -> None:
        """Takes how events are read.

        Args:
            stream: with every name filled in.
            avro_schema: the writer's schema, where the format has one in a file.
            windows: features that messages bring in a header, as components.stream.windows writes them.
        """
        self._stream = stream
        self._reader = Reader(stream, avro_schema, windows)
        self._is_enriched = windows is not None
        named = (stream.event_id, stream.event_time, *stream.pass_through)
        self._known_fields = {name for name in named if name}
        if windows:
            self._known_fields.update(windows.names, windows.inputs)
        self._validators: dict[int, tuple[Scorer, Validator]] = {}
        self._undeliverable: dict[tuple[int, int], list[str]] = {}
        self.unknown_fields = 0
        """Events so far with a field that is not known."""

    def read(self, messages: Sequence[Any]) -> tuple[list[Event], list[Rejection]]:
        """Reads messages.

        Raises:
            UnavailableError: a schema registry does not answer.
        """
        return self._reader.read(messages)

    def undeliverable(self, message: Any, says: str) -> None:
        """Notes that the broker does not take what comes of a message, which comes again."""
        self._undeliverable.setdefault((message.partition(), message.offset()), []).append(says)

    def settled(self) -> None:
        """Forgets what was noted: the messages are committed."""
        self._undeliverable.clear()

    def decide(self, events: Sequence[Event], rejections: Sequence[Rejection], scorer: Scorer) -> Batch:
        """Decides events, and makes dead letters of the others.

        Raises:
            UnavailableError: the model server does not answer.
        """
        batch = Batch(rejections=list(rejections))
        if self._undeliverable:
            events = self._without_undeliverable(events, batch)
        validator = self._validator(scorer)
        before = validator.unknown
        valid, arrays, invalid = validator.check(events)
        self.unknown_fields += validator.unknown - before
        batch.rejections += invalid
        if valid:
            self._predict(valid, arrays, scorer, batch)
        batch.rejections.sort(key=lambda rejection: (rejection.message.partition(), rejection.message.offset()))
        batch.records += [self._dead_letter(rejection) for rejection in batch.rejections]
        return batch

    def _validator(self, scorer: Scorer) -> Validator:
        held = self._validators.get(id(scorer))
        if held is None or held[0] is not scorer:
            validator = Validator(scorer.inputs, self._known_fields, self._stream.unknown_fields == "reject")
            held = (scorer, validator)
            self._validators = {id(scorer): held}
        return held[1]

    def _without_undeliverable(self, events: Sequence[Event], batch: Batch) -> list[Event]:
        kept = []
        for event in events:
            says = self._undeliverable.get((event.message.partition(), event.message.offset()))
            if says is None:
                kept.append(event)
            else:
                batch.rejections.append(Rejection(event.message, "undeliverable", says[0]))
        return kept

    def _predict(self, events: list[Event], arrays: Arrays, scorer: Scorer, batch: Batch) -> None:
        while events:
            try:
                outputs = scorer.predict(arrays)
                break
            except RowError as error:
                batch.rejections.append(Rejection(events[error.row].message, "refused", error.says))
                events, arrays = _without(error.row, events, arrays)
        else:
            return
        finite = np.ones(len(events), bool)
        for output in scorer.outputs:
            if output.dtype == "float32":
                finite &= np.isfinite(outputs[output.name]).reshape(len(events), -1).all(1)
                if not finite.all():
                    says = f"the model gives no finite {output.name} for it; check its values"
                    batch.rejections += [
                        Rejection(events[row].message, "refused", says) for row in np.flatnonzero(~finite)
                    ]
                    events = [events[row] for row in np.flatnonzero(finite)]
                    arrays = {name: values[finite] for name, values in arrays.items()}
                    outputs = {name: values[finite] for name, values in outputs.items()}
                    finite = np.ones(len(events), bool)
        if events:
            batch.decided, batch.outputs = events, outputs
            batch.records += self._decisions(events, arrays, outputs, scorer)

    def _decisions(self, events: Sequence[Event], arrays: Arrays, outputs: Arrays, scorer: Scorer) -> Iterable[Record]:
        stream, decided_ms = self._stream, now_ms()
        reasons = self._reasons(arrays, outputs, scorer)
        version = scorer.version.encode()
        records = []
        for index, (event, prediction) in enumerate(zip(events, as_rows(outputs, scorer.outputs), strict=True)):
            message, (topic, partition, offset) = event.message, origin(event.message, self._is_enriched)
            decision = {
                "event_id": event.id,
                "model": scorer.name,
                "version": scorer.version,
                "prediction": prediction,
                "event_time_ms": event.time_ms,
                "decided_at_ms": decided_ms,
                "source": {"topic": topic, "partition": partition, "offset": offset},
            }
            if scorer.threshold is not None:
                decision["threshold"] = scorer.threshold
            if event.duplicate:
                decision["duplicate"] = True
            if index in reasons:
                decision["reasons"] = reasons[index]
            if stream.pass_through:
                decision["event"] = {name: event.fields.get(name) for name in stream.pass_through}
            headers = [(f"{PREFIX}event-id", event.id.encode(errors="replace")), (f"{PREFIX}model-version", version)]
            records.append(Record(stream.output_topic, message.key(), _spelled(decision), headers, message))
        return records

    def _reasons(self, arrays: Arrays, outputs: Arrays, scorer: Scorer) -> dict[int, Any]:
        """Gives the reasons of those decisions that have some, by their number."""
        if not self._stream.reasons:
            return {}
        rows = np.arange(len(next(iter(arrays.values()))))
        score = next((outputs[name] for name in SCORES if name in outputs), None)
        if self._stream.reasons_for == "positive" and score is not None and scorer.threshold is not None:
            rows = np.flatnonzero(score >= np.float32(scorer.threshold))
            if not len(rows):
                return {}
        found = scorer.reasons({name: values[rows] for name, values in arrays.items()})
        return dict(zip(rows.tolist(), found, strict=True))

    def _dead_letter(self, rejection: Rejection) -> Record:
        message, limit = rejection.message, self._stream.max_event_bytes
        (topic, partition, offset), value, key = origin(message, self._is_enriched), message.value(), message.key()
        headers = [
            (f"{PREFIX}reason", rejection.code.encode()),
            (f"{PREFIX}message", rejection.says.encode(errors="replace")[:_MOST_REASON_BYTES]),
            (TOPIC, topic.encode()),
            (PARTITION, str(partition).encode()),
            (OFFSET, str(offset).encode()),
            (f"{PREFIX}timestamp-ms", str(message.timestamp()[1]).encode()),
        ]
        given = [(name, content) for name, content in message.headers() or [] if not name.startswith(PREFIX)]
        refused = len(self._undeliverable.get((message.partition(), message.offset()), []))
        if refused > (rejection.code == "undeliverable"):
            limit = 0  # the dead letter was too large, too: the message's place must do
        size = len(value or b"") + len(key or b"") + sum(len(name) + len(content or b"") for name, content in given)
        whole = original_bytes(message) if self._is_enriched else None
        if size > limit or whole:
            headers.append((ORIGINAL_BYTES, str(whole or len(value or b"")).encode()))
            value, key, given = (value or b"")[:limit], key if len(key or b"") <= limit // 2 else None, []
        return Record(self._stream.dead_letter_topic, key, value, [*given, *headers], message)


def _spelled(decision: dict[str, Any]) -> bytes:
    try:
        return as_json(decision)
    except TypeError:
        # What is passed through may be bytes, or an integer of more than 64 bits, which JSON's parsers do not take.
        decision["event"] = {name: _as_text(value) for name, value in decision["event"].items()}
        return as_json(decision)


def _as_text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return shown(value)


def _without(row: int, events: list[Event], arrays: Arrays) -> tuple[list[Event], Arrays]:
    return [*events[:row], *events[row + 1 :]], {name: np.delete(values, row) for name, values in arrays.items()}
