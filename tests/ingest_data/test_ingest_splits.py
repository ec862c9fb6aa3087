from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import DataRejectedError, InputError
from components.ingest_data.keys import key_hashes, key_texts
from components.ingest_data.splits import assignment
from components.schema import Column
from components.settings import ColumnSplit, HashSplit, TimeSplit

KEYS = st.lists(
    st.tuples(st.one_of(st.none(), st.text(max_size=6)), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)))
)


def batch(rows: list[tuple[Any, Any]]) -> pa.RecordBatch:
    names, numbers = zip(*rows, strict=True) if rows else ((), ())
    return pa.RecordBatch.from_arrays([pa.array(names, pa.string()), pa.array(numbers, pa.int64())], ["name", "number"])


def hash_split(rows: list[tuple[Any, Any]], **options: Any) -> list[bool]:
    split = HashSplit.model_validate({"by": "hash", "key": ["name", "number"], "eval_fraction": 0.5, **options})
    result: list[bool] = assignment(split, [])(batch(rows)).to_pylist()
    return result


@given(rows=KEYS, order=st.randoms(use_true_random=False), cut=st.integers(0, 20))
def test_a_row_goes_where_its_key_says_whatever_surrounds_it(rows: list[Any], order: Any, cut: int) -> None:
    expected = dict(zip(rows, hash_split(rows), strict=True))
    shuffled = order.sample(rows, len(rows))
    in_two_batches = hash_split(shuffled[:cut]) + hash_split(shuffled[cut:])
    assert [expected[row] for row in shuffled] == in_two_batches
    assert hash_split(rows * 2) == hash_split(rows) * 2


@given(rows=KEYS)
def test_two_keys_have_one_text_only_if_they_are_equal(rows: list[Any]) -> None:
    assert len(set(key_texts(batch(rows), ["name", "number"]).to_pylist())) == len(set(rows))


def test_slices_of_batches_hash_like_their_rows() -> None:
    rows = [(str(number), number) for number in range(50)]
    texts = key_texts(batch(rows), ["name", "number"])
    assert (key_hashes(texts.slice(7, 20)) == key_hashes(texts)[7:27]).all()


def test_hashes_never_change() -> None:
    # Written down once: a different value would move rows between the splits of every project.
    texts = key_texts(batch([("AA", 1), ("é", None), (None, -5), ("", 0)]), ["name", "number"])
    assert texts.to_pylist() == ["2:AA1:1", "2:é~", "~2:-5", "0:1:0"]
    assert [f"{value:016x}" for value in key_hashes(texts, "salt")] == [
        "73439c5fc5cd5e9d",
        "7097f59a99abfc22",
        "6c1bd7b5a5352ae7",
        "33ab878b23f02cec",
    ]


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_the_share_of_keys_is_near_the_fraction(fraction: float) -> None:
    count = 20_000
    share = sum(hash_split([("k", n) for n in range(count)], eval_fraction=fraction)) / count
    assert abs(share - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / count)


def test_another_salt_draws_another_split_and_the_fractions_nest() -> None:
    rows = [("k", n) for n in range(1000)]
    plain, salted, wider = hash_split(rows), hash_split(rows, salt="a"), hash_split(rows, eval_fraction=0.6)
    assert 0.4 < sum(a == b for a, b in zip(plain, salted, strict=True)) / 1000 < 0.6
    assert all(b for a, b in zip(plain, wider, strict=True) if a)


@given(
    seconds=st.lists(st.integers(-(10**9), 4 * 10**9), min_size=1),
    cut=st.datetimes(datetime(1960, 1, 1), datetime(2090, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
)
def test_a_time_split_cuts_at_the_time(seconds: list[int], cut: datetime) -> None:
    split = TimeSplit(by="time", column="at", eval_from=cut)
    columns = [Column("at", pa.int64(), required=True, is_time=True)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [epoch + timedelta(seconds=second) >= cut.replace(tzinfo=UTC) for second in seconds]
    numbers = pa.RecordBatch.from_arrays([pa.array(seconds, pa.int64())], ["at"])
    assert assignment(split, columns)(numbers).to_pylist() == expected
    texts = [(epoch + timedelta(seconds=second)).isoformat() for second in seconds]
    columns = [Column("at", pa.string(), required=True, is_time=False)]
    assert assignment(split, columns)(pa.RecordBatch.from_arrays([pa.array(texts)], ["at"])).to_pylist() == expected


def test_a_time_with_a_zone_is_a_moment() -> None:
    split = TimeSplit.model_validate({"by": "time", "column": "at", "eval_from": "2013-10-01T00:00:00-04:00"})
    columns = [Column("at", pa.string(), required=True, is_time=False)]
    rows = pa.RecordBatch.from_arrays([pa.array(["2013-10-01T03:59:59Z", "2013-10-01T04:00:00Z"])], ["at"])
    assert assignment(split, columns)(rows).to_pylist() == [False, True]


def test_a_float_is_no_time() -> None:
    split = TimeSplit(by="time", column="at", eval_from=datetime(2013, 10, 1))
    with pytest.raises(InputError, match="too coarse for times"):
        assignment(split, [Column("at", pa.float32(), required=True, is_time=False)])


@pytest.mark.parametrize(("kind", "train"), [(pa.string(), "1"), (pa.int64(), "1")])
def test_a_column_split_takes_the_values(kind: pa.DataType, train: str) -> None:
    split = ColumnSplit(by="column", column="use", train=[train], eval=["2", "3"])
    rows = pa.RecordBatch.from_arrays([pa.array(["1", "2", "3", "1"]).cast(kind)], ["use"])
    assert assignment(split, [])(rows).to_pylist() == [False, True, True, False]


@pytest.mark.parametrize("value", ["other", None])
def test_a_column_split_refuses_other_values(value: str | None) -> None:
    split = ColumnSplit(by="column", column="use")
    rows = pa.RecordBatch.from_arrays([pa.array(["train", value, "eval"])], ["use"])
    with pytest.raises(DataRejectedError, match=f"1 of 3 rows, e.g. {value!r}"):
        assignment(split, [])(rows)


def test_one_value_cannot_be_in_both_splits() -> None:
    with pytest.raises(InputError, match="x is a value of train and of eval"):
        assignment(ColumnSplit(by="column", column="use", train=["x"], eval=["x", "y"]), [])


def test_groups_stay_together_at_any_size() -> None:
    rows = [(f"group {n % 97}", 0) for n in range(10_000)]
    sides: dict[str, set[bool]] = {}
    for (name, _), side in zip(rows, hash_split(rows), strict=True):
        sides.setdefault(name, set()).add(side)
    assert Counter(len(side) for side in sides.values()) == {1: 97}
