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
from components.settings import Stream

_MILLISECONDS_FROM = 1e11  # as seconds, the year 5138


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

    def __init__(self, stream: Stream, avro_schema: str = "") -> None:
        """Takes how they are written.

        Raises:
            InputError: the schema is none.
        """
        self._stream = stream
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
        value, limit = message.value(), self._stream.max_event_bytes
        if not value:
            return "empty", "the message has no value; send an object"
        if len(value) > limit:
            return "too_large", f"the value has {len(value):,} bytes (allowed: {limit:,}); raise stream.max_event_bytes"
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
        return self._event(message, fields)

    def _event(self, message: Any, fields: dict[str, Any]) -> Event | tuple[str, str]:
        stream, written = self._stream, max(message.timestamp()[1], 0)
        name, happened = f"{message.topic()}-{message.partition()}-{message.offset()}", written
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
            return int(value if abs(value) >= _MILLISECONDS_FROM else value * 1000)
    except (ValueError, OverflowError):
        pass
    return None


def now_ms() -> int:
    """Gives the clock's time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
