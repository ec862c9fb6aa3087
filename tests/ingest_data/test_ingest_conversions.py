from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ingest_data.conversions import UnfitValueError, column_of, conform, fits
from components.schema import Column

INTEGER = Column("x", pa.int64(), required=False, is_time=False)
NUMBER = Column("x", pa.float32(), required=False, is_time=False)
TEXT = Column("x", pa.string(), required=False, is_time=False)
TIME = Column("x", pa.int64(), required=False, is_time=True)


@pytest.mark.parametrize(
    ("values", "kind", "column", "row"),
    [
        ([1.0, 2.5], pa.float64(), INTEGER, 1),
        ([1.0, 2.0**60], pa.float64(), INTEGER, 1),
        ([1.0, float("inf")], pa.float64(), INTEGER, 1),
        (["1", "2", "x", "y"], pa.string(), INTEGER, 2),
        (["1", "2.5"], pa.string(), INTEGER, 1),
        (["9223372036854775808"], pa.string(), INTEGER, 0),
        ([1, 2**63], pa.uint64(), INTEGER, 1),
        ([0.0, 1e39], pa.float64(), NUMBER, 1),
        (["1.5", "1,5"], pa.string(), NUMBER, 1),
        ([b"a", b"\xff"], pa.binary(), TEXT, 1),
        (["2013-01-01", "yesterday"], pa.string(), TIME, 1),
        (["2013-02-30"], pa.string(), TIME, 0),
        ([None] * 1000 + ["x"] + ["1"] * 1000, pa.string(), INTEGER, 1000),
    ],
)
def test_the_first_value_that_does_not_fit_is_named(
    values: list[Any], kind: pa.DataType, column: Column, row: int
) -> None:
    with pytest.raises(UnfitValueError) as caught:
        conform(pa.array(values, kind), column)
    assert (caught.value.row, caught.value.value) == (row, values[row])


@given(values=st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53))))
def test_integers_survive_every_way_of_writing_them(values: list[int | None]) -> None:
    array = pa.array(values, pa.int64())
    for source in (
        array,
        array.cast(pa.float64()),
        array.cast(pa.string()),
        array.cast(pa.float64()).cast(pa.string()),
    ):
        assert conform(source, INTEGER).to_pylist() == values


@given(values=st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=False))))
def test_floats_survive(values: list[float | None]) -> None:
    array = pa.array(values, pa.float32())
    for source in (array, array.cast(pa.float64()), array.cast(pa.string())):
        assert conform(source, NUMBER).to_pylist() == values


@given(
    moments=st.lists(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), min_size=1),
    unit=st.sampled_from(["ms", "us", "ns"]),
)
def test_times_lose_only_fractions_of_a_second(moments: list[datetime], unit: str) -> None:
    expected = [int(moment.replace(microsecond=0, tzinfo=UTC).timestamp()) for moment in moments]
    array = pa.array(moments, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
    assert conform(array, TIME).to_pylist() == expected
    assert conform(array.cast(pa.timestamp(unit, "America/New_York")), TIME).to_pylist() == expected
    assert conform(pa.array([moment.isoformat() for moment in moments]), TIME).to_pylist() == expected


def test_mixed_zones_and_blanks() -> None:
    texts = pa.array(["2013-01-01", " 2013-01-01 05:00Z ", "2013-01-01T05:00:00.25+05:00", "", None])
    assert conform(texts, TIME).to_pylist() == [1356998400, 1357016400, 1356998400, None, None]


@given(values=st.lists(st.one_of(st.none(), st.text())))
def test_text_is_left_alone(values: list[str | None]) -> None:
    array = pa.array(values, pa.string())
    for source in (array, array.cast(pa.large_string()), array.dictionary_encode(), array.cast(pa.binary())):
        assert conform(source, TEXT).to_pylist() == values


def test_which_types_fit() -> None:
    table = {
        pa.int8(): "INF_T", pa.uint64(): "INF_T", pa.float16(): "INF_T", pa.float64(): "INF_T",
        pa.decimal128(5, 2): "INF_T", pa.bool_(): "INF_T", pa.null(): "INFST", pa.string(): "ST",
        pa.large_binary(): "ST", pa.dictionary(pa.int32(), pa.string()): "ST", pa.timestamp("ns", "UTC"): "T",
        pa.date32(): "T", pa.time32("s"): "", pa.duration("s"): "", pa.list_(pa.int64()): "", pa.struct([]): "",
    }  # fmt: skip
    for kind, letters in table.items():
        found = {
            letter for letter, column in zip("INST", (INTEGER, NUMBER, TEXT, TIME), strict=True) if fits(kind, column)
        }
        assert found == set(letters) & set("INST"), kind


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.duration("s"), pa.list_(pa.int64()), pa.map_(pa.string(), pa.int64())]
)
def test_no_column_holds_these(kind: pa.DataType) -> None:
    assert column_of("x", kind) is None
