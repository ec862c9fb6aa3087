"""Distances and their tests. Needs: the environment in which TFDV runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.monitor_model.distances import (
    chi_squared_tail,
    homogeneity,
    measure,
    proportions,
    share_interval,
    significant,
)

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("statistic", "freedom", "tail"),
    # scipy.stats.chi2.sf
    [(0, 1, 1.0), (1, 1, 0.31731050786291115), (10, 19, 0.9529457975866219), (100, 19, 5.355560750435117e-13)],
)
def test_the_tail_of_chi_squared(statistic: float, freedom: int, tail: float) -> None:
    assert chi_squared_tail(statistic, freedom) == pytest.approx(tail, rel=1e-9)


def test_the_test_of_homogeneity_is_that_of_a_textbook() -> None:
    # scipy.stats.chi2_contingency([[30, 70], [50, 50]], correction=False)
    assert homogeneity(np.array([30, 70]), np.array([50, 50])) == pytest.approx(0.0038924, rel=1e-4)
    assert proportions(600, 600, 0, 20_000) < 1e-300
    # scipy.stats.fisher_exact([[3, 197], [2, 9998]]), ([[197, 3], [9998, 2]]) and ([[0, 50], [1, 99]])
    assert proportions(3, 200, 2, 10_000) == pytest.approx(7.21446e-05, rel=1e-4)
    assert proportions(197, 200, 9_998, 10_000) == pytest.approx(7.21446e-05, rel=1e-4)
    assert proportions(0, 50, 1, 100) == pytest.approx(1.0)
    assert proportions(0, 0, 5, 10) == 1.0


@pytest.mark.parametrize("rows", [200, 2_000])
@pytest.mark.parametrize("cells", [2, 20, 300])
def test_p_values_of_the_same_distribution_are_even(rows: int, cells: int) -> None:
    generator = np.random.default_rng(rows + cells)
    shares = generator.dirichlet(np.ones(cells))
    values = [
        homogeneity(generator.multinomial(rows, shares), generator.multinomial(20_000, shares)) for _ in range(1000)
    ]
    for level in (0.01, 0.05, 0.2):
        # Three standard errors above; fewer is no fault.
        assert np.mean(np.array(values) <= level) < level + 3 * np.sqrt(level * (1 - level) / 1000) + 0.005


@pytest.mark.parametrize("rows", [200, 5_000])
def test_few_rows_do_not_look_far_away(rows: int) -> None:
    generator = np.random.default_rng(rows)
    shares = np.full(20, 0.05)
    found = [measure(generator.multinomial(rows, shares), generator.multinomial(20_000, shares), 1) for _ in range(200)]
    assert np.mean([one.jensen_shannon[0] for one in found]) < 0.003
    assert np.mean([one.jensen_shannon[1] == 0 for one in found]) > 0.9


def test_the_interval_holds_the_true_divergence() -> None:
    generator = np.random.default_rng(3)
    p, q = np.full(10, 0.1), np.linspace(1, 2, 10) / 15
    middle = (p + q) / 2
    true = float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2)
    found = [measure(generator.multinomial(2_000, p), generator.multinomial(5_000, q), 1) for _ in range(300)]
    assert np.mean([one.jensen_shannon[1] <= true <= one.jensen_shannon[2] for one in found]) > 0.9
    assert np.mean([one.jensen_shannon[0] for one in found]) == pytest.approx(true, rel=0.1)


@given(COUNTS, COUNTS)
def test_distances_are_bounded_and_have_their_value_in_their_interval(one: list[int], other: list[int]) -> None:
    size = min(len(one), len(other))
    first, second = np.array(one[:size]), np.array(other[:size])
    if not first.sum() or not second.sum():
        return
    found = measure(first, second, 1)
    for value, low, high in (found.jensen_shannon, found.l_infinity):
        assert 0 <= low <= value <= high <= 1
    assert 0 <= found.p_value <= 1
    assert found.p_value == pytest.approx(measure(second, first, 1).p_value, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.5))
def test_significance_is_benjamini_and_hochbergs(values: list[float], rate: float) -> None:
    found = significant(np.array(values), rate)
    order = sorted(values)
    passing = [p for rank, p in enumerate(order, 1) if p <= rate * rank / len(order)]
    assert found.tolist() == [bool(passing) and p <= max(passing) for p in values]


def test_the_interval_of_a_share_is_wilsons() -> None:
    # statsmodels.stats.proportion.proportion_confint(10, 100, method="wilson")
    assert share_interval(10, 100) == pytest.approx((0.05523, 0.17437), abs=1e-4)
    assert share_interval(0, 0) == (0.0, 1.0)
