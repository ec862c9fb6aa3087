"""What window features are made of, in one event: the same values that ingest_data reads from a row."""

import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.schema import Column
from components.settings import WindowFeatures
from components.window_features.columns import LATEST_MS

MILLISECONDS_FROM = 100_000_000_000
"""Larger numbers are milliseconds since 1970, smaller ones seconds: as seconds, this is the year 5138."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?\d{1,18}")
_FLOAT32 = struct.Struct("f")
_EXACT_IN_FLOAT64 = 2**53
_INT64 = range(-(2**63), 2**63)
_SHOWN = 60


class ValueFaultError(Exception):
    """A value of which no window feature can be made; the message says what would be right."""


class InputColumn(BaseModel):
    """A column of the schema, as far as window features need it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["string", "int64", "float32"]
    is_time: bool = False

    @classmethod
    def of(cls, column: Column) -> "InputColumn":
        """Gives a column of the schema."""
        return cls.model_validate(
            {"type": "float32" if str(column.type) == "float" else str(column.type), "is_time": column.is_time}
        )


class Inputs:
    """Reads what window features are made of."""

    def __init__(self, windows: WindowFeatures, columns: Mapping[str, InputColumn]) -> None:
        """Takes what is needed.

        Args:
            windows: the section.
            columns: its inputs, by name.
        """
        self._time = windows.time
        self._of_time = columns[windows.time]
        self._others = {name: columns[name] for name in windows.inputs if name != windows.time}

    def read(self, fields: Mapping[str, Any]) -> tuple[int | None, dict[str, Any]]:
        """Gives an event's time, in milliseconds since 1970, and its keys and values.

        Args:
            fields: of the event, by name; what is not there is missing.

        Raises:
            ValueFaultError: a value is not what its column holds.
        """
        time = _read(self._time, fields.get(self._time), lambda value: _milliseconds(value, self._of_time))
        return time, {
            name: _read(name, fields.get(name), lambda value, column=column: _value(value, column))  # type: ignore[misc]
            for name, column in self._others.items()
        }


def _read(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    try:
        return convert(value)
    except ValueFaultError as fault:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        raise ValueFaultError(f"'{name}' is {shown}, and window features take {fault} there") from None


def _milliseconds(value: Any, column: InputColumn) -> int:
    found = _text_milliseconds(value, column) if isinstance(value, str) else _number_milliseconds(value)
    if abs(found) > LATEST_MS:
        raise ValueFaultError("a time before the year 10000")
    return found


def _text_milliseconds(value: str, column: InputColumn) -> int:
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _number_milliseconds(int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueFaultError("ISO 8601 text, or a number of seconds or milliseconds since 1970,") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(seconds=1) * 1000 if column.is_time else since // timedelta(milliseconds=1)


def _number_milliseconds(value: Any) -> int:
    number = _integer(value)
    return number if abs(number) >= MILLISECONDS_FROM else number * 1000


def _value(value: Any, column: InputColumn) -> Any:
    if column.is_time:
        return _milliseconds(value, column) // 1000
    if column.type == "string":
        if not isinstance(value, str):
            raise ValueFaultError("text")
        return value
    return _integer(value) if column.type == "int64" else _float32(value)


def _integer(value: Any) -> int:
    is_integer = type(value) is int or (type(value) is float and value.is_integer() and abs(value) <= _EXACT_IN_FLOAT64)
    if not is_integer or int(value) not in _INT64:
        raise ValueFaultError("an integer")
    return int(value)


def _float32(value: Any) -> float | None:
    if type(value) not in (int, float):
        raise ValueFaultError("a number")
    narrow = as_float32(value)
    if narrow is None and not (isinstance(value, float) and math.isinf(value)):
        raise ValueFaultError("a number within float32 (±3.4e38)")
    return narrow


def as_float32(value: float) -> float | None:
    """Rounds to float32; None: it is infinite then."""
    try:
        narrow: float = _FLOAT32.unpack(_FLOAT32.pack(float(value)))[0]
    except OverflowError:
        return None
    # At the edge, pack gives infinity instead of the error.
    return narrow + 0.0 if math.isfinite(narrow) else None  # no negative zero
