import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import InputError
from components.slices import BUCKETS, MAX_NUMBERS, MISSING, partitions

COLUMNS = {
    "text": (pa.string(), st.sampled_from(["UA", "DL", "", "<b>", None])),
    "whole": (pa.int64(), st.one_of(st.none(), st.integers(-(2**62), 2**62))),
    "number": (pa.float64(), st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))),
    "flag": (pa.bool_(), st.sampled_from([True, False, None])),
    "time": (pa.timestamp("us"), st.one_of(st.none(), st.datetimes(datetime.datetime(1900, 1, 1)))),
}


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 60))
    return pa.table(
        {
            name: pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)
            for name, (kind, values) in COLUMNS.items()
        }
    )


@given(tables(), st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_a_partition_holds_every_row_once_and_no_empty_group(table, names):
    (part,) = partitions(table, [names])
    assert len(part.groups) == table.num_rows
    assert part.rows.sum() == table.num_rows
    assert part.rows.min() > 0
    assert len(part.values) == part.groups.max() + 1
    assert len(set(part.values)) == len(part.values)
    assert set(part.columns) == set(names)


def only(values, kind=None):
    (part,) = partitions(pa.table({"x": pa.array(values, kind)}), [["x"]])
    return {part.values[group][0]: int(rows) for group, rows in enumerate(part.rows)}


def test_missing_values_are_a_slice_of_their_own_whatever_they_look_like():
    assert only(["a", None, "", "a"]) == {"a": 2, MISSING: 2}
    assert only([1.5, float("nan"), None, 1.5]) == {"1.5": 2, MISSING: 2}
    assert only([None, None], pa.string()) == {MISSING: 2}
    assert only([None, None], pa.null()) == {MISSING: 2}


def test_few_numbers_are_values_many_are_buckets_of_about_equal_size():
    assert only([2, 10, 2]) == {"2": 2, "10": 1}
    many = only([*range(1000), None])
    assert many == {
        "< 200": 200,
        "200 to < 400": 200,
        "400 to < 600": 200,
        "600 to < 800": 200,
        "≥ 800": 200,
        MISSING: 1,
    }


def test_a_value_that_fills_several_buckets_leaves_none_empty():
    values = [0.0] * 900 + [float(one) for one in range(1, 101)]
    assert only(values) == {"≥ 0": 1000}


def test_times_and_decimals_are_bucketed_too():
    days = [datetime.date(2013, 1, 1) + datetime.timedelta(days=one) for one in range(100)]
    buckets = only(days)
    assert len(buckets) == BUCKETS
    assert "< 2013-01-21" in buckets
    assert len(only(pa.array([f"{one}.25" for one in range(100)]).cast(pa.decimal128(9, 2)))) == BUCKETS


def test_a_dictionary_column_is_its_values():
    assert only(pa.array(["b", "a", None, "b"]).dictionary_encode()) == {"a": 1, "b": 2, MISSING: 1}


def test_crosses_name_both_columns_and_repeated_slices_are_computed_once():
    table = pa.table({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    found = partitions(table, [["a", "b"], ["a"], ["a", "b"], ["a", "a"]])
    assert [part.columns for part in found] == [("a", "b"), ("a",)]
    assert found[0].named(int(found[0].groups[1])) == {"a": "x", "b": "2"}


def test_a_long_value_is_cut():
    (name,) = only(["y" * 1_000_000])
    assert len(name) == 60
    assert name.endswith("…")


def test_long_values_that_begin_alike_stay_apart():
    (part,) = partitions(pa.table({"x": ["y" * 99 + "1", "y" * 99 + "2"]}), [["x"]])
    assert part.rows.tolist() == [1, 1]


def test_a_million_distinct_values_take_seconds_at_most():
    (part,) = partitions(pa.table({"x": pc.cast(pa.array(np.arange(1_000_000)), pa.string())}), [["x"]])
    assert len(part.values) == 1_000_000


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())])])
def test_a_nested_column_has_no_values_to_slice_by(kind):
    with pytest.raises(InputError, match=r"column 'x' of type .* has no values to slice by"):
        only([None] * (MAX_NUMBERS + 5), kind)
