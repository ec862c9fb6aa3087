"""What happens to a message between two topics: it is read, and gets the features of one key after another."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

import orjson

from components.settings import Stream, WindowFeatures
from components.stream.events import OFFSET, ORIGINAL_BYTES, PARTITION, PREFIX, TOPIC, Reader
from components.stream.windows.enriched import Enriched, Headers
from components.window_features.history import History, Store
from components.window_features.values import InputColumn, Inputs, ValueFaultError

NO_EVENT = "the value is no event"
"""Fault of what the stream that decides refuses by itself, and says why."""


class Reading:
    """Reads messages of the input topic."""

    def __init__(
        self, stream: Stream, windows: WindowFeatures, columns: Mapping[str, InputColumn], avro_schema: str
    ) -> None:
        """Takes how they are written.

        Raises:
            InputError: the Avro schema is none.
        """
        self._reader = Reader(stream, avro_schema)
        self._inputs = Inputs(windows, columns)
        self._limit = stream.max_event_bytes

    def read(
        self, value: bytes | None, key: bytes | None, headers: Headers | None, origin: tuple[str, int, int]
    ) -> Enriched:
        """Reads a message.

        Args:
            value: its bytes.
            key: its key.
            headers: its headers; those of ours are dropped: somebody sends a dead letter again.
            origin: topic, partition and offset.

        Raises:
            UnavailableError: the schema registry does not answer.
        """
        given = [(name, content) for name, content in headers or [] if not name.startswith(PREFIX)]
        topic, partition, offset = origin
        place: list[tuple[str, bytes | None]] = [
            (TOPIC, topic.encode()),
            (PARTITION, str(partition).encode()),
            (OFFSET, str(offset).encode()),
        ]
        size = len(value or b"") + len(key or b"") + sum(len(name) + len(content or b"") for name, content in given)
        if size > self._limit:
            # Whole, it might not fit into a message with what we add: as much is kept as a dead letter keeps.
            given = []
            key = key if len(key or b"") <= self._limit // 2 else None
            if value and len(value) > self._limit:
                place.append((ORIGINAL_BYTES, str(len(value)).encode()))
                return Enriched(value[: self._limit], key, given, place, fault=NO_EVENT)
        message = Enriched(value, key, given, place)
        fields = self._reader.fields(value)
        if isinstance(fields, dict):
            try:
                message.time, message.inputs = self._inputs.read(fields)
            except ValueFaultError as fault:
                message.fault = str(fault)
        else:
            message.fault = NO_EVENT
        return message


class Step:
    """Gives messages the features of one key's columns."""

    def __init__(self, windows: WindowFeatures, key: Sequence[str]) -> None:
        """Takes which features."""
        self._key = list(key)
        self._history = History(windows, key)
        made_of = json.dumps([self._key, windows.time, self._history.columns])
        readable = re.sub(r"[^A-Za-z0-9_]+", "_", "-".join(self._key))[:40]
        self.name = f"windows-{readable}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
        """Of what keeps its store: other columns, another store."""

    def key_of(self, message: Enriched) -> bytes:
        """Gives what brings messages that share a store to one place."""
        if self._has_key(message):
            return orjson.dumps([message.inputs[name] for name in self._key])
        return message.key or b""  # any: it needs no store

    def add(self, message: Enriched, store: Store, written_ms: int) -> Enriched:
        """Gives a message its features, and keeps what those after it need.

        Args:
            message: changed in place.
            store: of the message's key.
            written_ms: the message's own time.
        """
        if message.fault:
            return message
        if message.time is None or not self._has_key(message):
            found = self._history.missing()
        else:
            values = [message.inputs[name] for name in self._history.columns]
            now = written_ms if written_ms > 0 else message.time
            found = self._history.add(store, message.time, values, now)
        message.features |= dict(zip(self._history.names, found, strict=True))
        return message

    def _has_key(self, message: Enriched) -> bool:
        return not message.fault and all(message.inputs[name] is not None for name in self._key)
