"""Fitting a network: mini-batches, early stopping, the best weights."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import InputError
from components.features import Label
from components.models.contract import Epoch, Fit, Problem, Progress
from components.models.examples import Matrix
from components.models.packing import column_slices
from components.settings import Training

_VALIDATION_ROWS = 16_384
_MOST_BATCH_ROWS, _FEWEST_BATCH_ROWS, _FEWEST_STEPS = 1024, 32, 32


RowLosses = Callable[[Any, list[Any], Any], Any]
"""Gives each row's loss, float32 [rows], of labels, the two matrices of the examples, and outputs."""


class Fitting:
    """Fits a network to rows.

    The loss is that of the label's kind, log loss, cross-entropy or squared error, unless another is given.

    A whole epoch is one graph call: on 220,000 rows of flights this takes half the time of `keras.Model.fit`, and a
    compilation by XLA takes longer than it saves.
    """

    def __init__(self, network: keras.Model, problem: Problem, row_losses: RowLosses | None = None) -> None:
        """Prepares it.

        Args:
            network: from the two matrices of the examples to [rows, outputs].
            problem: the label's kind decides the loss; its numbers are all known.
            row_losses: another loss.

        Raises:
            InputError: class weights for a regression.
        """
        examples, learned, training = problem.examples, problem.learned, problem.training
        self._network = network
        self._problem = problem
        kind = problem.label.kind
        self._row_losses = row_losses or (lambda labels, _, outputs: losses(kind, labels, outputs))
        self._matrices = [tf.constant(examples.numbers), tf.constant(examples.categories)]
        self._labels = tf.constant(examples.labels)
        self._batch_rows = training.batch_size or _batch_rows(len(learned))
        self._learned, self._held_out = tf.constant(learned), tf.constant(problem.held_out)
        weights = (
            class_weights(problem.label, examples.labels[learned]) if training.class_weight == "balanced" else None
        )
        self._class_weights = None if weights is None else tf.constant(weights)
        rate = _learning_rate(training, math.ceil(len(learned) / self._batch_rows))
        self._optimizer = keras.optimizers.AdamW(rate, weight_decay=training.weight_decay)
        self._optimizer.build(network.trainable_variables)

    def run(self, progress: Progress) -> Fit:
        """Fits the network in place and leaves it with its best weights.

        Raises:
            InputError: the loss is not finite.
        """
        training = self._problem.training
        stopping = training.early_stopping
        epochs: list[Epoch] = []
        best, weights = None, None
        for number in range(1, training.epochs + 1):
            epoch = self._epoch(number)
            self._require_finite(epoch)
            epochs.append(epoch)
            progress(epoch)
            if not stopping or epoch.validation_loss is None:
                best = epoch
            elif (
                best is None
                or best.validation_loss is None
                or epoch.validation_loss < best.validation_loss - stopping.min_delta
            ):
                best, weights = epoch, self._network.get_weights()
            elif number - best.number >= stopping.patience:
                break
        if weights:
            self._network.set_weights(weights)
        assert best  # there is an epoch at least
        return Fit(epochs, best)

    def _epoch(self, number: int) -> Epoch:
        started = time.monotonic()
        loss = float(self._learn(tf.constant([self._problem.training.seed % 2**31, number])))
        validation_loss = float(self._validate()) if len(self._held_out) else None
        return Epoch(number, loss, validation_loss, time.monotonic() - started)

    @tf.function  # type: ignore[untyped-decorator]
    def _learn(self, seed: Any) -> Any:
        """Takes one step a batch, over all rows in an order of the seed's own; gives the mean loss."""
        order = tf.random.experimental.stateless_shuffle(self._learned, seed)
        total, weight = tf.constant(0.0), tf.constant(0.0)
        for start in tf.range(0, tf.size(order), self._batch_rows):
            step = self._step(order[start : start + self._batch_rows])
            total, weight = total + step[0], weight + step[1]
        return total / weight

    @tf.function  # type: ignore[untyped-decorator]
    def _validate(self) -> Any:
        """Gives the mean loss of the rows held out."""
        total, weight = tf.constant(0.0), tf.constant(0.0)
        for start in tf.range(0, tf.size(self._held_out), _VALIDATION_ROWS):
            part = self._loss(self._held_out[start : start + _VALIDATION_ROWS], training=False)
            total, weight = total + part[0], weight + part[1]
        return tf.math.divide_no_nan(total, weight)

    def _step(self, rows: Any) -> tuple[Any, Any]:
        variables = self._network.trainable_variables
        with tf.GradientTape() as tape:
            total, weight = self._loss(rows, training=True)
            penalized = tf.add_n([tf.math.divide_no_nan(total, weight), *self._network.losses])
        # Merging the sparse gradients of an embedding takes longer than a dense update of some thousand rows.
        gradients = [
            gradient if gradient is None else tf.convert_to_tensor(gradient)
            for gradient in tape.gradient(penalized, variables)
        ]
        self._optimizer.apply(gradients, variables)
        return total, weight

    def _loss(self, rows: Any, training: bool) -> tuple[Any, Any]:
        """Gives the sum of the rows' weighted losses and the sum of their weights."""
        labels = tf.gather(self._labels, rows)
        inputs = [tf.gather(matrix, rows) for matrix in self._matrices]
        row_losses = self._row_losses(labels, inputs, self._network(inputs, training=training))
        if self._class_weights is None:
            return tf.reduce_sum(row_losses), tf.cast(tf.size(rows), tf.float32)
        weights = tf.gather(self._class_weights, tf.cast(labels, tf.int32))
        return tf.reduce_sum(row_losses * weights), tf.reduce_sum(weights)

    def _require_finite(self, epoch: Epoch) -> None:
        losses = [loss for loss in (epoch.loss, epoch.validation_loss) if loss is not None]
        if np.isfinite(losses).all():
            return
        raise InputError(
            f"the loss is {next(loss for loss in losses if not np.isfinite(loss))} in epoch {epoch.number}; "
            f"training.learning_rate is {self._problem.training.learning_rate:g}{_largest(self._problem)}: lower the "
            "rate, or scale the features"
        )


