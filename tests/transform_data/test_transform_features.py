"""The features that the settings describe, against NumPy, the standard library and pandas."""

import datetime as dt
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.rows import MISSING_INTEGER, raw_arrays
from components.schema import columns, parse_schema
from components.transform_graph import TransformGraph
from tests.transform_data.datasets import Outputs, Project

ROWS = 400
TYPES = {
    "a": "FLOAT",
    "b": "INT",
    "huge": "INT",
    "skewed": "FLOAT",
    "plain": "FLOAT",
    "kept": "FLOAT",
    "zeroed": "FLOAT",
    "bucketed": "FLOAT",
    "color": "BYTES",
    "top": "BYTES",
    "hashed": "BYTES",
    "zip": "INT",
    "domain": 'BYTES string_domain { value: "x" value: "y" value: "z" }',
    "when": "INT time_domain { integer_format: UNIX_SECONDS }",
    "y": "INT",
}
FEATURES = {
    "numeric": [
        {"columns": ["a", "huge"], "indicator": True, "missing": "mean"},
        {"columns": ["b"], "scale": "min_max", "missing": "mean"},
        {"columns": ["skewed"], "log": True, "missing": "mean"},
        {"columns": ["plain"], "scale": "none", "missing": "mean"},
        {"columns": ["kept"]},
        {"columns": ["zeroed"], "missing": "zero"},
        {"columns": ["bucketed"], "scale": "quantile_buckets", "buckets": 4},
    ],
    "categorical": [
        {"columns": ["color", "zip", "domain"], "min_frequency": 1},
        {"columns": ["top"], "top_k": 2, "oov_buckets": 3},
        {"columns": ["hashed"], "hash_buckets": 7},
    ],
    "datetime": [
        {
            "columns": ["when"],
            "parts": ["year", "month", "day", "day_of_year", "weekday", "hour", "minute"],
            "cycles": ["month", "day_of_year", "weekday", "hour", "minute"],
        }
    ],
    "crosses": [{"columns": ["color", "zip"], "hash_buckets": 11}],
}


def _with_holes(values: list, every: int) -> list:
    return [None if index % every == 3 else value for index, value in enumerate(values)]


