"""Autoencoders: networks that restore a row from few numbers, and cannot restore an unusual one.

Source: Hawkins, He, Williams, Baxter, Outlier Detection Using Replicator Neural Networks, DaWaK 2002.
"""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.models.contract import Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Matrix
from components.models.fitting import Fitting
from components.models.packing import Packing, category_sizes
from components.models.scaling import Scaling
from components.settings import AutoencoderModel

_BATCH_ROWS = 16_384
_SMALLEST_ERROR = 1e-3
"""Of a feature's mean error, against the error of the best constant: what is always restored counts no more."""


class Restorer(FittedModel):
    """A fitted autoencoder: scores rows by how badly it restores them."""

    def __init__(self, network: keras.Model, errors: "Errors", scaling: Scaling, usual: Matrix, fit: Fit) -> None:
        """Args: usual: float32 [features], each feature's mean error over rows learned from."""
        super().__init__(fit, {"keras": keras.__version__, "tensorflow": tf.__version__})
        self._network = network
        self._errors = errors
        self._scaling = scaling
        self._usual = tf.constant(usual)

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Scores transformed rows: e / (1 + e) of the mean e of the features' errors, each relative to its usual one.

        See FittedModel.
        """
        known = self._scaling.numbers(numbers)
        errors = self._errors(known, categories, self._network([known, categories], training=False))
        mean = tf.reduce_mean(errors / self._usual, 1, keepdims=True)
        # Infinite over infinite would be no number; float32 has no larger score anyway.
        mean = tf.minimum(mean, 1e9)
        return mean / (1 + mean)

    @property
    def weights(self) -> list[Matrix]:
        """Keras's, in its order, then what errors are measured by."""
        return [*self._network.get_weights(), *self._errors.weights, *self._scaling.weights, self._usual.numpy()]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return int(self._network.count_params())


class Errors:
    """How badly each feature is restored, against the best constant: 1 is no better than that."""

    def __init__(self, packing: Packing, entropies: Matrix) -> None:
        """Args: entropies: float32 [category columns], in nats."""
        self._number_columns = packing.number_columns
        self._sizes = category_sizes(packing)
        self._entropies = entropies

    @property
    def weights(self) -> list[Matrix]:
        """All that decides its answers."""
        return [self._entropies]

    def __call__(self, numbers: Any, categories: Any, outputs: Any) -> Any:
        """Gives float32 [rows, number and category columns].

        Args:
            numbers: standardized.
            categories: ids.
            outputs: of the network: the numbers restored, then the logits of each column of categories.
        """
        errors = [tf.math.squared_difference(numbers, outputs[:, : self._number_columns])]
        start = self._number_columns
        for column, size in enumerate(self._sizes):
            surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(
                categories[:, column], outputs[:, start : start + size]
            )
            errors.append(surprise[:, None] / self._entropies[column])
            start += size
        return tf.concat(errors, 1)


class Autoencoder(Kind[AutoencoderModel]):
    """A network from the features to a code, and back."""

    settings = AutoencoderModel

    def fit(self, settings: AutoencoderModel, problem: Problem, progress: Progress) -> Restorer:
        """Fits by gradient descent to the features alone; weights are drawn by the seed."""
        keras.utils.set_random_seed(problem.training.seed % 2**32)
        tf.config.experimental.enable_op_determinism()
        packing = problem.packing
        scaling = Scaling.of(packing, problem.examples, problem.learned)
        numbers = scaling.numbers(tf.constant(problem.examples.numbers)).numpy()
        problem = replace(problem, examples=replace(problem.examples, numbers=numbers))
        errors = Errors(packing, _entropies(problem))
        network = _network(settings, packing)

        def row_losses(_labels: Any, inputs: list[Any], outputs: Any) -> Any:
            return tf.reduce_mean(errors(inputs[0], inputs[1], outputs), 1)

        fit = Fitting(network, problem, row_losses).run(progress)
        return Restorer(network, errors, scaling, _usual(network, errors, problem), fit)

    def space(self, settings: AutoencoderModel, draw: Any, problem: Problem) -> AutoencoderModel:
        """Draws the layers, the code, and how much is disturbed."""
        features = problem.packing.number_columns + problem.packing.category_columns
        width = draw.suggest_categorical("hidden_width", [32, 64, 128])
        depth = draw.suggest_int("hidden_layers", 1, 2)
        return settings.model_copy(
            update={
                "hidden_units": [width >> layer for layer in range(depth)],
                "code_units": draw.suggest_int("code_units", 1, max(2, features)),
                "noise": draw.suggest_float("noise", 0.0, 0.5),
                "dropout": draw.suggest_float("dropout", 0.0, 0.3),
            }
        )


def _network(settings: AutoencoderModel, packing: Packing) -> keras.Model:
    numbers = keras.Input((packing.number_columns,), dtype="float32", name="numbers")
    categories = keras.Input((packing.category_columns,), dtype="int32", name="categories")
    sizes = category_sizes(packing)
    parts = [keras.layers.GaussianNoise(settings.noise)(numbers)] if packing.number_columns else []
    for column, size in enumerate(sizes):
        width = settings.embedding_dim or min(50, round(1.6 * size**0.56))
        parts.append(keras.layers.Embedding(size, width)(categories[:, column]))
    hidden = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    code = settings.code_units or max(2, (packing.number_columns + len(sizes)) // 3)
    hidden = keras.layers.Dense(code)(_layers(settings.hidden_units, settings.dropout, hidden))
    hidden = _layers(settings.hidden_units[::-1], settings.dropout, hidden)
    return keras.Model([numbers, categories], keras.layers.Dense(packing.number_columns + sum(sizes))(hidden))


def _layers(widths: list[int], dropout: float, hidden: Any) -> Any:
    for units in widths:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        if dropout:
            hidden = keras.layers.Dropout(dropout)(hidden)
    return hidden


def _entropies(problem: Problem) -> Matrix:
    """Gives the mean surprise at each column of categories by its shares; at least that of one other row."""
    rows = problem.learned
    entropies = []
    for column, size in enumerate(category_sizes(problem.packing)):
        counts = np.bincount(problem.examples.categories[rows, column], minlength=size) + 1 / size
        shares = counts / counts.sum()
        entropies.append(max(float(-(shares * np.log(shares)).sum()), 1 / (1 + len(rows))))
    return np.array(entropies, np.float32)


def _usual(network: keras.Model, errors: Errors, problem: Problem) -> Matrix:
    """Gives each feature's mean error over the rows learned from, float32 [features]."""
    examples, total = problem.examples, 0.0
    for start in range(0, len(problem.learned), _BATCH_ROWS):
        rows = problem.learned[start : start + _BATCH_ROWS]
        numbers, categories = tf.constant(examples.numbers[rows]), tf.constant(examples.categories[rows])
        found = errors(numbers, categories, network([numbers, categories], training=False)).numpy()
        total = total + found.sum(axis=0, dtype=np.float64)
    return np.maximum(total / len(problem.learned), _SMALLEST_ERROR).astype(np.float32)
