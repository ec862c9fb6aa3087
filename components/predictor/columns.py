"""Values of one feature, checked against the spec and turned into an array.

Nothing is guessed: a value that is not what the feature takes is refused, with its row.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.model_spec import ModelInput
from components.predictor.faults import RequestError, RowError, shown
from components.rows import MISSING_INTEGER, MISSING_STRING, marker

Array = np.ndarray[Any, Any]

_NUMBERS = {int, float, type(None)}
_INTEGERS = {int, type(None)}
_TEXTS = {str, type(None)}
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64_MAX = int(np.iinfo(np.int64).max)
_INT64_MISSING = int(MISSING_INTEGER)
_EXACT = 2.0**53  # beyond, a JSON number with a fraction or exponent no longer tells which integer was meant
_KINDS = {bool: "a boolean", int: "an integer", float: "a number", str: "text", list: "a list", dict: "an object"}
_WANTED = {"string": "text", "int64": "an integer", "float32": "a number"}


def column(i: ModelInput, values: Sequence[Any]) -> Array:
    """Turns values, None for a missing one, into an array [rows].

    Raises:
        RequestError: a value is of another type, cannot be held, or is missing and required.
    """
    made = {"string": _strings, "int64": _integers, "float32": _floats}[i.dtype](i, values)
    if i.required:
        refuse_missing(i, made)
    return made


def key_column(name: str, values: Sequence[Any]) -> Array:
    """Turns the values of a key, which is no input of the model, into text; an integer as its digits.

    Raises:
        RequestError: a value is neither text nor an integer.
    """
    texts = [str(value) if type(value) is int else value for value in values]
    return _strings(ModelInput(name=name, tensor=name, dtype="string", required=False), texts)


def refuse_missing(i: ModelInput, values: Array) -> None:
    """Raises: RequestError: a required feature has a row without a value."""
    missing = is_missing(i.dtype, values)
    if missing.any():
        raise fault(i, int(missing.argmax()), "is missing, and required")


def is_missing(dtype: str, values: Array) -> Array:
    """Tells which rows hold the marker of a missing value; bool [rows]."""
    return np.isnan(values) if dtype == "float32" else np.asarray(values == marker(dtype), bool)


def fault(i: ModelInput, row: int, says: str) -> RowError:
    """An error that names row and feature."""
    return RowError(row, f"feature '{i.name}': {says}")


def _floats(i: ModelInput, values: Sequence[Any]) -> Array:
    if all(type(value) is float and -_FLOAT32_MAX <= value <= _FLOAT32_MAX for value in values):
        return np.array(values, np.float32)  # the usual case: a third of the time
    if not _NUMBERS.issuperset(map(type, values)):
        raise _wrong_type(i, values, (int, float))
    try:
        wide = np.array([np.nan if value is None else value for value in values], np.float64)
    except OverflowError:  # an integer of hundreds of digits
        row = next(row for row, value in enumerate(values) if isinstance(value, int) and abs(value) > 1e300)
        raise fault(i, row, f"{shown(values[row])} is beyond float32 (±3.4e38)") from None
    return narrowed(i, wide, np.array([value is None for value in values], bool))


def narrowed(i: ModelInput, wide: Array, missing: Array) -> Array:
    """Turns finite numbers into float32, NaN where `missing`.

    Raises:
        RequestError: a number is not finite, or beyond float32.
    """
    finite = np.isfinite(wide) | missing
    if not finite.all():
        row = int(finite.argmin())
        raise fault(i, row, f"{_spelled(wide[row])} is no number; give a finite one, or null for a missing value")
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    finite = np.isfinite(narrow) | missing
    if not finite.all():
        row = int(finite.argmin())
        raise fault(i, row, f"{wide[row]:g} is beyond float32 (±3.4e38)")
    return narrow


def _integers(i: ModelInput, values: Sequence[Any]) -> Array:
    if all(type(value) is int and _INT64_MISSING < value <= _INT64_MAX for value in values):
        return np.array(values, np.int64)
    if not _INTEGERS.issuperset(map(type, values)):
        if not _NUMBERS.issuperset(map(type, values)):
            raise _wrong_type(i, values, (int, float))
        # A column that had missing values once was float64 on the client's side: 3.0 is an integer.
        values = [_whole(i, row, value) if type(value) is float else value for row, value in enumerate(values)]
    for row, value in enumerate(values):
        if value is not None and not _INT64_MISSING < value <= _INT64_MAX:
            raise fault(i, row, f"{shown(value)} is beyond int64, or its smallest, which stands for a missing value")
    return np.array([MISSING_INTEGER if value is None else value for value in values], np.int64)


def _whole(i: ModelInput, row: int, value: float) -> int:
    if not np.isfinite(value):
        raise fault(i, row, f"{_spelled(value)} is no integer; give one, or null for a missing value")
    if not value.is_integer():
        raise fault(i, row, f"{value:g} has a fraction; the model takes an integer")
    if abs(value) > _EXACT:
        raise fault(i, row, f"{value:g} is beyond int64, or not exact; write an integer without fraction and exponent")
    return int(value)


def _strings(i: ModelInput, values: Sequence[Any]) -> Array:
    if _TEXTS.issuperset(map(type, values)):
        try:
            made = [MISSING_STRING if value is None else value.encode() for value in values]
        except UnicodeEncodeError:
            row = next(row for row, value in enumerate(values) if value and not _is_unicode(value))
            raise fault(i, row, f"{shown(values[row])} is no Unicode text (half of a surrogate pair)") from None
    else:
        made = [_text(i, row, value) for row, value in enumerate(values)]
    array = np.empty(len(made), object)
    array[:] = made
    return array


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _text(i: ModelInput, row: int, value: Any) -> bytes:
    if value is None:
        return MISSING_STRING
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            value = from_base64(value["b64"], "")
        except RequestError as error:
            raise fault(i, row, str(error).removeprefix(": ")) from None
    if isinstance(value, str):
        return value.encode(errors="replace")
    if not isinstance(value, bytes):
        raise _wrong_type(i, [None] * row + [value], (str, bytes))
    try:
        value.decode()
    except UnicodeDecodeError:
        raise fault(i, row, f"{shown(value)} is no UTF-8") from None
    return value


def from_base64(value: Any, where: str) -> bytes:
    """Decodes base64, with or without padding.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, str | bytes):
        raise RequestError(f"{where}: {shown(value)} is no base64 text")
    raw = value.encode(errors="replace") if isinstance(value, str) else value
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{where}: not base64: {error}") from None


def _wrong_type(i: ModelInput, values: Sequence[Any], allowed: tuple[type, ...]) -> RowError:
    row, value = next(
        (row, value) for row, value in enumerate(values) if value is not None and type(value) not in allowed
    )
    kind = _KINDS.get(type(value), type(value).__name__)
    return fault(i, row, f"{shown(value)} is {kind}; the model takes {_WANTED[i.dtype]}, or null for a missing value")


def _spelled(value: float) -> str:
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
