"""The transform graph that transform_data writes: raw columns in, features out, by the names people use.

TensorFlow allows letters, digits and a few signs in the names of a graph's inputs. A column may be called
anything, so a name that TensorFlow would refuse has a digest in its place inside the graph; only this module knows.
"""

import hashlib
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.features import Feature, FeatureSpec, read_features

# Signatures are functions with these names as keyword arguments; "self" is what TensorFlow's own method is called on.
_ALLOWED = re.compile(r"(?!column_|feature_|self$)[A-Za-z][A-Za-z0-9_]*")


def column_keys(names: Iterable[str]) -> dict[str, str]:
    """Gives the name inside the graph of each raw column."""
    return {name: _key(name, "column_") for name in names}


def feature_keys(names: Iterable[str]) -> dict[str, str]:
    """Gives the name inside the graph of each feature."""
    return {name: _key(name, "feature_") for name in names}


def _key(name: str, prefix: str) -> str:
    return (
        name
        if _ALLOWED.fullmatch(name) and not keyword.iskeyword(name)
        else prefix + hashlib.sha256(name.encode()).hexdigest()[:16]
    )


class TransformGraph(tf.Module):
    """A loaded transform graph."""

    def __init__(self, path: str | Path) -> None:
        """Loads it.

        Raises:
            InputError: the directory is no transform graph of ours.
        """
        super().__init__()
        self.spec: FeatureSpec = read_features(Path(path))
        self._inputs = column_keys(raw.name for raw in self.spec.inputs)
        self._outputs = feature_keys(feature.name for feature in self.spec.features)
        self._layer = tft.TFTransformOutput(str(path)).transform_features_layer()

    def __call__(self, raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Transforms rows.

        Args:
            raw: by column name, tensors of shape [rows] with the markers of `rows.py`.

        Returns:
            By feature name: number float32, category int64; shape [rows], or [rows, width] for a vector.
        """
        transformed = self._layer({key: raw[name] for name, key in self._inputs.items()})
        return {
            feature.name: self._as_spec(transformed[self._outputs[feature.name]], feature)
            for feature in self.spec.features
        }

    @staticmethod
    def _as_spec(value: Any, feature: Feature) -> tf.Tensor:
        dtype = tf.int64 if feature.kind == "category" else tf.float32
        tensor = tf.cast(_first_values(value, -feature.offset) if isinstance(value, tf.SparseTensor) else value, dtype)
        return tf.reshape(tensor + feature.offset, [-1] if feature.width is None else [-1, feature.width])

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The raw inputs, by column name."""
        return {raw.name: tf.TensorSpec([None], raw.dtype, name=self._inputs[raw.name]) for raw in self.spec.inputs}


def _first_values(value: tf.SparseTensor, default: int) -> tf.Tensor:
    """Gives the first value of each row; `default` where a row has none, or no row has any."""
    dense = tf.sparse.to_dense(value, tf.cast(default, value.dtype))
    return tf.pad(dense, [[0, 0], [0, 1]], constant_values=tf.cast(default, value.dtype))[:, 0]
