"""How kinds are added up. Needs: the tensorflow environment."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.features import Label
from components.settings import StackModel
from components.train_model.training import parse_model
from components.tune_model.records import Row
from components.tune_model.stacking import weights_of
from tests.train_model.projects import project
from tests.tune_model.selecting import LINEAR, MLP, STUMPS, TREES, chosen
from tests.tune_model.test_tune_statistics import LABELS, drawn

KINDS = ("binary", "multiclass", "regression")


def loss(label: Label, targets: np.ndarray, sums: np.ndarray) -> float:
    if label.kind == "regression":
        return float(np.mean((sums[:, 0] - targets) ** 2) / targets.var())
    if label.kind == "binary":
        sums = np.column_stack([np.zeros(len(sums)), sums[:, 0]])
    shares = np.exp(sums - sums.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return float(-np.log(shares[np.arange(len(targets)), targets.astype(int)]).mean())


def terms_of(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What two models say that err alike, and one that says nothing, ready to be added up."""
    labels, *predictions = drawn(kind, rows, seed)
    if kind == "regression":
        terms = [one.astype("f8") - labels.mean() for one in predictions]
        return labels - labels.mean(), np.stack([*terms, np.zeros_like(terms[0])])
    logits = [np.log(one) - (np.log1p(-one) if kind == "binary" else 0) for one in predictions]
    return labels, np.stack([*logits, np.zeros_like(logits[0])]).astype("f8")


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.integers(20, 300), seed=st.integers(0, 1000))
def test_a_sum_is_no_worse_than_one_alone_on_the_rows_that_it_learned_from(kind: str, rows: int, seed: int) -> None:
    label, (targets, terms) = LABELS[kind], terms_of(kind, rows, seed)
    weights = weights_of(label, targets, terms)
    assert (weights >= 0).all()
    found = loss(label, targets, np.tensordot(weights, terms, 1))
    # What equal weights count for: of a weight that is 1, the square of its distance from a third, and twice a third.
    penalty = ((1 - 1 / 3) ** 2 + 2 / 9) / rows
    for alone in terms:
        assert found <= loss(label, targets, alone) + penalty + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_what_says_nothing_gets_the_weight_of_a_row(kind: str) -> None:
    targets, terms = terms_of(kind, 3000, 1)
    weights = weights_of(LABELS[kind], targets, terms)
    # The third model has no say in the sum, so nothing but the prior moves its weight.
    assert weights[2] == pytest.approx(1 / 3, abs=1e-3)
    assert weights[:2].sum() == pytest.approx(1, abs=0.5)


def test_few_rows_hardly_move_the_weights() -> None:
    targets, terms = terms_of("binary", 4, 2)
    few = weights_of(LABELS["binary"], targets, terms)
    assert abs(few - 1 / 3).max() < 0.7


def stack_of(rows: list[Row]) -> Row:
    (row,) = [one for one in rows if one.kind == "stack"]
    return row


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_have_kinds_added_up(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = chosen(tmp_path, [LINEAR, STUMPS, MLP], kind, folds=None, stack=None, rule="best")
    row = stack_of(board.rows)
    assert isinstance(row.model, StackModel)
    assert 2 <= len(row.model.members) <= 3
    assert row.hyperparameters == dict(zip([one.kind for one in row.model.members], row.model.shares, strict=True))
    members = {one.kind: one for one in board.rows if one.kind in row.hyperparameters}
    assert row.value <= max(one.value for one in members.values())
    assert row.fit_seconds == pytest.approx(sum(one.fit_seconds for one in members.values()), abs=0.02)
    assert max(one.latency_ms for one in members.values()) <= row.latency_ms
    assert row.latency_ms < sum(one.latency_ms for one in members.values())
    last = capsys.readouterr().out.splitlines()[-2]
    assert last.startswith(f"tune_model: 4 of 4: stack of {' and '.join(row.hyperparameters)}: {board.metric} ")
    assert last.endswith(", from what the others predicted")


def test_a_stack_is_trained_and_exported_as_any_other(tmp_path: Path) -> None:
    # One tree of two leaves and a linear model that may not say much: each lacks what the other has.
    board = chosen(tmp_path, [LINEAR | {"l2": 0.1}, TREES], "regression", folds=5, stack=True, rule="best")
    assert board.model.kind == "stack"
    trained = project("regression").train(tmp_path / "trained", board.model.model_dump(mode="json"))
    assert parse_model(board.model.model_dump(mode="json")) == board.model
    assert trained["parameters"] > 10


@pytest.mark.parametrize(
    ("candidates", "tuning"),
    [
        ([STUMPS, TREES], {"stack": True}),  # one kind
        ([LINEAR, TREES], {"stack": False}),
        ([LINEAR, TREES], {"stack": None, "validation_rows": "last"}),
    ],
)
def test_where_nothing_is_added_up(
    candidates: list[dict[str, object]], tuning: dict[str, object], tmp_path: Path
) -> None:
    board = chosen(tmp_path, candidates, folds=None, **tuning)
    assert "stack" not in [row.kind for row in board.rows]
