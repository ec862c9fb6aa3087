"""Features on one scale: standardized numbers, and categories one-hot, as what measures distances needs them."""

from typing import Any

import numpy as np
import tensorflow as tf

from components.models.examples import Examples, Matrix, column_means
from components.models.packing import Packing, category_sizes

_BATCH_ROWS = 65_536


class Scaling(tf.Module):  # type: ignore[misc]
    """Numbers with mean 0 and variance 1 over some rows; a missing one is 0, a constant column is only shifted."""

    def __init__(self, packing: Packing, means: Matrix, scales: Matrix) -> None:
        """Args: means, scales: float32 [number columns]."""
        super().__init__()
        self._packing = packing
        self.means, self.scales = means, scales

    @classmethod
    def of(cls, packing: Packing, examples: Examples, rows: Matrix) -> "Scaling":
        """Measures some rows, by their numbers."""
        means = column_means(examples.numbers, rows)
        squares = np.square(examples.numbers[rows] - means, dtype=np.float64)
        known = np.count_nonzero(~np.isnan(squares), axis=0)
        scales = np.sqrt(np.nansum(squares, axis=0) / np.maximum(known, 1))
        # What rounding leaves of a constant column's variance is none.
        constant = scales <= 1e-6 * np.abs(means)
        return cls(packing, means, np.where(constant, 1.0, scales).astype(np.float32))

    @property
    def width(self) -> int:
        """Columns of `columns`."""
        return self._packing.number_columns + sum(category_sizes(self._packing))

    @property
    def weights(self) -> list[Matrix]:
        """All that decides its answers."""
        return [self.means, self.scales]

    def numbers(self, numbers: Any) -> Any:
        """Standardizes [rows, number columns], inside a graph."""
        return tf.where(tf.math.is_nan(numbers), 0.0, (numbers - self.means) / self.scales)

    def columns(self, numbers: Any, categories: Any, category_weight: float) -> Any:
        """Puts all side by side, float32 [rows, width], inside a graph."""
        parts = [self.numbers(numbers)]
        for column, size in enumerate(category_sizes(self._packing)):
            parts.append(tf.one_hot(categories[:, column], size, on_value=category_weight))
        return tf.concat(parts, 1)

    def matrix(self, examples: Examples, rows: Matrix, category_weight: float = 1.0) -> Matrix:
        """Gives `columns` of some rows, by their numbers."""
        parts = [
            self.columns(
                tf.constant(examples.numbers[some]), tf.constant(examples.categories[some]), category_weight
            ).numpy()
            for some in (rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS))
        ]
        return np.concatenate(parts)
