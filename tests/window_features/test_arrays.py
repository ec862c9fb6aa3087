"""Window features of rows, against their definition. Needs: the venv twin of the base image."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.settings import WindowFeatures
from components.window_features.arrays import compute
from tests.window_features.made import EVERY_KIND, TYPES, by_arrays, by_definition

AMOUNTS = st.one_of(
    st.none(),
    st.floats(width=32),
    st.sampled_from([0.1, 0.0, -0.0, 12.34, -12.34, 3e38, 1e-40, float("inf"), float("-inf")]).map(
        lambda value: float(np.float32(value))
    ),
)
INTEGERS = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]))
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "time": st.one_of(st.none(), st.integers(0, 100_000), st.integers(0, 8).map(lambda at: 10_000 * at)),
            "card": st.sampled_from(["a", "b", None]),
            "shop": st.sampled_from([1, -(2**60), None]),
            "amount": AMOUNTS,
            "items": INTEGERS,
            "city": st.sampled_from(["x", "y", "", "z\0", None]),
        }
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(EVENTS)
def test_features_are_what_their_definition_says(events: list[dict[str, Any]]) -> None:
    assert by_arrays(EVERY_KIND, events) == by_definition(EVERY_KIND, events)


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.integers(0, 100_000))
def test_no_row_sees_the_future(events: list[dict[str, Any]], now: int) -> None:
    known = [event for event in events if event["time"] is not None and event["time"] <= now]
    later = [event for event in events if event not in known]
    assert by_arrays(EVERY_KIND, [*known, *later])[: len(known)] == by_arrays(EVERY_KIND, known)


@settings(deadline=None, max_examples=60)
@given(EVENTS.flatmap(lambda events: st.tuples(st.just(events), st.permutations(range(len(events))))))
def test_the_order_of_rows_changes_nothing(made: tuple[list[dict[str, Any]], list[int]]) -> None:
    events, order = made
    features = by_arrays(EVERY_KIND, events)
    assert by_arrays(EVERY_KIND, [events[place] for place in order]) == [features[place] for place in order]


def test_a_sum_does_not_depend_on_what_went_before() -> None:
    # In float64, 1e30 would swallow what comes after it for as long as a running sum lives.
    events = [
        {"time": at * 7_000, "card": "a", "shop": 1, "amount": amount, "items": 1, "city": "x"}
        for at, amount in enumerate([1e30, 0.1, 0.1, 0.1])
    ]
    assert by_arrays(EVERY_KIND, events)[-1]["sum_10s"] == float(np.float32(float(np.float32(0.1)) * 2))


def test_a_window_ends_where_it_says() -> None:
    rows = {"time": [0, 999, 1000, 1000], "card": ["a"] * 4}
    windows = WindowFeatures.model_validate(
        {"time": "time", "key": ["card"], "features": [{"name": "n", "of": "count", "window": "1 second"}]}
    )
    found = compute(windows, pa.array(rows["time"]), {"card": pa.array(rows["card"])})
    assert found["n"].to_pylist() == [1, 2, 2, 2]  # (0, 1000): neither 0 itself nor the other at 1000


@pytest.mark.parametrize("events", [[], [dict.fromkeys(TYPES)]])
def test_nothing_and_rows_of_nothing_are_no_fault(events: list[dict[str, Any]]) -> None:
    assert by_arrays(EVERY_KIND, events) == [dict.fromkeys(EVERY_KIND.names)] * len(events)
