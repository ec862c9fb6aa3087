"""The user's `preprocessing_fn`, called as TFX would call it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import graph_tools

from components.errors import InputError
from components.features import Feature
from components.rows import MISSING_INTEGER
from components.schema import Column
from components.transform_graph import feature_keys
from components.user_code import FILE, failure

Tensors = dict[str, tf.Tensor]


class UserPreprocessing:
    """The user's function over all raw columns.

    Its inputs follow the schema: a column that every row must have is a tensor of shape [rows, 1], any other
    a SparseTensor without the missing values. It may return the label, which is no feature.
    """

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Column], label: str | None) -> None:
        self.inputs = list(inputs)
        self.label_outputs: list[str] = []
        """Outputs, of the last call, that are the label."""
        self._function = function
        self._label = label
        self._used: set[str] = set()
        self._features: list[str] = []

    def __call__(self, raw: Tensors) -> dict[str, Any]:
        """Makes all features of a batch.

        Args:
            raw: by column name, tensors of shape [rows].

        Raises:
            InputError: the function raises, returns something else than a dict of tensors, or computes a feature
                from the label.
        """
        inputs = {column.name: _as_tfx(raw[column.name], column) for column in self.inputs}
        try:
            returned = self._function(inputs)
        except Exception as error:
            raise failure("preprocessing_fn", error) from error
        if not isinstance(returned, dict) or not returned:
            what = "an empty dict" if returned == {} else f"a {type(returned).__name__}"
            raise InputError(f"{FILE}: preprocessing_fn returned {what}; return a dict of tensors by feature name")
        outputs = {str(name): _checked(value, name) for name, value in returned.items()}
        known = () if self._label is None else (self._label, f"{self._label}_xf")
        self.label_outputs = [name for name in outputs if name in known]
        self._features = [name for name in outputs if name not in self.label_outputs]
        if not self._features:
            raise InputError(f"{FILE}: preprocessing_fn returned only the label; return features too")
        self._used = {column for name in self._features for column in self._columns_of(outputs[name], raw, name)}
        return outputs

    def _columns_of(self, output: Any, raw: Tensors, name: str) -> set[str]:
        columns: set[str] = set(graph_tools.get_dependent_inputs(tf.compat.v1.get_default_graph(), raw, [output]))
        if self._label is not None and self._label in columns:
            raise InputError(
                f"{FILE}: preprocessing_fn computes feature '{name}' from the label '{self._label}', which is unknown "
                "when the model serves; take it out"
            )
        return columns

    @property
    def used(self) -> list[Column]:
        """The columns that some feature depends on."""
        return [column for column in self.inputs if column.name in self._used]

    @property
    def required(self) -> set[str]:
        """Names of the used columns that every row must have."""
        return {column.name for column in self.used if column.required}

    def describe(self, output: Path) -> list[Feature]:
        """Lists the features: categories where TFT knows the range of the ids, numbers otherwise."""
        transformed = tft.TFTransformOutput(str(output))
        specs = transformed.transformed_feature_spec()
        schemas = {feature.name: feature for feature in transformed.transformed_metadata.schema.feature}
        keys = feature_keys([*self._features, *self.label_outputs])
        return [_described(name, specs[keys[name]], schemas[keys[name]].int_domain) for name in self._features]


def _described(name: str, spec: Any, domain: Any) -> Feature:
    is_sparse = isinstance(spec, tf.io.VarLenFeature)
    width = None if is_sparse or spec.shape in ([], [1]) else spec.shape[0]
    if not domain.is_categorical or width is not None:
        return Feature(name=name, kind="number", width=width)
    # A sparse output has no id for a missing value: -1, as TFT's vocabularies give for an unknown one.
    offset = max(-domain.min, int(is_sparse))
    return Feature(name=name, kind="category", categories=domain.max + offset + 1, offset=offset)


def _as_tfx(value: tf.Tensor, column: Column) -> Any:
    if column.required:
        return tf.expand_dims(value, 1)
    if value.dtype == tf.string:
        present = tf.not_equal(value, "")
    elif value.dtype == tf.int64:
        present = tf.not_equal(value, MISSING_INTEGER)
    else:
        present = ~tf.math.is_nan(value)
    rows = tf.where(present)
    shape = tf.stack([tf.shape(value, tf.int64)[0], tf.cast(tf.reduce_any(present), tf.int64)])
    return tf.SparseTensor(tf.concat([rows, tf.zeros_like(rows)], 1), tf.boolean_mask(value, present), shape)


def _checked(value: Any, name: str) -> Any:
    """Gives a tensor of a type that a model takes; its schema, known to TFT by identity, survives."""
    if not isinstance(value, tf.Tensor | tf.SparseTensor):
        raise InputError(f"{FILE}: preprocessing_fn: output '{name}' is a {type(value).__name__}; return tensors")
    if value.dtype == tf.string:
        raise InputError(f"{FILE}: preprocessing_fn: output '{name}' is text; give ids, e.g. by a vocabulary")
    rank = value.shape.rank
    if rank not in (1, 2) or (rank == 2 and isinstance(value, tf.Tensor) and not value.shape[1]):
        raise InputError(
            f"{FILE}: preprocessing_fn: output '{name}' has shape {value.shape}; return [rows] or [rows, width]"
        )
    whole = value.dtype.is_integer or value.dtype.is_bool
    return tf.cast(value, tf.int64 if whole else tf.float32)
