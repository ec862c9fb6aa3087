"""Embeddings of numbers, as Keras layers.

Source: Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022.
"""

import math
from typing import Any

import keras
import numpy as np

_SIGMA = 0.3  # spread of the first frequencies; the paper tunes it between 0.01 and 100


@keras.saving.register_keras_serializable("lockgate")
class PeriodicEmbedding(keras.layers.Layer):
    """Sine and cosine of learned multiples of each number, then a linear layer of its own and ReLU (section 3.3)."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width

    def build(self, shape: tuple[int, ...]) -> None:
        """Makes the weights for an input of shape [rows, numbers]."""
        normal = keras.initializers.RandomNormal(stddev=_SIGMA)
        self.frequencies = self.add_weight(shape=(shape[-1], self.width), initializer=normal)
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.width, self.width), initializer="he_uniform")
        self.bias = self.add_weight(shape=(shape[-1], self.width), initializer="zeros")

    def call(self, numbers: Any) -> Any:
        """Gives [rows, numbers · width]."""
        angles = 2 * math.pi * self.frequencies * numbers[..., None]
        waves = keras.ops.concatenate([keras.ops.sin(angles), keras.ops.cos(angles)], -1)
        return _flat(keras.ops.relu(keras.ops.einsum("bnw,nwe->bne", waves, self.kernel) + self.bias))


@keras.saving.register_keras_serializable("lockgate")
class PiecewiseLinearEmbedding(keras.layers.Layer):
    """How far each number has gone through each bin of its quantiles, then a linear layer and ReLU (3.2, 3.4)."""

    def __init__(self, edges: list[list[float]], width: int, **options: Any) -> None:
        super().__init__(**options)
        self.edges = edges
        self.width = width

    def build(self, shape: tuple[int, ...]) -> None:
        """Makes the weights for an input of shape [rows, numbers]."""
        edges = np.asarray(self.edges, np.float32)
        self.low = edges[:, :-1]
        # A bin of no width (a value that is many quantiles at once) is passed at once.
        self.scale = 1 / np.maximum(edges[:, 1:] - edges[:, :-1], 1e-6)
        self.kernel = self.add_weight(shape=(shape[-1], edges.shape[1] - 1, self.width), initializer="he_uniform")
        self.bias = self.add_weight(shape=(shape[-1], self.width), initializer="zeros")

    def call(self, numbers: Any) -> Any:
        """Gives [rows, numbers · width]."""
        passed = keras.ops.clip((numbers[..., None] - self.low) * self.scale, 0.0, 1.0)
        return _flat(keras.ops.relu(keras.ops.einsum("bnw,nwe->bne", passed, self.kernel) + self.bias))


def quantile_edges(numbers: np.ndarray[Any, Any], bins: int) -> list[list[float]]:
    """Finds the edges of equally full bins of each column of [rows, numbers]; at most 100,000 rows are looked at."""
    step = max(1, len(numbers) // 100_000)
    edges = np.quantile(numbers[::step], np.linspace(0, 1, bins + 1), axis=0).T
    return [[float(value) for value in row] for row in edges]


def _flat(embedded: Any) -> Any:
    return keras.ops.reshape(embedded, (-1, embedded.shape[1] * embedded.shape[2]))
