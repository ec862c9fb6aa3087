"""Precision and recall at a fixed number of alerts. Needs: the venv twin of the TensorFlow image."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.alert_budgets import alerts_of, at_budget
from components.errors import DataRejectedError, InputError
from components.settings import AlertBudget, Evaluation, Task, evaluation_faults
from tests.evaluate_model.datasets import binary_case, flights

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40)


def test_the_highest_scores_raise_the_alerts() -> None:
    truth = np.array([True, False, True, False, False, True])
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], np.float32)
    for alerts, precision, recall in (
        (1, 1.0, 1 / 3),
        (2, 0.5, 1 / 3),
        (3, 2 / 3, 2 / 3),
        (6, 0.5, 1.0),
        (50, 0.5, 1.0),
    ):
        budget = AlertBudget(alerts=1000 * alerts / 6)
        assert at_budget(truth, scores, None, budget) == pytest.approx((precision, recall))


def test_each_day_has_its_own_alerts() -> None:
    truth = np.array([True, False, False, True, False])
    scores = np.array([0.2, 0.1, 0.9, 0.8, 0.7], np.float32)
    days = np.array([1, 1, 2, 2, 2])
    assert at_budget(truth, scores, days, AlertBudget(alerts=1, per="day", time="t")) == (0.5, 0.5)
    assert at_budget(truth, scores, days, AlertBudget(alerts=2, per="day", time="t")) == (0.5, 1.0)


@given(ROWS, st.integers(1, 45), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_ties_count_as_random_order_does_on_average(rows: list[tuple[bool, int, int]], most: int, seed: int) -> None:
    truth, scores, _ = (np.array(column) for column in zip(*rows, strict=True))
    budget = AlertBudget(alerts=1000 * most / len(rows))
    precision, recall = at_budget(truth, scores.astype(np.float32), None, budget)
    alerts = min(most, len(rows))
    rng = np.random.default_rng(seed)
    orders = (np.lexsort((rng.random(len(rows)), -scores))[:alerts] for _ in range(400))
    hits = np.mean([truth[order].sum() for order in orders])
    assert precision == pytest.approx(hits / alerts, abs=0.2)
    assert (recall is None) == (not truth.any())
    if recall is not None and precision is not None:
        assert recall * truth.sum() == pytest.approx(precision * alerts)


@given(ROWS, st.floats(0.1, 2000), st.sampled_from(["1000_rows", "day"]))
@settings(max_examples=100, deadline=None)
def test_more_alerts_find_more_and_never_more_than_there_is(
    rows: list[tuple[bool, int, int]], alerts: float, per: str
) -> None:
    truth, scores, days = (np.array(column) for column in zip(*rows, strict=True))
    time = "t" if per == "day" else None
    found = [
        at_budget(truth, scores, days if time else None, AlertBudget.model_validate(settings))[1] or 0.0
        for settings in ({"alerts": alerts, "per": per, "time": time}, {"alerts": 2 * alerts, "per": per, "time": time})
    ]
    assert 0 <= found[0] <= found[1] + 1e-9 <= 1 + 1e-6


@given(st.integers(0, 100_000), st.floats(0.001, 3000))
def test_a_budget_is_kept_and_one_alert_there_is_always(rows: int, alerts: float) -> None:
    found = float(alerts_of(np.array(rows), AlertBudget(alerts=alerts)))
    assert found == int(found)
    assert min(rows, 1) <= found <= max(min(rows, 1), min(rows, rows * alerts / 1000 + 1e-6))


def test_a_model_is_measured_bound_and_reported_at_its_budget(tmp_path: Path) -> None:
    settings = {"alert_budget": {"alerts": 50}, "thresholds": [{"metric": "precision_at_budget", "min": 0.99}]}
    result = binary_case(tmp_path, evaluation=settings).evaluate()
    found = result.metrics["precision_at_budget"]
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert found.low <= found.value <= found.high
    assert found.value > 1.2 * (result.baseline["precision_at_budget"] or 0)
    assert "precision_at_budget" in result.reason
    passed = binary_case(tmp_path / "passed", evaluation={"alert_budget": {"alerts": 50}}).evaluate()
    assert f"precision_at_budget {found.value:.4g} [" in passed.reason
    report = (tmp_path / "report.html").read_text()
    assert "The alert budget is 50 alerts per 1,000 rows" in report
    assert "share of the alerts that are right" in report


def test_a_budget_a_day_needs_the_days(tmp_path: Path) -> None:
    budget = {"alerts": 3, "per": "day", "time": "at"}
    rows = flights()
    at = pa.array(np.arange(rows.num_rows) * 3600 + 19_675 * 86_400)
    case = binary_case(tmp_path / "there", eval=rows.append_column("at", at), evaluation={"alert_budget": budget})
    found = case.evaluate().metrics
    precision, recall = (found[f"{name}_at_budget"].value for name in ("precision", "recall"))
    assert precision is not None
    assert recall is not None
    days, positives = len(np.unique(at.to_numpy() // 86_400)), rows["late"].to_numpy().sum()
    assert recall * positives == pytest.approx(precision * 3 * days)
    for column, error, says in (
        (None, InputError, "has no column 'at'"),
        (
            pa.array(["x"] * rows.num_rows),
            InputError,
            "'at', by which evaluation.alert_budget tells the day, is string",
        ),
        (pa.array([None, *at.to_pylist()[1:]], pa.int64()), DataRejectedError, "1 of .* rows have no 'at'"),
    ):
        table = rows if column is None else rows.append_column("at", column)
        case = binary_case(tmp_path / error.__name__ / says[:6], eval=table, evaluation={"alert_budget": budget})
        with pytest.raises(error, match=says):
            case.evaluate()


@pytest.mark.parametrize(
    ("task", "evaluation", "says"),
    [
        (
            Task(type="binary", label="y"),
            {"thresholds": [{"metric": "precision_at_budget", "min": 0.5}]},
            "needs a budget",
        ),
        (Task(type="regression", label="y"), {"alert_budget": {"alerts": 5}}, "has no positive class to alert about"),
        (Task(type="anomaly_detection"), {"alert_budget": {"alerts": 5}}, "without a label has no positive class"),
        (
            Task(type="regression", label="y"),
            {"thresholds": [{"metric": "recall_at_budget", "min": 0.5}]},
            "has no 'recall_at_budget'",
        ),
    ],
)
def test_a_budget_that_does_not_fit_is_refused(task: Task, evaluation: dict[str, object], says: str) -> None:
    assert any(says in fault for _, fault in evaluation_faults(task, Evaluation.model_validate(evaluation)))


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"alerts": 0}, "greater than 0"),
        ({"alerts": 5, "per": "day"}, "so give time"),
        ({"alerts": 5, "time": "at"}, "time is for a budget per day"),
    ],
)
def test_a_budget_is_whole(budget: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AlertBudget.model_validate(budget)
