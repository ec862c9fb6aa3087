from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.alert_budgets import at_budget
from components.evaluate_model.intervals import distribution, interval
from components.evaluate_model.metrics import measure
from components.predictions import Predictions, Sampled
from components.resampled_metrics import points, statistic
from components.settings import AlertBudget, Bootstrap, Task, metrics_of

SCORES = st.integers(0, 20).map(lambda twentieths: twentieths / 20)
COARSE = st.integers(-5, 5).map(float)
BUDGETS = st.none() | st.builds(
    lambda alerts, per: AlertBudget(alerts=alerts, per=per, time="at" if per == "day" else None),
    st.sampled_from([0.5, 1, 2.5, 100, 5000]),
    st.sampled_from(["1000_rows", "day"]),
)


@st.composite
def predictions(draw, kinds=("binary", "multiclass", "regression", "anomaly_detection", "clustering")):
    """Predictions with ties, and groups without gaps."""
    kind = draw(st.sampled_from(kinds))
    rows = draw(st.integers(1, 30))

    def each(values, width=None):
        if width:
            values = st.lists(values, min_size=width, max_size=width)
        return np.array(draw(st.lists(values, min_size=rows, max_size=rows)))

    groups = np.unique(each(st.integers(0, 2)), return_inverse=True)[1]
    task = Task(type=kind, label="y")
    if kind == "regression":
        return Predictions(task, each(COARSE), each(COARSE), (), 0.5, draw(st.sampled_from([0.1, 0.5, 0.9]))), groups
    if kind == "binary":
        threshold = draw(st.sampled_from([0.1, 0.5, 0.7]))
        scores = each(SCORES).astype(np.float32)
        budget, days = draw(BUDGETS), each(st.integers(19_000, 19_003))
        return Predictions(
            task,
            each(st.booleans()),
            scores,
            ("0", "1"),
            threshold,
            0.5,
            budget=budget,
            days=days if budget and budget.per == "day" else None,
        ), groups
    labelled = draw(st.booleans())
    if kind == "anomaly_detection":
        task = Task(type=kind, label="y" if labelled else None)
        truth = each(st.booleans()) & labelled
        quantiles = np.sort(np.array(draw(st.lists(SCORES, min_size=2, max_size=9))))
        threshold = draw(st.sampled_from([0.1, 0.5, 0.7]))
        scores = each(SCORES).astype(np.float32)
        return Predictions(task, truth, scores, ("0", "1"), threshold, 0.5, quantiles), groups
    if kind == "clustering":
        task = Task(type=kind, label="y" if labelled else None)
        truth = each(st.integers(0, 2)) * labelled
        sampled = Sampled(np.arange(rows), each(COARSE, 2), each(SCORES))
        return Predictions(task, truth, each(st.integers(0, 2)), ("a", "b", "c"), 0.5, 0.5, None, 4, sampled), groups
    weights = each(st.integers(0, 9), 3) + 1e-3
    scores = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(task, each(st.integers(0, 2)), scores, ("a", "b", "c"), 0.5, 0.5), groups


def rows_of(whole: Predictions, indices: np.ndarray) -> Predictions:
    sampled = whole.sampled
    if sampled is not None:
        sampled = Sampled(np.arange(len(indices)), sampled.points[indices], sampled.fits[indices])
    days = None if whole.days is None else whole.days[indices]
    return replace(whole, truth=whole.truth[indices], scores=whole.scores[indices], sampled=sampled, days=days)


def by_scikit_learn(whole: Predictions, indices: np.ndarray) -> list[float]:
    values = measure(rows_of(whole, indices)) if len(indices) else {}
    return [np.nan if values.get(name) is None else values[name] for name in whole.metrics]


@given(predictions(), st.data())
@settings(max_examples=150, deadline=None)
def test_resampled_metrics_are_scikit_learns_of_the_drawn_rows(drawn, data):
    whole, groups = drawn
    row = st.integers(0, len(whole) - 1)
    draw = np.array(data.draw(st.lists(row, min_size=len(whole), max_size=len(whole))))
    values = statistic(whole, groups)(draw[np.newaxis])[..., 0]
    for group in range(groups.max() + 1):
        expected = by_scikit_learn(whole, draw[groups[draw] == group])
        np.testing.assert_allclose(values[:, group], expected, rtol=1e-5, atol=1e-6)


