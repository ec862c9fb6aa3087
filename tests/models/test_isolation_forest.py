"""Isolation forests as graphs: equal to scikit-learn on whatever rows come."""

from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from components.errors import DataRejectedError
from components.models.examples import Matrix
from components.models.isolation_forest import ASSET, IsolationTrees, as_text, path_length
from tests.unsupervised import answers, fit, problem, rows

STRANGE = np.array([np.nan, 0, -0.0, 1e30, -1e30, np.inf, -np.inf], "f4")


@st.composite
def forests(draw: st.DrawFn) -> tuple[Any, Matrix, Matrix]:
    """A forest, what stands in for missing numbers, and rows: of those it learned from, and strange ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, width = draw(st.integers(2, 300)), draw(st.integers(1, 6))
    matrix = np.round(rng.normal(0, 10 ** draw(st.integers(-2, 3)), (count, width)), draw(st.integers(0, 4)))
    forest = IsolationForest(
        n_estimators=draw(st.integers(1, 20)),
        max_samples=draw(st.integers(1, count)),
        max_features=draw(st.sampled_from([0.5, 1.0])),
        random_state=draw(st.integers(0, 100)),
    ).fit(matrix.astype("f4"))
    thresholds = np.concatenate([one.tree_.threshold for one in forest.estimators_]).astype("f4")
    asked = np.vstack([matrix, rng.choice(np.concatenate([thresholds, STRANGE[1:5]]), (50, width))]).astype("f4")
    return forest, matrix.mean(axis=0).astype("f4"), asked


@given(forests())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_scores_are_scikit_learns(drawn: tuple[Any, Matrix, Matrix]) -> None:
    forest, means, asked = drawn
    if forest.max_samples_ == 1:
        return  # a tree without a split has no usual path length; fit refuses so few rows
    fitted = IsolationTrees(as_text(forest, means, []), len(means), None)  # type: ignore[arg-type]
    scores = answers(fitted, asked, np.zeros((len(asked), 0)))[:, 0]
    np.testing.assert_allclose(scores, -forest.score_samples(asked), atol=2e-6)


@given(forests())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_lightgbm_reads_the_trees_and_its_shap_values_add_up(drawn: tuple[Any, Matrix, Matrix]) -> None:
    forest, means, asked = drawn
    if forest.max_samples_ == 1:
        return
    booster = lightgbm.Booster(model_str=as_text(forest, means, []))
    margins = booster.predict(asked, raw_score=True)
    np.testing.assert_allclose(2.0**-margins, -forest.score_samples(asked), atol=2e-6)
    np.testing.assert_allclose(booster.predict(asked, pred_contrib=True).sum(axis=1), margins, rtol=1e-9)


def test_a_missing_number_is_the_mean_and_a_category_its_rarity() -> None:
    numbers, categories = rows(500)
    given_problem = problem(numbers, categories)
    fitted = fit(given_problem, {"kind": "isolation_forest"})
    means = np.nanmean(numbers, axis=0)
    filled = np.where(np.isnan(numbers), means, numbers)
    np.testing.assert_allclose(answers(fitted, numbers, categories), answers(fitted, filled, categories), atol=1e-6)
    shares = [np.bincount(categories[:, column], minlength=8) / len(numbers) for column in range(2)]
    surprises = [-np.log2(np.maximum(one, 0.5 / len(numbers)))[categories[:, c]] for c, one in enumerate(shares)]
    matrix = np.column_stack([filled, *surprises]).astype("f4")
    forest = IsolationForest(n_estimators=100, max_samples=256, random_state=17).fit(matrix)
    np.testing.assert_allclose(answers(fitted, numbers, categories)[:, 0], -forest.score_samples(matrix), atol=1e-4)


def test_a_category_that_was_never_seen_is_at_least_as_odd_as_any() -> None:
    numbers, categories = rows(2_000)
    fitted = fit(problem(numbers, categories), {"kind": "isolation_forest"})
    scores = [answers(fitted, numbers[:50], np.full((50, 2), category)).mean() for category in (0, 3, 7)]
    assert scores[0] < scores[1] <= scores[2]


def test_rows_of_any_kind_get_a_score_from_0_to_1() -> None:
    numbers, categories = rows(300)
    for model in ({"kind": "isolation_forest"}, {"kind": "autoencoder"}):
        fitted = fit(problem(numbers, categories), model)
        strange = np.random.default_rng(1).choice(STRANGE[:-2], (100, 3))
        scores = answers(fitted, strange, np.zeros((100, 2)))
        assert ((scores >= 0) & (scores <= 1)).all(), model


def test_the_same_seed_gives_the_same_model() -> None:
    numbers, categories = rows(200)
    for model in ({"kind": "isolation_forest"}, {"kind": "autoencoder"}, {"kind": "k_means", "clusters": 3}):
        kind = "clustering" if model["kind"] == "k_means" else "anomaly_detection"
        one, other = (fit(problem(numbers, categories, kind), model) for _ in range(2))
        for weights, others in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(weights, others)


def test_many_large_trees_have_tables_of_bounded_size() -> None:
    numbers, categories = rows(6_000)
    fitted = fit(problem(numbers, categories), {"kind": "isolation_forest", "trees": 60, "sample_rows": 4_096})
    assert isinstance(fitted, IsolationTrees)
    assert len(fitted._graphs) > 1
    assert sum(part.numpy().nbytes for graph in fitted._graphs for part in [graph._table._vectors]) < 48 << 20
    booster = lightgbm.Booster(model_str=fitted.assets[ASSET].decode())
    matrix = np.column_stack([numbers, categories])[:200].astype("f8")
    expected = 2.0 ** -booster.predict(matrix, raw_score=True)
    np.testing.assert_allclose(answers(fitted, numbers[:200], categories[:200])[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("count", [2, 5])
def test_rows_that_are_all_alike_are_refused(count: int) -> None:
    with pytest.raises(DataRejectedError, match=rf"the {count} rows that are learned from are all alike"):
        fit(problem(np.ones((count, 2)), np.zeros((count, 0))), {"kind": "isolation_forest"})


def test_the_usual_path_length_is_that_of_the_paper() -> None:
    assert path_length(np.array([1, 2])).tolist() == [0, 1]
    # c(256) of Liu, Ting and Zhou.
    assert path_length(np.array(256)) == pytest.approx(10.2448, abs=1e-4)


def test_an_autoencoder_finds_what_breaks_a_pattern() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(2_000, 1))
    numbers = np.hstack([base, -base, 2 * base]) + rng.normal(0, 0.1, (2_000, 3))
    fitted = fit(problem(numbers, np.zeros((2_000, 0))), {"kind": "autoencoder", "code_units": 1})
    usual, broken = np.array([[1, -1, 2]]), np.array([[1, 1, -2]])
    assert answers(fitted, usual, np.zeros((1, 0)))[0, 0] < 0.6 < 0.9 < answers(fitted, broken, np.zeros((1, 0)))[0, 0]


def test_an_autoencoder_takes_constants_and_categories_alone() -> None:
    numbers, categories = rows(200)
    constant = fit(problem(np.ones((200, 2)), categories), {"kind": "autoencoder"})
    assert np.isfinite(answers(constant, np.array([[1.0, 5.0]]), categories[:1])).all()
    alone = fit(problem(numbers[:, :0], categories), {"kind": "autoencoder"})
    rare, common = answers(alone, np.zeros((2, 0)), np.array([[3, 3], [0, 0]]))[:, 0]
    assert rare > common
