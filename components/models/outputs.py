"""What a fitted model says of transformed rows, as it will in the SavedModel."""

from typing import Any

import numpy as np
import tensorflow as tf

from components.models.contract import FittedModel
from components.models.examples import Examples, Matrix
from components.models.packing import Packing

_BATCH_ROWS = 16_384


def graph_of(fitted: FittedModel, packing: Packing) -> Any:
    """Gives the model as one graph, which takes the two matrices of the packing."""
    signature = [
        tf.TensorSpec([None, packing.number_columns], tf.float32),
        tf.TensorSpec([None, packing.category_columns], tf.int32),
    ]
    function = tf.function(lambda numbers, categories: fitted(numbers, categories), signature, autograph=False)
    return function.get_concrete_function()


def outputs_of(graph: Any, examples: Examples, rows: Matrix) -> Matrix:
    """Predicts rows, by their numbers: float32 [rows, outputs]; see FittedModel."""
    parts = [rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS)]
    return np.concatenate([graph(*tensors_of(examples, part)).numpy() for part in parts])


def tensors_of(examples: Examples, rows: Matrix) -> tuple[Any, Any]:
    """Gives rows as a graph takes them."""
    return tf.constant(examples.numbers[rows]), tf.constant(examples.categories[rows])