@given(predictions(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_metrics_do_not_depend_on_the_order_of_rows(drawn, random):
    whole, groups = drawn
    order = list(range(len(whole)))
    random.shuffle(order)
    shuffled = rows_of(whole, np.array(order))
    np.testing.assert_allclose(points(whole, groups), points(shuffled, groups[order]), rtol=1e-9, atol=1e-12)
    everything = np.arange(len(whole))
    expected = by_scikit_learn(whole, everything)
    np.testing.assert_allclose(by_scikit_learn(shuffled, everything), expected, rtol=1e-6, atol=1e-9)


@given(predictions())
@settings(max_examples=30, deadline=None)
def test_an_interval_holds_its_point_and_is_ordered(drawn):
    whole, groups = drawn
    point = points(whole, groups)
    values = distribution(statistic(whole, groups), len(whole), Bootstrap(resamples=20))
    low, high = interval(values, point, 0.9)
    known = ~np.isnan(low) & ~np.isnan(point)
    assert (low <= point)[known].all()
    assert (point <= high)[known].all()


def many(rows: int, seed: int = 0, budget: AlertBudget | None = None) -> Predictions:
    random = np.random.default_rng(seed)
    scores = random.beta(2, 5, rows).astype(np.float32)
    days = np.arange(rows) // 500 if budget and budget.per == "day" else None
    truth = random.random(rows) < scores
    return Predictions(Task(type="binary", label="y"), truth, scores, ("0", "1"), 0.4, 0.5, budget=budget, days=days)


def test_tying_neighbouring_scores_moves_metrics_little():
    whole = many(50_000)
    groups = np.arange(50_000) % 2
    identity = np.arange(50_000)[np.newaxis]
    exact, tied = statistic(whole, groups)(identity), statistic(whole, groups, 2048)(identity)
    np.testing.assert_allclose(tied, exact, atol=1e-3)
    # What is counted, not ranked, must not move at all: no tie crosses the threshold or a calibration bin.
    names = metrics_of(Task(type="binary", label="y"))
    counted = [names.index(name) for name in ("accuracy", "precision", "recall", "f1", "calibration_error")]
    np.testing.assert_allclose(tied[counted], exact[counted], rtol=1e-9)


@pytest.mark.parametrize(
    "budget",
    [
        AlertBudget(alerts=0.2),
        AlertBudget(alerts=5),
        AlertBudget(alerts=300),
        AlertBudget(alerts=3, per="day", time="t"),
    ],
)
def test_what_is_tied_far_from_the_edge_moves_no_resample_of_a_budget(budget):
    whole = many(20_000, budget=budget)
    groups = np.arange(20_000) % 2
    draws = np.random.default_rng(1).integers(0, 20_000, (20, 20_000))
    coarse = statistic(whole, groups, 64)(draws)[-2:]
    for resample, draw in enumerate(draws):
        for group in range(2):
            drawn = draw[groups[draw] == group]
            exact = at_budget(
                whole.truth[drawn], whole.scores[drawn], None if whole.days is None else whole.days[drawn], budget
            )
            np.testing.assert_allclose(coarse[:, group, resample], exact, rtol=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # AUC of Beta(2, 5) scores that are true probabilities, from 400,000 rows.
    truth = measure(many(400_000, seed=99))["auc"]
    covered = 0
    for seed in range(60):
        sample = many(400, seed)
        groups = np.zeros(400, dtype=np.int64)
        values = distribution(statistic(sample, groups), 400, Bootstrap(resamples=200, confidence=0.9))
        low, high = interval(values, points(sample, groups), 0.9)
        covered += bool(low[0, 0] <= truth <= high[0, 0])
    assert 46 <= covered <= 60  # 54 ± 3.5 standard deviations


def test_the_same_seed_draws_the_same_rows_for_two_models():
    one = many(3000)
    values = distribution(statistic(one, np.zeros(3000, np.int64)), 3000, Bootstrap(resamples=10))
    again = distribution(statistic(one, np.zeros(3000, np.int64)), 3000, Bootstrap(resamples=10))
    np.testing.assert_array_equal(values, again)
    other = distribution(statistic(one, np.zeros(3000, np.int64)), 3000, Bootstrap(resamples=10, seed=1))
    assert (values != other).any()