def class_weights(label: Label, labels: Matrix) -> Matrix:
    """Weighs classes so that each counts the same: rows / (classes · rows of the class), as scikit-learn's `balanced`.

    Returns:
        float32 [classes], 0 for a class without rows.

    Raises:
        InputError: a regression has no classes.
    """
    if label.kind == "regression":
        raise InputError("training.class_weight is balanced, but a regression has no classes; set it to none")
    counts = np.bincount(labels.astype(np.int64), minlength=len(label.classes))
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype(np.float32)


def _batch_rows(rows: int) -> int:
    """Chooses how many rows a step looks at: of few rows few, as else too few steps would be taken."""
    return min(_MOST_BATCH_ROWS, max(_FEWEST_BATCH_ROWS, rows // _FEWEST_STEPS))


def _learning_rate(training: Training, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Gives the rate; steps: of an epoch."""
    if training.learning_rate_decay == "none":
        return training.learning_rate
    return keras.optimizers.schedules.CosineDecay(training.learning_rate, training.epochs * steps)


def losses(kind: str, labels: Any, outputs: Any) -> Any:
    """Gives each row's loss, float32 [rows], as the label's kind has it; outputs: as of a FittedModel."""
    if kind == "binary":
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, outputs[:, 0])
    if kind == "multiclass":
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
    return tf.square(labels - outputs[:, 0])


def _largest(problem: Problem) -> str:
    if not problem.packing.numbers:
        return ""
    reaches = {
        feature.name: np.abs(problem.examples.numbers[:, columns]).max()
        for feature, columns in column_slices(problem.packing.numbers)
    }
    name = max(reaches, key=lambda name: reaches[name])
    return f", and '{name}' reaches {reaches[name]:.3g}"
