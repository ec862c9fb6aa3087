"""The linear model: scikit-learn's weights, as a graph of raw features. Needs: the tensorflow environment."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from components.errors import InputError
from components.models.contract import Epoch, Problem
from components.models.linear import FittedLinear, Linear
from components.settings import LinearModel
from tests.train_model.problems import CLASSES, IDS, problem_of


def fitted(problem: Problem, **settings: Any) -> tuple[FittedLinear, list[Epoch]]:
    steps: list[Epoch] = []
    return Linear().fit(LinearModel(kind="linear", **settings), problem, steps.append), steps


@pytest.mark.parametrize("kind", CLASSES)
def test_it_is_scikit_learns_model(kind: str) -> None:
    problem = problem_of(kind)
    model, _ = fitted(problem)
    examples = problem.examples
    means = np.nanmean(examples.numbers.astype(np.float64), 0)
    known = np.where(np.isnan(examples.numbers), means, examples.numbers)
    one_hot = [np.eye(size)[examples.categories[:, index]] for index, size in enumerate(IDS)]
    design = np.concatenate([(known - means) / known.std(0), *one_hot], 1)
    if kind == "regression":
        expected = Ridge(1.0).fit(design, examples.labels).predict(design)[:, None]
    else:
        reference = LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(design, examples.labels)
        expected = reference.decision_function(design).reshape(len(design), -1)
    outputs = model(examples.numbers, examples.categories).numpy()
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, atol=0.03)


@settings(max_examples=10, deadline=None)
@given(kind=st.sampled_from(list(CLASSES)), seed=st.integers(0, 1000))
def test_the_loss_is_that_of_what_the_graph_answers(kind: str, seed: int) -> None:
    problem = problem_of(kind, 120, seed, 30, calibration="sigmoid")
    model, (step,) = fitted(problem)
    from components.models.fitting import losses

    for rows, told in ((problem.learned, step.loss), (problem.held_out, step.validation_loss)):
        outputs = model(problem.examples.numbers[rows], problem.examples.categories[rows])
        answered = float(np.mean(losses(kind, problem.examples.labels[rows], outputs)))
        assert told == pytest.approx(answered, rel=1e-3, abs=1e-4)


def test_rows_that_only_tell_when_to_stop_are_learned_from() -> None:
    everything, (step,) = fitted(problem_of("binary"))
    assert everything.knows_held_out
    assert step.validation_loss is None
    for training in ({"calibration": "sigmoid"}, {"decision": {"by": "max_f1"}}):
        model, (step,) = fitted(problem_of("binary", **training))
        assert not model.knows_held_out
        assert step.validation_loss is not None


def test_a_penalty_shrinks_and_balance_raises_the_rare_class() -> None:
    problem = problem_of("binary")
    sizes = [np.abs(fitted(problem, l2=l2)[0].weights[1][0]).item() for l2 in (0.0, 0.01, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    rare = problem_of("binary")
    rare.examples.labels[(rare.examples.labels == 1) & (np.arange(400) % 10 > 0)] = 0
    means = []
    for weight in ("none", "balanced"):
        training = rare.training.model_copy(update={"class_weight": weight})
        model, _ = fitted(Problem(**{**rare.__dict__, "training": training}))
        means.append(float(np.mean(model(rare.examples.numbers, rare.examples.categories))))
    assert means[1] > means[0] + 1


def test_constant_columns_do_no_harm() -> None:
    problem = problem_of("regression")
    problem.examples.numbers[:, 0] = 12345.678
    problem.examples.numbers[:, 2] = 0.0
    model, (step,) = fitted(problem)
    assert np.isfinite(model(problem.examples.numbers, problem.examples.categories)).all()
    assert step.loss < np.var(problem.examples.labels)


def test_class_weights_of_a_regression_are_refused() -> None:
    with pytest.raises(InputError, match="a regression has no classes; set it to none"):
        fitted(problem_of("regression", class_weight="balanced"))
