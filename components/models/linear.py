"""The linear model, by scikit-learn: one weight a number, one a category."""

import time
from typing import Any

import numpy as np
import sklearn
import tensorflow as tf
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge

from components.errors import InputError
from components.models.contract import Epoch, Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Examples, Matrix, column_means, is_reserved, without_missing
from components.models.fitting import class_weights, losses
from components.models.packing import Packing, column_slices, size_of
from components.models.scaling import Scaling
from components.settings import LinearModel

_MOST_ITERATIONS = 500
_LEAST_PENALTY = 1e-10


class FittedLinear(FittedModel):
    """Weights, and what they are added to."""

    def __init__(
        self, fit: Fit, means: Matrix, weights: Matrix, intercept: Matrix, packing: Packing, knows_held_out: bool
    ) -> None:
        """Takes the weights apart.

        Args:
            fit: how it went.
            means: of the numbers, float32 [number columns]; they stand in for missing ones.
            weights: float32 [columns of the design, outputs].
            intercept: float32 [outputs].
            packing: which feature lies where.
            knows_held_out: see FittedModel.
        """
        super().__init__(fit, {"scikit-learn": sklearn.__version__, "tensorflow": tf.__version__})
        self.knows_held_out = knows_held_out
        self._means = tf.constant(means)
        self._intercept = tf.constant(intercept)
        sizes = [size_of(feature) for feature in packing.categories]
        slopes, *tables = np.split(weights, np.cumsum([packing.number_columns, *sizes])[:-1])
        self._slopes = tf.constant(slopes)
        self._tables = [tf.constant(table) for table in tables]
        self._columns = [columns for _, columns in column_slices(packing.categories)]

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Predicts transformed rows; see FittedModel."""
        known = tf.where(tf.math.is_nan(numbers), self._means, numbers)
        result = tf.matmul(known, self._slopes) + self._intercept
        for table, columns in zip(self._tables, self._columns, strict=True):
            result += tf.reduce_sum(tf.gather(table, categories[:, columns]), 1)
        return result

    @property
    def weights(self) -> list[Matrix]:
        """Means, slopes, a table for each category, intercept."""
        return [one.numpy() for one in (self._means, self._slopes, *self._tables, self._intercept)]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(one.size for one in self.weights[1:])


class Linear(Kind[LinearModel]):
    """Logistic or ridge regression on the numbers and on a 0 or 1 for each category."""

    settings = LinearModel

    def fit(self, settings: LinearModel, problem: Problem, progress: Progress) -> FittedLinear:
        """Fits until the loss falls no more; so rows that only tell when to stop are learned from, too.

        Raises:
            InputError: class weights for a regression, or features so large that weights are not finite.
        """
        started = time.monotonic()
        held_out = problem.held_out if is_reserved(problem.training) else problem.held_out[:0]
        rows = np.sort(np.setdiff1d(np.concatenate([problem.learned, problem.held_out]), held_out, assume_unique=True))
        means = column_means(problem.examples.numbers, rows)
        examples = without_missing(problem.examples, means)
        weights, intercept = _weights(settings, problem, examples, rows, means)
        if not (np.isfinite(weights).all() and np.isfinite(intercept).all()):
            raise InputError("the linear model's weights are not finite; scale the features, or raise model.l2")

        def loss(of: Matrix) -> float:
            outputs = _design(examples, problem.packing, of, 0.0, 1.0) @ weights + intercept
            return float(tf.reduce_mean(losses(problem.label.kind, examples.labels[of], outputs.astype(np.float32))))

        validation_loss = loss(held_out) if len(held_out) else None
        step = Epoch(1, loss(rows), validation_loss, time.monotonic() - started, "fit")
        progress(step)
        knows_held_out = len(problem.held_out) > len(held_out)
        return FittedLinear(Fit([step], step), means, weights, intercept, problem.packing, knows_held_out)

    def space(self, settings: LinearModel, draw: Any, problem: Problem) -> LinearModel:
        """Draws the penalty."""
        return settings.model_copy(update={"l2": draw.suggest_float("l2", 1e-7, 1e-2, log=True)})


def _weights(
    settings: LinearModel, problem: Problem, examples: Examples, rows: Matrix, means: Matrix
) -> tuple[Matrix, Matrix]:
    """Gives weights, float32 [columns of the design, outputs], and intercepts, [outputs]."""
    # In units of a standard deviation L-BFGS needs fewer steps, and the penalty weighs on all numbers alike.
    scales = Scaling.of(problem.packing, examples, rows).scales
    design = _design(examples, problem.packing, rows, means, scales)
    model = _unfitted(settings, problem, len(rows))
    if isinstance(model, Ridge) and problem.training.class_weight == "balanced":
        class_weights(problem.label, examples.labels)  # says that a regression has none
    model.fit(design, examples.labels[rows])
    weights = np.atleast_2d(model.coef_).T
    slopes = weights[: len(means)] / scales[:, None]
    intercept = np.atleast_1d(model.intercept_) - means @ slopes
    weights = np.concatenate([slopes, weights[len(means) :]])
    return weights.astype(np.float32), intercept.astype(np.float32)


def _unfitted(settings: LinearModel, problem: Problem, rows: int) -> Any:
    """Gives scikit-learn's model; its penalty is on the sum of the losses, ours on their mean."""
    if problem.label.kind == "regression":
        penalty = 1.0 if settings.l2 is None else max(settings.l2 * rows, _LEAST_PENALTY)
        return Ridge(penalty, solver="lsqr", max_iter=_MOST_ITERATIONS)
    strength = 1.0 if settings.l2 is None else 1 / max(2 * settings.l2 * rows, _LEAST_PENALTY)
    weight = "balanced" if problem.training.class_weight == "balanced" else None
    return LogisticRegression(C=strength, class_weight=weight, max_iter=_MOST_ITERATIONS)


def _design(examples: Examples, packing: Packing, rows: Matrix, means: Any, scales: Any) -> Any:
    """Puts the scaled numbers beside a 0 or 1 for each category: sparse [rows, columns]."""
    numbers = (examples.numbers[rows].astype(np.float64) - means) / scales
    parts = [sparse.csr_matrix(numbers)] if packing.number_columns else []
    for feature, columns in column_slices(packing.categories):
        ids = examples.categories[rows][:, columns]
        starts = np.arange(len(rows) + 1) * ids.shape[1]
        shape = (len(rows), size_of(feature))
        parts.append(sparse.csr_matrix((np.ones(ids.size), ids.ravel(), starts), shape=shape))
    return sparse.hstack(parts, format="csr")
