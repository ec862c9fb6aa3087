"""Ensembles as graphs: equal to LightGBM on whatever rows come."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.models.examples import Matrix
from components.models.tree_graph import Ensemble, TreeGraph

QUIET = {"verbosity": -1, "num_threads": 1, "min_data_per_group": 1, "min_data_in_bin": 1, "min_data_in_leaf": 2}
LARGEST = np.finfo(np.float32).max
STRANGE_NUMBERS = np.array([np.nan, 0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, LARGEST, -LARGEST, np.inf, -np.inf], "f4")
STRANGE_IDS = np.array([-1, -7, 31, 32, 33, 5000, 2**24], np.int32)
FULL, SPARSE = 1 << 40, 0


def fitted(parameters: dict[str, Any], numbers: Matrix, categories: Matrix, labels: Matrix, trees: int) -> Any:
    matrix = np.hstack([numbers, categories]).astype(np.float64)
    columns = list(range(numbers.shape[1], matrix.shape[1]))
    return lightgbm.train({**QUIET, **parameters}, lightgbm.Dataset(matrix, labels, categorical_feature=columns), trees)


def graph_sums(graph: TreeGraph, numbers: Matrix, categories: Matrix) -> Matrix:
    signature = [
        tf.TensorSpec([None, numbers.shape[1]], tf.float32),
        tf.TensorSpec([None, categories.shape[1]], tf.int32),
    ]
    sums: Matrix = tf.function(graph.__call__, signature)(tf.constant(numbers), tf.constant(categories)).numpy()
    return sums


def library_sums(boosters: list[Any], numbers: Matrix, categories: Matrix) -> Matrix:
    matrix = np.hstack([numbers, categories]).astype(np.float64)
    sums = [booster.predict(matrix, raw_score=True, num_threads=1).reshape(len(matrix), -1) for booster in boosters]
    # Of a forest the library averages only what goes through its link function.
    return np.hstack(
        [
            part / (booster.num_trees() // part.shape[1] if is_forest(booster) else 1)
            for part, booster in zip(sums, boosters, strict=True)
        ]
    )


def is_forest(booster: Any) -> bool:
    return "average_output" in booster.model_to_string().splitlines()


def assert_equal(
    boosters: list[Any], numbers: Matrix, categories: Matrix, tables: tuple[int, ...] = (FULL, SPARSE)
) -> None:
    ensemble = Ensemble.read([booster.model_to_string() for booster in boosters], numbers.shape[1])
    wanted = library_sums(boosters, numbers, categories)
    largest = max(
        1.0,
        *(
            sum(np.abs(tree.values).max() for tree in ensemble.trees if tree.output == o)
            for o in range(ensemble.outputs)
        ),
    )
    for full_bytes in tables:
        graph = TreeGraph(ensemble, full_bytes)
        sums = graph(tf.constant(numbers), tf.constant(categories)).numpy()
        assert sums.shape == wanted.shape
        assert np.abs(sums - wanted).max(initial=0) <= 4 * np.finfo(np.float32).eps * largest


@st.composite
def drawn(draw: st.DrawFn) -> tuple[list[Any], Matrix, Matrix]:
    """Boosters, and rows of training values, thresholds and strange values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, width, kinds = draw(st.integers(20, 200)), draw(st.integers(0, 4)), draw(st.integers(0, 3))
    kinds = kinds if width else max(1, kinds)
    numbers = np.round(rng.normal(0, 10 ** draw(st.integers(-3, 3)), (rows, width)), draw(st.integers(0, 5))).astype(
        "f4"
    )
    numbers[rng.random(numbers.shape) < draw(st.sampled_from([0, 0.3]))] = np.nan
    numbers[rng.random(numbers.shape) < draw(st.sampled_from([0, 0.3]))] = 0
    categories = rng.integers(0, draw(st.sampled_from([2, 33, 300])), (rows, kinds)).astype(np.int32)
    objective = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    labels = {
        "binary": rng.integers(0, 2, rows),
        "multiclass": np.arange(rows) % 3,
        "regression": rng.normal(draw(st.sampled_from([0, 1000])), 1, rows),
    }[objective]
    parameters = {
        "objective": objective,
        "num_leaves": draw(st.sampled_from([2, 7, 32, 33, 90])),
        "max_depth": draw(st.sampled_from([-1, 1, 3])),
        "zero_as_missing": draw(st.booleans()),
        "use_missing": draw(st.booleans()),
        "max_cat_to_onehot": draw(st.sampled_from([1, 4])),
        "cat_smooth": 1,
        "seed": 3,
    }
    if objective == "multiclass":
        parameters["num_class"] = 3
    if draw(st.booleans()):
        parameters |= {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "feature_fraction_bynode": 0.7}
    count = draw(st.integers(1, 12))
    boosters = [fitted(parameters, numbers, categories, labels, count)]
    if objective == "regression":  # one an output, as for a forest of several classes
        boosters += [fitted(parameters, numbers, categories, -labels, count)] * draw(st.integers(0, 1))

    splits = [
        split
        for booster in boosters
        for tree in Ensemble.read([booster.model_to_string()], width).trees
        for split in tree.splits
    ]
    edges = np.array([split.threshold for split in splits if split.categories is None], "f4")
    edges = np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)), STRANGE_NUMBERS])
    asked = 150
    tried = np.where(
        rng.random((asked, width)) < 0.5,
        rng.choice(edges, (asked, width)),
        rng.choice(numbers.ravel() if width else edges, (asked, width)),
    )
    ids = np.where(
        rng.random((asked, kinds)) < 0.2, rng.choice(STRANGE_IDS, (asked, kinds)), rng.integers(0, 301, (asked, kinds))
    )
    return boosters, tried.astype("f4"), ids.astype(np.int32)


