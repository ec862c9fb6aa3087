"""Raw values as a reader knows them."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from components.rows import MISSING_INTEGER
from components.shapley import Array

MISSING = "(missing)"


def missing(values: Array) -> Array:
    """Tells which values of a column are missing, bool [rows]."""
    if values.dtype == object:
        return np.asarray(values == b"", bool)
    return np.isnan(values) if values.dtype.kind == "f" else np.asarray(values == MISSING_INTEGER)


def text_of(value: Any, is_time: bool = False) -> str:
    """Writes one value: UTF-8, a number, or a time for seconds since 1970."""
    if isinstance(value, bytes):
        return value.decode(errors="replace") or MISSING
    if value != value or value == MISSING_INTEGER:
        return MISSING
    if is_time:
        try:
            return f"{datetime.fromtimestamp(int(value), UTC):%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError, OSError):
            return str(value)
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
