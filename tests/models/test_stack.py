"""Models added up, as one graph. Needs: the tensorflow environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from components.models.contract import Epoch
from components.models.kinds import kind_of
from components.models.stack import FittedStack
from components.settings import BoostedTreesModel, LinearModel, Model, StackModel
from tests.train_model.problems import CLASSES, problem_of

MEMBERS: Mapping[str, Model] = {
    "linear": LinearModel(kind="linear"),
    "boosted_trees": BoostedTreesModel(kind="boosted_trees", trees=5),
}


def fitted(kind: str, weights: list[float] | None, **training: Any) -> tuple[FittedStack, list[Epoch], Any]:
    problem, steps = problem_of(kind, **training), list[Epoch]()
    model = StackModel(kind="stack", members=list(MEMBERS.values()), weights=weights)
    return kind_of(model).fit(model, problem, steps.append), steps, problem


@pytest.mark.parametrize("weights", [None, [1.5, 0.0], [0.25, 0.5]])
@pytest.mark.parametrize("kind", CLASSES)
def test_it_is_the_weighted_sum_of_its_members(kind: str, weights: list[float] | None) -> None:
    stack, _, problem = fitted(kind, weights)
    examples = problem.examples
    members = [kind_of(one).fit(one, problem, lambda _: None) for one in MEMBERS.values()]
    outputs = [one(examples.numbers, examples.categories).numpy() for one in members]
    expected = sum(share * one for share, one in zip(weights or [0.5, 0.5], outputs, strict=True))
    np.testing.assert_allclose(stack(examples.numbers, examples.categories).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert stack.parameters == 2 + sum(one.parameters for one in members)
    assert stack.libraries == members[0].libraries | members[1].libraries


@pytest.mark.parametrize("kind", CLASSES)
def test_the_members_steps_are_told_and_the_sum_is_the_last(kind: str) -> None:
    stack, steps, _ = fitted(kind, None, calibration="sigmoid")
    assert [step.unit for step in steps][:2] == ["fit", "tree"]
    assert steps[-1] == stack.fit.best
    # Its weights, 0.5 each, are between those of models that learned the same: so is its loss, or below.
    assert steps[-1].validation_loss is not None
    assert steps[-1].validation_loss < max(step.validation_loss for step in steps[:-1] if step.validation_loss)


def test_what_one_member_learned_from_says_nothing_about_the_sum() -> None:
    stack, steps, _ = fitted("binary", None)
    assert stack.knows_held_out
    assert steps[-1].validation_loss is None


def test_a_weight_decides_the_digest_of_the_weights() -> None:
    one, other = (fitted("binary", [0.5, share])[0].weights for share in (0.5, 0.6))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))
