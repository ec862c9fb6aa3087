"""Events: what messages hold, and why some of them cannot be decided."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from components.event_formats import AvroDecoder, EventFormatError
from components.predictor.faults import RequestError, shown
from components.predictor.requests import parse_json
from components.settings import Stream, WindowFeatures
from components.window_features.values import MILLISECONDS_FROM

PREFIX = "lockgate-"
"""Of the headers that are ours."""
TOPIC, PARTITION, OFFSET = f"{PREFIX}topic", f"{PREFIX}partition", f"{PREFIX}offset"
"""Headers of dead letters and of the features topic: where a message came from."""
FEATURES, FAULT = f"{PREFIX}window-features", f"{PREFIX}window-fault"
"""Headers of the features topic: window features as JSON, or why there are none."""
ORIGINAL_BYTES = f"{PREFIX}original-bytes"
"""Header of a message of which not all bytes were kept: how many there were."""


@dataclass(slots=True)
class Event:
    """A message that holds an object."""

    message: Any
    """As the client gives it."""
    fields: dict[str, Any]
    id: str
    timestamp_ms: int
    """When the message was written; 0: unknown."""
    time_ms: int
    """When it happened, by its own field where there is one."""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that cannot be decided."""

    message: Any
    code: str
    """One of CODES."""
    says: str
    """What is wrong, and what would be right."""


CODES = ("empty", "too_large", "malformed", "unknown_field", "invalid", "refused", "undeliverable")
"""Why an event is rejected. empty: no value. malformed: not in its format, or no object. invalid: a field is not what
the model takes. refused: the model itself gives no prediction. undeliverable: the broker does not take the decision."""


class Reader:
    """Turns messages into events."""

    def __init__(self, stream: Stream, avro_schema: str = "", windows: WindowFeatures | None = None) -> None:
        """Takes how they are written.

        Args:
            stream: with every name filled in.
            avro_schema: the writer's schema, where the format has one in a file.
            windows: features that come in a header; None: none do.

        Raises:
            InputError: the schema is none.
        """
        self._stream = stream
        self._windows = windows
        self._decode: Callable[[bytes], Any] = (
            AvroDecoder(stream.format, avro_schema) if stream.format.type == "avro" else orjson.loads
        )

    def read(self, messages: Sequence[Any]) -> tuple[list[Event], list[Rejection]]:
        """Reads messages, in their order.

        Raises:
            UnavailableError: the schema registry does not answer.
        """
        events: list[Event] = []
        rejections: list[Rejection] = []
        for message in messages:
            read = self._read(message)
            if isinstance(read, Event):
                events.append(read)
            else:
                rejections.append(Rejection(message, *read))
        return events, rejections

    def _read(self, message: Any) -> Event | tuple[str, str]:
        fields = self.fields(message.value(), original_bytes(message) if self._windows else None)
        if isinstance(fields, tuple):
            return fields
        if self._windows:
            fault = _add_features(message, fields)
            if fault:
                return "invalid", fault
        return self._event(message, fields)

    def fields(self, value: bytes | None, size: int | None = None) -> dict[str, Any] | tuple[str, str]:
        """Reads the value of a message.

        Args:
            value: its bytes.
            size: how many there were, if these are the first ones only.

        Returns:
            The fields of an event, or why it is none: one of CODES, and what is wrong.

        Raises:
            UnavailableError: the schema registry does not answer.
        """
        limit = self._stream.max_event_bytes
        if not value:
            return "empty", "the message has no value; send an object"
        if size is not None or len(value) > limit:
            size = size or len(value)
            return "too_large", f"the value has {size:,} bytes (allowed: {limit:,}); raise stream.max_event_bytes"
        try:
            fields = self._decode(value)
        except EventFormatError as error:
            return "malformed", str(error)
        except orjson.JSONDecodeError:
            try:
                fields = parse_json(value, "the value")
            except RequestError as error:
                return "malformed", str(error)
        if type(fields) is not dict:
            return "malformed", f"the value is {shown(fields)}; send an object: {{feature: value, …}}"
        return fields

    def _event(self, message: Any, fields: dict[str, Any]) -> Event | tuple[str, str]:
        stream, written = self._stream, max(message.timestamp()[1], 0)
        name, happened = "-".join(map(str, origin(message, self._windows is not None))), written
        if stream.event_id:
            given = fields.get(stream.event_id)
            if not isinstance(given, str | int) or isinstance(given, bool) or given == "":
                return "invalid", f"event_id '{stream.event_id}' is {shown(given)}; give text or an integer"
            name = str(given)
        if stream.event_time:
            found = milliseconds(fields.get(stream.event_time))
            if found is None:
                says = f"is {shown(fields.get(stream.event_time))}; give ISO 8601 text, or seconds since 1970"
                return "invalid", f"event_time '{stream.event_time}' {says}"
            happened = found
        return Event(message, fields, name, written, happened)


def origin(message: Any, is_enriched: bool) -> tuple[str, int, int]:
    """Tells where a message came from: topic, partition and offset.

    Args:
        message: as the client gives it.
        is_enriched: it is of the features topic; its headers tell.
    """
    if is_enriched:
        told = dict(message.headers() or [])
        try:
            return told[TOPIC].decode(), int(told[PARTITION]), int(told[OFFSET])
        except (KeyError, ValueError, AttributeError):
            pass
    return message.topic(), message.partition(), message.offset()


def original_bytes(message: Any) -> int | None:
    """Tells how many bytes a message of the features topic had before; None: it has all."""
    size = dict(message.headers() or []).get(ORIGINAL_BYTES)
    return int(size) if size and size.isdigit() else None


def _add_features(message: Any, fields: dict[str, Any]) -> str:
    """Takes window features into the fields; gives what is wrong."""
    told = dict(message.headers() or [])
    try:
        if FAULT in told:
            return str(told[FAULT].decode())
        fields.update(orjson.loads(told[FEATURES]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return f"the message has no header {FEATURES}; send events to the input topic, not to that of their features"
    return ""


def milliseconds(value: Any) -> int | None:
    """Reads a time as milliseconds since 1970: ISO 8601 text (UTC where no zone is said), seconds or milliseconds.

    Returns:
        None: it is no time.
    """
    try:
        if isinstance(value, str):
            read = datetime.fromisoformat(value)
            return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value if abs(value) >= MILLISECONDS_FROM else value * 1000)
    except (ValueError, OverflowError):
        pass
    return None


def now_ms() -> int:
    """Gives the clock's time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
