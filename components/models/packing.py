"""Features packed into two matrices, numbers and categories, which is what a network takes.

One gather then picks a batch, however many features there are.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from components.errors import InputError
from components.features import FEATURES, Feature, FeatureSpec


class Packing:
    """Where each feature lies in the matrices; a vector takes as many columns as it is wide."""

    def __init__(self, spec: FeatureSpec) -> None:
        """Lays out the features in their order.

        Raises:
            InputError: there are none.
        """
        if not spec.features:
            raise InputError(f"{FEATURES} names no features; give some in section features of pipeline.yaml")
        self.numbers = [feature for feature in spec.features if feature.kind == "number"]
        self.categories = [feature for feature in spec.features if feature.kind == "category"]

    @property
    def number_columns(self) -> int:
        """Columns of the matrix of numbers."""
        return sum(_width(feature) for feature in self.numbers)

    @property
    def category_columns(self) -> int:
        """Columns of the matrix of categories."""
        return sum(_width(feature) for feature in self.categories)

    def pack(self, features: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """Packs the output of the transform graph, tensors by feature name.

        Returns:
            float32 [rows, number columns] and int32 [rows, category columns].
        """
        rows = tf.shape(next(iter(features.values())))[0]
        return [
            _side_by_side(self.numbers, features, rows, tf.float32),
            _side_by_side(self.categories, features, rows, tf.int32),
        ]

    def unpack(self, numbers: Any, categories: Any) -> dict[str, Any]:
        """Takes the matrices apart: by feature name, [rows, width]."""
        return {
            feature.name: matrix[:, columns]
            for features, matrix in ((self.numbers, numbers), (self.categories, categories))
            for feature, columns in column_slices(features)
        }


def column_slices(features: list[Feature]) -> list[tuple[Feature, slice]]:
    """Tells which columns of its matrix each feature takes."""
    slices, start = [], 0
    for feature in features:
        slices.append((feature, slice(start, start + _width(feature))))
        start += _width(feature)
    return slices


def size_of(feature: Feature) -> int:
    """Tells how many ids a category has."""
    assert feature.categories  # features.json says so of every category
    return feature.categories


def category_sizes(packing: Packing) -> list[int]:
    """Tells how many ids each column of categories has."""
    return [
        size_of(feature)
        for feature, columns in column_slices(packing.categories)
        for _ in range(columns.stop - columns.start)
    ]


def _width(feature: Feature) -> int:
    return feature.width or 1


def _side_by_side(features: list[Feature], tensors: Mapping[str, Any], rows: Any, dtype: Any) -> Any:
    columns = [tf.reshape(tf.cast(tensors[feature.name], dtype), [rows, _width(feature)]) for feature in features]
    return tf.concat(columns, 1) if columns else tf.zeros([rows, 0], dtype)
