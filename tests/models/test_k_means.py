"""k-means as a graph: equal to scikit-learn, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from components.errors import DataRejectedError, InputError
from components.models.scaling import Scaling
from tests.unsupervised import answers, fit, problem, rows


@given(st.integers(0, 2**32), st.integers(5, 60), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_distances_are_scikit_learns(seed: int, count: int, clusters: int) -> None:
    numbers, categories = rows(count, seed)
    made = problem(numbers, categories, "clustering")
    fitted = fit(made, {"kind": "k_means", "clusters": clusters, "starts": 2})
    matrix = Scaling.of(made.packing, made.examples, np.arange(count)).matrix(made.examples, np.arange(count))
    found = KMeans(clusters, n_init=2, random_state=17).fit(matrix)
    order = np.argsort(-np.bincount(found.labels_, minlength=clusters), kind="stable")
    np.testing.assert_allclose(answers(fitted, numbers, categories), found.transform(matrix)[:, order], atol=1e-5)


def test_clusters_are_numbered_by_size() -> None:
    numbers, categories = rows(3_000, 1)
    distances = answers(
        fit(problem(numbers, categories, "clustering"), {"kind": "k_means", "clusters": 6}), numbers, categories
    )
    sizes = np.bincount(distances.argmin(axis=1), minlength=6)
    assert sizes.tolist() == sorted(sizes, reverse=True)


def test_a_row_at_a_centre_has_distance_0() -> None:
    numbers = np.array([[1e4, 3.0], [2e4, -5.0], [3e4, 7.0]])
    fitted = fit(problem(numbers, np.zeros((3, 0)), "clustering"), {"kind": "k_means", "clusters": 3})
    assert answers(fitted, numbers, np.zeros((3, 0))).min(axis=1) == pytest.approx(0, abs=1e-6)


def test_small_batches_find_the_same_clusters() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 3_000)
    numbers = rng.normal(0, 0.2, (3_000, 2)) + np.array([[0, 0], [5, 0], [0, 5]])[truth]
    made = problem(numbers, np.zeros((3_000, 0)), "clustering")
    for more in ({}, {"batch_rows": 256}):
        taken = answers(fit(made, {"kind": "k_means", "clusters": 3, **more}), numbers, np.zeros((3_000, 0))).argmin(1)
        assert len({(one, other) for one, other in zip(taken.tolist(), truth.tolist(), strict=True)}) == 3


def test_a_weight_of_0_leaves_categories_out() -> None:
    numbers, categories = rows(300)
    made = problem(numbers, categories, "clustering")
    fitted = fit(made, {"kind": "k_means", "clusters": 3, "category_weight": 0})
    np.testing.assert_array_equal(answers(fitted, numbers, categories), answers(fitted, numbers, categories[::-1]))


def test_more_clusters_than_different_rows_are_refused() -> None:
    numbers = np.repeat([[1.0], [2.0]], 20, axis=0)
    with pytest.raises(DataRejectedError, match=r"model.clusters is 3, but the 40 rows .* have only 2 different ones"):
        fit(problem(numbers, np.zeros((40, 0)), "clustering"), {"kind": "k_means", "clusters": 3})


def test_an_unknown_number_of_clusters_is_refused() -> None:
    numbers, categories = rows(50)
    with pytest.raises(InputError, match=r"give model.clusters, or let tune_model choose"):
        fit(problem(numbers, categories, "clustering"), {"kind": "k_means"})


def test_constants_and_missing_numbers_have_a_place_on_the_scale() -> None:
    numbers = np.array([[5.0, np.nan], [5.0, 1.0], [5.0, 3.0]])
    made = problem(numbers, np.zeros((3, 0)), "clustering")
    scaling = Scaling.of(made.packing, made.examples, np.arange(3))
    np.testing.assert_allclose(scaling.numbers(tf.constant(numbers, tf.float32)), [[0, 0], [0, -1], [0, 1]])
