"""Statistics do not depend on how rows are cut into batches, groups and files; batches stay small."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.artifacts import Manifest, write_manifest
from components.validate_data.leaks import scores
from components.validate_data.splits import Split, open_splits
from tests.validate_data.datasets import Place, good

TEXT = st.one_of(st.none(), st.sampled_from(["a", "b", "", "ü", "a.b", "x" * 2000]))
NUMBER = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6))
ROWS = st.lists(st.tuples(TEXT, NUMBER, st.one_of(st.none(), st.integers(-(2**40), 2**40))), min_size=1, max_size=60)
TYPES = {"text": pa.string(), "number": pa.float32(), "whole": pa.int64()}


def table(rows: list[tuple[object, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({name: pa.array(list(c), kind) for (name, kind), c in zip(TYPES.items(), columns, strict=True)})


def write(folder: Path, parts: list[pa.Table], **options: object) -> Split:
    (folder / "train").mkdir(parents=True)
    for i, part in enumerate(parts):
        pq.write_table(part, folder / "train" / f"part-{i:05d}.parquet", **options)
    write_manifest(folder, Manifest(splits={"train": sum(map(len, parts))}, digest="0"))
    return open_splits(folder)["train"]


def figures(split: Split) -> dict[str, tuple[object, ...]]:
    from components.data_statistics.statistics import common
    from components.validate_data.summaries import summarize

    result = {}
    for name, one in summarize(split, None).features.items():
        text, number = one.string_stats, one.num_stats
        result[name] = (
            *(common(one).num_non_missing, common(one).num_missing),
            *(text.unique, sorted((bucket.label, bucket.sample_count) for bucket in text.rank_histogram.buckets)),
            *(number.min, number.max, number.num_zeros, pytest.approx(number.mean), pytest.approx(number.std_dev)),
        )
    return result


@settings(max_examples=60)
@given(rows=ROWS, cut=st.integers(0, 60), group=st.integers(1, 20))
def test_files_groups_and_batches_do_not_matter(
    rows: list[tuple[object, ...]], cut: int, group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = table(rows)
    folder = tmp_path_factory.mktemp("splits")
    one = write(folder / "one", [whole])
    many = write(folder / "many", [whole.slice(0, cut), whole.slice(cut)], row_group_size=group)
    assert figures(one) == figures(many)


@given(rows=ROWS)
@settings(max_examples=60)
def test_counts_are_those_of_the_rows(rows: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory) -> None:
    found = figures(write(tmp_path_factory.mktemp("split") / "d", [table(rows)]))
    for i, name in enumerate(TYPES):
        present = [row[i] for row in rows if row[i] is not None]
        assert found[name][:2] == (len(present), len(rows) - len(present))
        if name != "text" and present:
            assert found[name][4:6] == (min(present), max(present))


@pytest.mark.parametrize(
    "values",
    [["x" * 1_000_000] * 200, [chr(97 + i % 26) * 1_000_000 for i in range(60)], ["n"] * 150_000],
    ids=["one long value", "many long values", "many rows"],
)
def test_batches_stay_small_and_lose_no_row(values: list[str], tmp_path: Path) -> None:
    split = write(tmp_path / "d", [pa.table({"text": values, "n": range(len(values))})])
    seen = 0
    for batch in split.batches():
        assert batch.column(1).to_pylist() == list(range(seen, seen + batch.num_rows))
        text = batch.column(0)
        decoded = text.dictionary_decode() if isinstance(text, pa.DictionaryArray) else text
        assert decoded.nbytes < 40 << 20
        seen += batch.num_rows
    assert seen == len(values)


def test_statistics_can_be_read_by_tfdv(place: Place) -> None:
    import tensorflow_data_validation as tfdv

    place.write().validate()
    statistics = tfdv.load_stats_binary(str(place.outputs / "statistics" / "train.pb"))
    assert isinstance(statistics, statistics_pb2.DatasetFeatureStatisticsList)
    assert statistics.datasets[0].num_examples == 2000
    tfdv.validate_statistics(statistics, tfdv.infer_schema(statistics))


def test_the_same_input_gives_the_same_files(place: Place) -> None:
    place.write(good(2000) | {"id": pa.array(map(str, range(2000)))}, {"id": pa.array(map(str, range(500)))})
    place.validate(schema="")
    # TFDV's sketches order values of equal frequency by chance, so its own files may differ by a few bytes.
    paths = {name: place.outputs / name for name in place.left_behind()}
    files = [name for name, path in paths.items() if path.is_file() and path.suffix != ".pb"]
    assert files
    first = {name: (place.outputs / name).read_bytes() for name in files}
    place.validate(schema="")
    assert {name: (place.outputs / name).read_bytes() for name in files} == first


@given(noise=st.floats(0, 1), seed=st.integers(0, 100))
@settings(max_examples=40)
def test_a_leak_scores_by_the_errors_that_it_avoids(noise: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, 4000)
    copied = np.where(random.random(4000) < noise, random.integers(0, 2, 4000), label)
    sample = pa.table({"label": label, "copy": copied, "text": [str(one) for one in copied]})
    found = scores(sample, "label", numeric_label=False)
    assert found["copy"] == found["text"] == pytest.approx(1 - noise, abs=0.1)
