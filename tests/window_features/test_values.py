"""What window features are made of: the same from an event as from a row. Needs: the venv twin of the base image."""

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest_data.conversions import UnfitValueError, conform, unix_milliseconds
from components.schema import Column
from components.settings import WindowFeatures
from components.window_features.values import InputColumn, Inputs, ValueFaultError

WINDOWS = WindowFeatures.model_validate(
    {
        "time": "at",
        "key": ["key"],
        "features": [{"name": "sum", "of": "sum", "column": "value", "window": "1 hour"}],
    }
)
TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}

TIMES = st.one_of(
    st.integers(-(10**10), 10**10),
    st.integers(10**11, 2 * 10**14),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(datetime.isoformat),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat),
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.sampled_from([16777217, -0.0, 3.4028235677973366e38]),
)


def column(kind: str, is_time: bool = False, name: str = "value") -> Column:
    return Column(name, TYPES[kind], required=False, is_time=is_time)


def read(at: Any = 0, value: Any = None, key: Any = "k", time: Column | None = None, **kinds: str) -> tuple[Any, Any]:
    columns = {
        "at": InputColumn.of(time or column("int64", is_time=True)),
        "key": InputColumn.of(column(kinds.get("key_kind", "string"))),
        "value": InputColumn.of(column(kinds.get("value_kind", "float32"))),
    }
    found, others = Inputs(WINDOWS, columns).read({"at": at, "value": value, "key": key})
    return found, others["value"]


@settings(deadline=None)
@given(TIMES, st.booleans())
def test_times_are_those_of_rows(value: Any, is_time: bool) -> None:
    kind = "string" if isinstance(value, str) and not is_time else "int64"
    described = column(kind, is_time)
    row = conform(pa.array([value]), described)
    assert read(at=value, time=described)[0] == unix_milliseconds(row)[0].as_py()


@settings(deadline=None)
@given(NUMBERS, st.sampled_from(["int64", "float32"]))
def test_numbers_are_those_of_rows(value: Any, kind: str) -> None:
    try:
        row = conform(pa.array([value]), column(kind))[0].as_py()
    except UnfitValueError:
        with pytest.raises(ValueFaultError, match=r"'value' is .*, and window features take"):
            read(value=value, value_kind=kind)
        return
    # An infinite number counts as missing later, where rows are computed.
    assert read(value=value, value_kind=kind)[1] == (row if row is None or math.isfinite(row) else None)


@pytest.mark.parametrize("at", ["2026-01-02", " 2026-01-02 00:00:00 ", "2026-01-02T01:00:00+01:00", "1767312000"])
def test_times_may_be_spelled_in_several_ways(at: str) -> None:
    assert read(at=at, time=column("string"))[0] == 1_767_312_000_000


def test_what_is_missing_is_no_fault() -> None:
    assert read(at=None, value=None, key=None) == (None, None)


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"at": "soon"}, r"'at' is 'soon', and window features take ISO 8601 text, or a number of"),
        ({"at": True}, "'at' is True, and window features take an integer there"),
        ({"at": [1]}, r"'at' is \[1\], and window features take an integer there"),
        ({"at": 10**17}, "take a time before the year 10000 there"),
        ({"key": 7}, "'key' is 7, and window features take text there"),
        ({"key": {"a": "b" * 100}}, "'key' is {'a': 'b+…, and window features take text there"),
        ({"value": "12"}, "'value' is '12', and window features take a number there"),
        ({"value": 1e39}, r"take a number within float32 \(±3.4e38\) there"),
        ({"value": 10**400}, r"take a number within float32 \(±3.4e38\) there"),
        ({"value": 1.5, "value_kind": "int64"}, "'value' is 1.5, and window features take an integer there"),
        ({"value": 2**63, "value_kind": "int64"}, "take an integer there"),
        ({"key": 1.5, "key_kind": "int64"}, "'key' is 1.5, and window features take an integer there"),
    ],
)
def test_what_does_not_fit_is_told(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueFaultError, match=says):
        read(**given_)