@given(drawn())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_ensemble_gives_what_the_library_gives(case: tuple[list[Any], Matrix, Matrix]) -> None:
    assert_equal(*case)


def test_a_million_rows_get_what_the_library_gives() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.normal(size=(1_000_000, 5)).astype("f4")
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    categories = rng.integers(0, 60, (len(numbers), 2)).astype(np.int32)
    labels = np.nan_to_num(numbers[:, 0]) * np.nan_to_num(numbers[:, 1]) + np.sin(categories[:, 0]) > 0
    some = slice(0, 10_000)
    booster = fitted({"objective": "binary"}, numbers[some], categories[some], labels[some], 40)
    assert_equal([booster], numbers, categories, (FULL,))


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("table", [FULL, SPARSE])
def test_a_tree_without_splits_gives_its_value(rows: int, table: int) -> None:
    numbers, categories = np.ones((rows, 2), "f4"), np.zeros((rows, 0), np.int32)
    fit_on = np.ones((30, 2), "f4")
    booster = fitted({"objective": "regression"}, fit_on, np.zeros((30, 0), np.int32), np.arange(30.0), 3)
    ensemble = Ensemble.read([booster.model_to_string()], 2)
    sums = graph_sums(TreeGraph(ensemble, table), numbers, categories)
    assert sums.shape == (rows, 1)
    assert sums == pytest.approx(np.full((rows, 1), 14.5))


def test_many_features_are_found_on_their_own() -> None:
    rng = np.random.default_rng(6)
    numbers = rng.normal(size=(400, 150)).astype("f4")
    categories = np.zeros((400, 0), np.int32)
    labels = numbers[:, :40].sum(axis=1)
    booster = fitted({"objective": "regression", "num_leaves": 8}, numbers, categories, labels, 40)
    ensemble = Ensemble.read([booster.model_to_string()], 150)
    graph = TreeGraph(ensemble)
    few = max(len({split.column for split in tree.splits}) for tree in ensemble.trees)
    assert graph.width == few < 10
    assert np.abs(graph_sums(graph, numbers, categories) - library_sums([booster], numbers, categories)).max() < 1e-5


def test_weights_differ_where_answers_do() -> None:
    rng = np.random.default_rng(7)
    numbers, categories = rng.normal(size=(200, 2)).astype("f4"), rng.integers(0, 9, (200, 1)).astype(np.int32)
    labels = numbers[:, 0] + (categories[:, 0] % 3)
    texts = [
        fitted({"objective": "regression", "seed": 1}, numbers, categories, given, 5).model_to_string()
        for given in (labels, labels, labels + 1e-3 * numbers[:, 1])
    ]
    one, same, other = ([w.tobytes() for w in Ensemble.read([text], 2).weights] for text in texts)
    assert one == same != other
