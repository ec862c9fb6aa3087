"""Features packed into two matrices, numbers and categories, which is what a network takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf

from components.errors import DataRejectedError
from components.features import Feature, FeatureSpec

Matrix = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rows:
    """Rows to learn from."""

    numbers: Matrix
    """float32 [rows, columns]."""
    categories: Matrix
    """int32 [rows, features]."""
    labels: Matrix
    """float32 (binary, regression) or int64 (multiclass), [rows]."""

    def take(self, index: Matrix) -> "Rows":
        """Picks rows."""
        return Rows(self.numbers[index], self.categories[index], self.labels[index])

    @property
    def inputs(self) -> list[Matrix]:
        """What the network takes."""
        return [self.numbers, self.categories]


class Packing:
    """Where each feature lies in the matrices."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.numbers = [feature for feature in spec.features if feature.kind == "number"]
        self.categories = [feature for feature in spec.features if feature.kind == "category"]
        self._label = spec.label

    @property
    def number_columns(self) -> int:
        """Columns of the matrix of numbers: one a number, several a vector."""
        return sum(feature.width or 1 for feature in self.numbers)

    def read(self, files: Sequence[Path]) -> Rows:
        """Reads transformed Parquet parts whole.

        Raises:
            DataRejectedError: there are no rows.
        """
        count = sum(pq.read_metadata(file).num_rows for file in files)
        if count == 0:
            raise DataRejectedError("the train split has no rows with a label (needed: some); widen data.window")
        kind = np.int64 if self._label.kind == "multiclass" else np.float32
        numbers = np.empty((count, self.number_columns), np.float32)
        categories = np.empty((count, len(self.categories)), np.int32)
        labels = np.empty(count, kind)
        start = 0
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(65_536):
                end, column = start + batch.num_rows, 0
                for feature in self.numbers:
                    width = feature.width or 1
                    array = batch.column(feature.name)
                    values = (array if feature.width is None else array.flatten()).to_numpy(zero_copy_only=False)
                    numbers[start:end, column : column + width] = values.reshape(-1, width)
                    column += width
                for index, feature in enumerate(self.categories):
                    categories[start:end, index] = batch.column(feature.name).to_numpy(zero_copy_only=False)
                labels[start:end] = batch.column(self._label.name).to_numpy(zero_copy_only=False)
                start = end
        return Rows(numbers, categories, labels)

    def pack(self, features: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """Packs the output of the transform graph, tensors by feature name, as `read` packs files."""
        rows = tf.shape(next(iter(features.values())))[0]
        numbers = [tf.reshape(features[f.name], [rows, f.width or 1]) for f in self.numbers]
        categories = [tf.reshape(features[f.name], [rows, 1]) for f in self.categories]
        return [
            tf.concat(numbers, 1) if numbers else tf.zeros([rows, 0]),
            tf.cast(tf.concat(categories, 1), tf.int32) if categories else tf.zeros([rows, 0], tf.int32),
        ]

    def unpack(self, numbers: Any, categories: Any) -> dict[str, Any]:
        """Takes the matrices apart: by feature name, [rows, width] for a vector, else [rows, 1]."""
        features: dict[str, Any] = {}
        column = 0
        for feature in self.numbers:
            features[feature.name] = numbers[:, column : column + (feature.width or 1)]
            column += feature.width or 1
        for index, feature in enumerate(self.categories):
            features[feature.name] = categories[:, index : index + 1]
        return features

    def sizes(self) -> list[int]:
        """How many ids each category has."""
        return [_size(feature) for feature in self.categories]


def _size(feature: Feature) -> int:
    assert feature.categories  # features.json says so of every category
    return feature.categories
