"""How the value of a Kafka message becomes an object: Avro, with a schema in a file or in a registry.

Credentials of a registry come from the environment: LOCKGATE_SCHEMA_REGISTRY_USERNAME and _PASSWORD, or the files that
these with _FILE behind them name.
"""

import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import urllib3
from fastavro.schema import SchemaParseException

from components.credentials import secret
from components.errors import InputError, UnavailableError
from components.settings import EventFormat

_MAGIC = b"\0"
_ID_BYTES = 4
_SECONDS = 10.0
_TRIES = 3


class EventFormatError(Exception):
    """A value that is not in its format; the message says why."""


class AvroDecoder:
    """Reads values of one topic."""

    def __init__(self, of: EventFormat, schema_text: str) -> None:
        """Takes how they are written.

        Args:
            of: its type is avro.
            schema_text: the writer's schema, as JSON; not looked at where there is a registry.

        Raises:
            InputError: it is no Avro schema.
        """
        self._registry = of.schema_registry.rstrip("/")
        self._schemas: dict[int, Any] = {}
        self._schema = None if self._registry else parse_avro_schema(schema_text, of.schema_file or "schema")
        self._http = urllib3.PoolManager(headers=_login())

    def __call__(self, value: bytes) -> Any:
        """Gives what a value holds, with times as seconds since 1970.

        Raises:
            EventFormatError: it is no such value.
            UnavailableError: the registry does not answer.
        """
        schema, start = (self._schema, 0) if self._schema is not None else self._schema_of(value)
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            found = fastavro.schemaless_reader(stream, schema, None)
        except Exception as error:  # by the bytes, nearly any: EOFError, IndexError, UnicodeDecodeError, OverflowError
            raise EventFormatError(f"the value is no Avro of its schema: {type(error).__name__}: {error}") from error
        if stream.tell() != len(value):
            raise EventFormatError(f"{len(value) - stream.tell()} bytes follow the value, so it is of another schema")
        return plain(found)

    def _schema_of(self, value: bytes) -> tuple[Any, int]:
        if value[:1] != _MAGIC or len(value) < 1 + _ID_BYTES:
            raise EventFormatError("the value does not begin with the id of its schema (0, then four bytes)")
        number = int.from_bytes(value[1 : 1 + _ID_BYTES], "big")
        if number not in self._schemas:
            self._schemas[number] = self._fetch(number)
        return self._schemas[number], 1 + _ID_BYTES

    def _fetch(self, number: int) -> Any:
        url = f"{self._registry}/schemas/ids/{number}"
        try:
            answer = self._http.request("GET", url, timeout=_SECONDS, retries=_TRIES)
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(f"schema registry '{url}': {error}; check that it is reachable") from error
        if answer.status == 404:
            raise EventFormatError(f"the value names schema {number}, which the registry '{self._registry}' has not")
        if answer.status in (401, 403):
            raise InputError(f"schema registry '{url}' answers {answer.status}; check its user and password")
        if answer.status != 200:
            raise UnavailableError(f"schema registry '{url}' answers {answer.status}; check that it is well")
        return parse_avro_schema(json.loads(answer.data)["schema"], url)


def parse_avro_schema(text: str, name: str) -> Any:
    """Reads an Avro schema.

    Raises:
        InputError: it is none.
    """
    try:
        return fastavro.parse_schema(json.loads(text))
    except (ValueError, SchemaParseException, KeyError, TypeError) as error:
        raise InputError(f"'{name}' is no Avro schema: {type(error).__name__}: {error}; check it") from error


def plain(value: Any) -> Any:
    """Turns what Avro's logical types give into what JSON has: times into seconds since 1970, UTC."""
    kind = type(value)
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if kind is dict:
        return {name: plain(part) for name, part in value.items()}
    return value


def _seconds(value: datetime) -> int:
    return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() // 1)


_PLAIN: dict[type, Callable[[Any], Any]] = {
    datetime: _seconds,
    date: lambda value: _seconds(datetime(value.year, value.month, value.day)),
    Decimal: float,
    UUID: str,
}


def _login() -> dict[str, str]:
    user = secret("LOCKGATE_SCHEMA_REGISTRY_USERNAME")
    if not user:
        return {}
    return dict(urllib3.make_headers(basic_auth=f"{user}:{secret('LOCKGATE_SCHEMA_REGISTRY_PASSWORD')}"))