def _rows(seed: int, rows: int) -> dict[str, list]:
    draw = np.random.default_rng(seed)
    return {
        "a": _with_holes(draw.normal(5, 3, rows).tolist(), 7),
        "b": _with_holes(draw.integers(-50, 50, rows).tolist(), 9),
        "huge": (4_000_000_000_000 + draw.integers(0, 100, rows)).tolist(),
        "skewed": _with_holes(draw.exponential(30, rows).tolist(), 11),
        "plain": _with_holes(draw.normal(0, 1, rows).tolist(), 5),
        "kept": _with_holes(np.random.default_rng(seed + 100).normal(5, 3, rows).tolist(), 7),
        "zeroed": _with_holes(draw.normal(2, 1, rows).tolist(), 5),
        "bucketed": _with_holes(draw.normal(0, 1, rows).tolist(), 8),
        "color": _with_holes(draw.choice(["red", "green", "blue"], rows, p=[0.5, 0.3, 0.2]).tolist(), 6),
        "top": draw.choice(["p", "q", "r", "s"], rows, p=[0.6, 0.25, 0.1, 0.05]).tolist(),
        "hashed": _with_holes([f"v{value}" for value in draw.integers(0, 1000, rows)], 6),
        "zip": _with_holes(draw.choice([8001, 8002, 8003], rows, p=[0.6, 0.3, 0.1]).tolist(), 10),
        "domain": _with_holes(draw.choice(["x", "y", "z", "new"], rows).tolist(), 12),
        "when": _with_holes(draw.integers(-(10**9), 2 * 10**9, rows).tolist(), 13),
        "y": draw.integers(0, 2, rows).tolist(),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("features")
    return Project(folder).write(TYPES, train=_rows(1, ROWS), eval=_rows(2, 150))


@pytest.fixture(scope="module")
def outputs(project: Project) -> Outputs:
    return project.transform(FEATURES)


@pytest.fixture(scope="module")
def graph(outputs: Outputs) -> TransformGraph:
    return TransformGraph(outputs.graph)


def _floats(values: list) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def test_z_score_leaves_missing_values_out_and_makes_them_the_mean(outputs: Outputs) -> None:
    for split, seed, rows in (("train", 1, ROWS), ("eval", 2, 150)):
        for name in ("a", "huge"):
            train, values = _floats(_rows(1, ROWS)[name]), _floats(_rows(seed, rows)[name])
            expected = (values - np.nanmean(train)) / np.nanstd(train)
            np.testing.assert_allclose(outputs.table(split)[name], np.nan_to_num(expected), atol=1e-5)


def test_a_missing_value_is_kept_where_models_may_decide(outputs: Outputs, graph: TransformGraph) -> None:
    train = _floats(_rows(1, ROWS)["kept"])
    found = outputs.table()["kept"].to_numpy()
    np.testing.assert_allclose(found, (train - np.nanmean(train)) / np.nanstd(train), atol=1e-5)
    assert np.isnan(found).sum() == np.isnan(train).sum() > 0
    assert {feature.name for feature in graph.spec.features if feature.may_be_missing} == {"kept", "when_year"}
    assert np.isnan(_transform(graph, {"kept": [math.inf, math.nan]})["kept"]).all()


def test_features_know_their_columns(graph: TransformGraph) -> None:
    columns = {feature.name: feature.columns for feature in graph.spec.features}
    assert columns["a_missing"] == ["a"]
    assert columns["when_hour_sin"] == ["when"]
    assert columns["color_x_zip"] == ["color", "zip"]
    assert all(columns.values())


def test_indicator_tells_where_a_value_was_missing(outputs: Outputs) -> None:
    expected = [float(value is None) for value in _rows(1, ROWS)["a"]]
    assert outputs.table()["a_missing"].to_pylist() == expected
    assert set(outputs.table()["huge_missing"].to_pylist()) == {0.0}


def test_min_max_uses_the_training_range(outputs: Outputs) -> None:
    train, values = _floats(_rows(1, ROWS)["b"]), _floats(_rows(2, 150)["b"])
    low, high = np.nanmin(train), np.nanmax(train)
    expected = np.clip((np.where(np.isnan(values), np.nanmean(train), values) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(outputs.table("eval")["b"], expected, atol=1e-6)


def test_log_comes_before_scaling(outputs: Outputs) -> None:
    train = np.log1p(_floats(_rows(1, ROWS)["skewed"]))
    expected = (train - np.nanmean(train)) / np.nanstd(train)
    np.testing.assert_allclose(outputs.table()["skewed"], np.nan_to_num(expected), atol=1e-5)


def test_unscaled_and_zeroed_numbers(outputs: Outputs) -> None:
    plain = _floats(_rows(1, ROWS)["plain"])
    np.testing.assert_allclose(
        outputs.table()["plain"], np.where(np.isnan(plain), np.nanmean(plain), plain), rtol=1e-5, atol=1e-6
    )
    zeroed = np.nan_to_num(_floats(_rows(1, ROWS)["zeroed"]))
    np.testing.assert_allclose(outputs.table()["zeroed"], (zeroed - zeroed.mean()) / zeroed.std(), atol=1e-5)


def test_quantile_buckets_hold_about_as_many_rows_each(outputs: Outputs) -> None:
    missing = [value is None for value in _rows(1, ROWS)["bucketed"]]
    ids = np.array(outputs.table()["bucketed"])
    assert (ids[missing] == 0).all()
    shares = [(ids == bucket).sum() / (~np.array(missing)).sum() for bucket in (1, 2, 3, 4)]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)


def test_vocabulary_ids_follow_frequency_with_zero_for_missing(outputs: Outputs) -> None:
    for name in ("color", "zip"):
        raw = _rows(1, ROWS)[name]
        ranked = [value for value, _ in Counter(value for value in raw if value is not None).most_common()]
        expected = [0 if value is None else 1 + ranked.index(value) for value in raw]
        assert outputs.table()[name].to_pylist() == expected
        assert _feature(outputs, name).categories == 1 + len(ranked) + 1


def test_values_outside_the_vocabulary_share_the_last_buckets(graph: TransformGraph, outputs: Outputs) -> None:
    assert _feature(outputs, "top").categories == 1 + 2 + 3
    ids = _transform(graph, {"top": ["p", "q", "r", "s", "never seen", ""]})["top"]
    assert ids[:2].tolist() == [1, 2]
    assert set(ids[2:5]) <= {3, 4, 5}
    assert ids[5] == 0


def test_closed_domain_is_the_vocabulary(outputs: Outputs) -> None:
    known = {None: 0, "x": 1, "y": 2, "z": 3, "new": 4}
    assert outputs.table()["domain"].to_pylist() == [known[value] for value in _rows(1, ROWS)["domain"]]
    assert _feature(outputs, "domain").categories == 5


def test_hash_buckets_and_crosses_stay_in_range(outputs: Outputs) -> None:
    hashed, raw = np.array(outputs.table()["hashed"]), _rows(1, ROWS)["hashed"]
    assert [value is None for value in raw] == (hashed == 0).tolist()
    assert hashed.max() < _feature(outputs, "hashed").categories == 8
    crossed = np.array(outputs.table()["color_x_zip"])
    assert 0 <= crossed.min() <= crossed.max() < _feature(outputs, "color_x_zip").categories == 11


def test_every_category_is_in_its_range(outputs: Outputs) -> None:
    for feature in outputs.spec.features:
        column = outputs.table("eval")[feature.name]
        if feature.kind == "category":
            assert column.type == pa.int64()
            assert 0 <= min(column.to_pylist()) <= max(column.to_pylist()) < feature.categories
        else:
            assert column.type == pa.float32()


def test_label_comes_last_and_is_encoded(outputs: Outputs) -> None:
    assert outputs.table().column_names == [*(feature.name for feature in outputs.spec.features), "y"]
    assert outputs.table()["y"].to_pylist() == [float(value) for value in _rows(1, ROWS)["y"]]
    assert outputs.spec.label.model_dump() == {
        "name": "y", "kind": "binary", "classes": ["0", "1"], "positive": "1",
    }  # fmt: skip


def test_spec_names_the_inputs(outputs: Outputs) -> None:
    kinds = {"FLOAT": "float32", "INT": "int64", "BYTES": "string"}
    assert {raw.name: raw.dtype for raw in outputs.spec.inputs} == {
        name: kinds[said.split(" ")[0]] for name, said in TYPES.items() if name != "y"
    }


@settings(max_examples=40, deadline=None)
@given(seconds=st.lists(st.integers(-62_135_596_800, 253_402_300_799), min_size=1, max_size=50))
def test_time_parts_equal_the_standard_library(graph: TransformGraph, seconds: list[int]) -> None:
    found = _transform(graph, {"when": seconds})
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    moments = [epoch + dt.timedelta(seconds=value) for value in seconds]
    assert found["when_month"].tolist() == [moment.month for moment in moments]
    assert found["when_day"].tolist() == [moment.day for moment in moments]
    assert found["when_day_of_year"].tolist() == [moment.timetuple().tm_yday for moment in moments]
    assert found["when_weekday"].tolist() == [moment.weekday() + 1 for moment in moments]
    assert found["when_hour"].tolist() == [moment.hour + 1 for moment in moments]
    assert found["when_minute"].tolist() == [moment.minute + 1 for moment in moments]
    angle = np.array([2 * math.pi * moment.hour / 24 for moment in moments])
    np.testing.assert_allclose(found["when_hour_sin"], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(found["when_hour_cos"], np.cos(angle), atol=1e-6)


def test_missing_time_is_category_zero_and_no_wave(graph: TransformGraph) -> None:
    found = _transform(graph, {"when": [int(MISSING_INTEGER)]})
    for name in ("month", "day", "day_of_year", "weekday", "hour", "minute"):
        assert found[f"when_{name}"].tolist() == [0]
    assert found["when_month_sin"].tolist() == found["when_month_cos"].tolist() == [0.0]
    assert np.isnan(found["when_year"]).tolist() == [True]


def test_infinite_number_counts_as_missing_when_serving(graph: TransformGraph) -> None:
    found = _transform(graph, {"a": [math.inf, -math.inf, math.nan]})
    assert found["a"].tolist() == [0.0, 0.0, 0.0]
    assert found["a_missing"].tolist() == [1.0, 1.0, 1.0]


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 149), max_size=6))
def test_a_row_does_not_depend_on_its_batch(
    project: Project, graph: TransformGraph, outputs: Outputs, cuts: list[int]
) -> None:
    table = pq.read_table(project.examples / "eval").combine_chunks()
    known = columns(parse_schema((project.schema / "schema.pbtxt").read_text()))
    wanted = [known[raw.name] for raw in graph.spec.inputs]
    edges = sorted({0, 150, *cuts})
    parts = []
    for start, stop in itertools.pairwise(edges):
        (batch,) = table.slice(start, stop - start).to_batches()
        parts.append({name: value.numpy() for name, value in graph(_tensors(raw_arrays(batch, wanted))).items()})
    whole = outputs.table("eval")
    for feature in graph.spec.features:
        together = np.concatenate([part[feature.name] for part in parts])
        np.testing.assert_allclose(together, whole[feature.name], rtol=1e-6, atol=1e-7)


def test_outputs_are_the_same_bytes_each_time(project: Project, outputs: Outputs) -> None:
    again = project.transform(FEATURES, name="again")
    for split in ("train", "eval"):
        part = Path(split) / "part-00000.parquet"
        assert (again.transformed / part).read_bytes() == (outputs.transformed / part).read_bytes()
    assert again.manifest == outputs.manifest


def _feature(outputs: Outputs, name: str):
    return next(feature for feature in outputs.spec.features if feature.name == name)


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in arrays.items()}


def _transform(graph: TransformGraph, given: dict[str, list]) -> dict[str, np.ndarray]:
    """Transforms rows in which all other columns are missing."""
    rows = len(next(iter(given.values())))
    missing = {"string": "", "int64": int(MISSING_INTEGER), "float32": math.nan}
    raw = {
        column.name: tf.constant(given.get(column.name, [missing[column.dtype]] * rows), column.dtype)
        for column in graph.spec.inputs
    }
    return {name: value.numpy() for name, value in graph(raw).items()}
