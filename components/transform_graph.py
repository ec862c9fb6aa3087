"""The transform graph that transform_data writes: raw columns in, features out, by the names people use.

TensorFlow allows letters, digits and a few signs in the names of a graph's inputs. A column may be called
anything, so a name that TensorFlow would refuse is a position inside the graph; only this module knows.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.features import Feature, FeatureSpec, read_features

_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


def graph_keys(names: Sequence[str], prefix: str) -> dict[str, str]:
    """Gives each name's key inside the graph: the name itself where TensorFlow allows it, else prefix and position."""
    return {
        name: name if _ALLOWED.fullmatch(name) and not name.startswith(prefix) else f"{prefix}{index}"
        for index, name in enumerate(names)
    }


class TransformGraph(tf.Module):
    """A loaded transform graph."""

    def __init__(self, path: str | Path) -> None:
        """Loads it.

        Raises:
            InputError: the directory is no transform graph of ours.
        """
        super().__init__()
        self.spec: FeatureSpec = read_features(Path(path))
        self._inputs = graph_keys([raw.name for raw in self.spec.inputs], "column_")
        self._outputs = graph_keys([feature.name for feature in self.spec.features], "feature_")
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
        tensor = tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else value
        tensor = (
            tf.cast(tensor, tf.int64) + feature.offset if feature.kind == "category" else tf.cast(tensor, tf.float32)
        )
        return tf.reshape(tensor, [-1] if feature.width is None else [-1, feature.width])

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The raw inputs, by column name."""
        return {raw.name: tf.TensorSpec([None], raw.dtype, name=self._inputs[raw.name]) for raw in self.spec.inputs}
