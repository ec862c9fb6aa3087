"""Rows without a label, and models fitted to them. Needs: the venv twin of the tensorflow image."""

from typing import Any

import numpy as np
import tensorflow as tf

from components.features import Feature, FeatureSpec, Label
from components.models.contract import FittedModel, Problem
from components.models.examples import Examples, Matrix, hold_out
from components.models.kinds import kind_of
from components.models.packing import Packing
from components.settings import Task, Training
from components.train_model.training import parse_model

LABEL = Label(name=None, kind="anomaly_detection", classes=["normal", "anomaly"])


def problem(numbers: Matrix, categories: Matrix, kind: str = "anomaly_detection", ids: int = 8) -> Problem:
    """Rows without a label."""
    features = []
    if numbers.shape[1]:
        features.append(Feature(name="n", kind="number", may_be_missing=True, width=numbers.shape[1]))
    if categories.shape[1]:
        features.append(Feature(name="c", kind="category", categories=ids, width=categories.shape[1]))
    label = LABEL.model_copy(update={"kind": kind})
    given_training = Training(batch_size=64, learning_rate=0.01)
    return Problem(
        Examples(numbers.astype("f4"), categories.astype("i4"), np.full(len(numbers), np.nan, "f4")),
        *hold_out(len(numbers), given_training),
        Packing(FeatureSpec(inputs=[], features=features, label=label)),
        label,
        Task(type=kind),  # type: ignore[arg-type]
        given_training,
    )


def fit(given: Problem, model: dict[str, Any]) -> FittedModel:
    parsed = parse_model(model)
    return kind_of(parsed).fit(parsed, given, lambda step: None)


def answers(fitted: FittedModel, numbers: Matrix, categories: Matrix) -> Matrix:
    outputs: Matrix = fitted(tf.constant(numbers.astype("f4")), tf.constant(categories.astype("i4"))).numpy()
    return outputs


def rows(count: int, seed: int = 0) -> tuple[Matrix, Matrix]:
    """Numbers, some missing, and categories of which the last is rare."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(count, 3)).astype("f4")
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    return numbers, rng.choice(4, (count, 2), p=[0.5, 0.3, 0.19, 0.01])
