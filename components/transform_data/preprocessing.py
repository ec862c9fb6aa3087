"""The preprocessing function: raw tensors in, features out, in TFT's and TensorFlow's operations only.

A raw tensor has shape [rows], with the markers of `rows.py` where a value is missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf
import tensorflow_transform as tft

from components.errors import InputError
from components.features import Feature
from components.rows import MISSING_INTEGER
from components.schema import Column
from components.settings import CategoricalFeatures, DatePart, Features, NumericFeatures

Tensors = dict[str, tf.Tensor]

# How many ids a part of a time needs, with 0 for a missing one.
_PART_CATEGORIES: Mapping[DatePart, int] = {
    "month": 13, "day": 32, "day_of_year": 367, "weekday": 8, "hour": 25, "minute": 61,
}  # fmt: skip
_FIRST: Mapping[DatePart, int] = {"month": 1, "day": 1, "day_of_year": 1, "weekday": 0, "hour": 0, "minute": 0}
_CYCLES: Mapping[str, int] = {"month": 12, "day_of_year": 366, "weekday": 7, "hour": 24, "minute": 60}
_SMALL_DOMAIN = 64  # up to here comparing with every value beats a lookup table
_SEPARATOR = "\x1f"  # joins the values of a cross; no text of people holds it


@dataclass
class Preprocessing:
    """What the settings say about features, as a function for TFT."""

    features: Features
    inputs: Sequence[Column]
    domains: Mapping[str, list[str]]
    """Closed domains of text columns, by column."""
    _described: list[tuple[Feature, str]] = field(default_factory=list)
    """A feature, and the vocabulary that adds to its ids, or empty."""

    def __call__(self, raw: Tensors) -> Tensors:
        """Makes all features of a batch.

        Args:
            raw: by column name, tensors of shape [rows].

        Returns:
            By feature name, float32 or int64 tensors of shape [rows].
        """
        self._described.clear()
        outputs: Tensors = {}
        self._add_numbers(raw, outputs)
        for group in self.features.categorical:
            for name in group.columns:
                self._add_category(outputs, name, [name], *self._category(_as_text(raw[name]), group, name))
        for cross in self.features.crosses:
            text = tf.strings.join([_as_text(raw[name]) for name in cross.columns], _SEPARATOR)
            ids = tf.strings.to_hash_bucket_fast(text, cross.hash_buckets)
            self._add_category(outputs, "_x_".join(cross.columns), cross.columns, ids, cross.hash_buckets)
        return outputs

    @property
    def used(self) -> Sequence[Column]:
        """The columns that some feature depends on."""
        return self.inputs

    @property
    def required(self) -> set[str]:
        """Names of the columns without whose value a row is refused."""
        groups: list[NumericFeatures | CategoricalFeatures] = [*self.features.numeric, *self.features.categorical]
        return {name for group in groups if group.missing == "error" for name in group.columns}

    def describe(self, output: Path) -> list[Feature]:
        """Lists the features that the last call made.

        Args:
            output: TFT's output, which knows the vocabularies by now.
        """
        vocabulary_size = tft.TFTransformOutput(str(output)).vocabulary_size_by_name
        return [
            feature.model_copy(update={"categories": feature.categories + vocabulary_size(vocabulary)})
            if vocabulary and feature.categories
            else feature
            for feature, vocabulary in self._described
        ]

    def _add_category(
        self, outputs: Tensors, name: str, columns: Sequence[str], ids: tf.Tensor, size: int, vocabulary: str = ""
    ) -> None:
        feature = Feature(name=name, kind="category", categories=size, columns=list(columns))
        self._add(outputs, feature, ids, vocabulary)

    def _add(self, outputs: Tensors, feature: Feature, value: tf.Tensor, vocabulary: str = "") -> None:
        if feature.name in outputs:
            raise InputError(f"two features would be called '{feature.name}'; rename a column or take one out")
        outputs[feature.name] = value
        self._described.append((feature, vocabulary))

    def _add_numbers(self, raw: Tensors, outputs: Tensors) -> None:
        """Adds all numbers. Those scaled alike are one matrix, so that one analysis serves them all."""
        by_scale: dict[str, list[tuple[Feature, tf.Tensor]]] = {"z_score": [], "min_max": [], "none": []}
        indicators: list[tuple[Feature, tf.Tensor]] = []
        for group in self.features.numeric:
            for name in group.columns:
                number = _as_number(raw[name])
                if group.indicator:
                    feature = Feature(name=f"{name}_missing", kind="number", columns=[name])
                    indicators.append((feature, tf.cast(tf.math.is_nan(number), tf.float32)))
                number = _log(number) if group.log else number
                number = _or_zero(number) if group.missing == "zero" else number
                if group.scale == "quantile_buckets":
                    self._add_category(outputs, name, [name], *_bucket(number, group))
                else:
                    feature = Feature(name=name, kind="number", columns=[name], may_be_missing=group.missing == "keep")
                    by_scale[group.scale].append((feature, number))
        for times in self.features.datetime:
            for name in times.columns:
                self._add_time(name, raw[name], times.parts, times.cycles, by_scale["z_score"], outputs)
        for scale, numbers in by_scale.items():
            if numbers:
                matrix = tf.stack([number for _, number in numbers], axis=1)
                scaled = tf.cast(_SCALES[scale](matrix), tf.float32)
                kept = tf.constant([feature.may_be_missing for feature, _ in numbers])
                scaled = tf.where(tf.math.is_nan(matrix) & kept, tf.constant(math.nan, tf.float32), scaled)
                for index, (feature, _) in enumerate(numbers):
                    self._add(outputs, feature, scaled[:, index])
        for feature, value in indicators:
            self._add(outputs, feature, value)

    def _add_time(
        self,
        name: str,
        seconds: tf.Tensor,
        parts: Sequence[DatePart],
        cycles: Sequence[str],
        numbers: list[tuple[Feature, tf.Tensor]],
        outputs: Tensors,
    ) -> None:
        missing = tf.equal(seconds, MISSING_INTEGER)
        values = time_parts(tf.where(missing, tf.zeros_like(seconds), seconds))
        for part in parts:
            if part == "year":
                year = tf.where(missing, tf.fill(tf.shape(seconds), tf.int64.min), values[part])
                feature = Feature(name=f"{name}_year", kind="number", columns=[name], may_be_missing=True)
                numbers.append((feature, _as_number(year)))
                continue
            ids = values[part] - _FIRST[part] + 1
            known = tf.where(missing, tf.zeros_like(ids), ids)
            self._add_category(outputs, f"{name}_{part}", [name], known, _PART_CATEGORIES[part])
        for cycle in cycles:
            angle = tf.cast(values[cycle], tf.float32) * (2 * math.pi / _CYCLES[cycle])
            for function in (tf.sin, tf.cos):
                wave = tf.where(missing, tf.zeros_like(angle), function(angle))
                feature = Feature(name=f"{name}_{cycle}_{function.__name__}", kind="number", columns=[name])
                self._add(outputs, feature, wave)

    def _category(self, text: tf.Tensor, group: CategoricalFeatures, name: str) -> tuple[tf.Tensor, int, str]:
        """Gives ids, with 0 for a missing value; how many there are; the vocabulary that adds to them, or empty."""
        missing = tf.equal(text, "")
        if group.hash_buckets:
            ids, size = tf.strings.to_hash_bucket_fast(text, group.hash_buckets), group.hash_buckets + 1
            return tf.where(missing, tf.zeros_like(ids), ids + 1), size, ""
        domain = self.domains.get(name, [])
        if 0 < len(domain) <= _SMALL_DOMAIN and group.min_frequency == 1 and group.top_k is None:
            # A closed domain is a vocabulary: no pass over the data is needed for it.
            matches = tf.equal(tf.expand_dims(text, 1), tf.constant([domain]))
            unknown = len(domain) + tf.strings.to_hash_bucket_fast(text, group.oov_buckets)
            ids = tf.where(tf.reduce_any(matches, 1), tf.argmax(matches, 1), unknown)
            return tf.where(missing, tf.zeros_like(ids), ids + 1), len(domain) + group.oov_buckets + 1, ""
        index = [column.name for column in self.inputs].index(name)
        vocabulary_name = f"vocabulary_{index}"
        vocabulary = tft.vocabulary(
            tf.boolean_mask(text, ~missing),
            top_k=group.top_k,
            frequency_threshold=group.min_frequency,
            vocab_filename=vocabulary_name,
        )
        ids = tft.apply_vocabulary(text, vocabulary, num_oov_buckets=group.oov_buckets)
        return tf.where(missing, tf.zeros_like(ids), ids + 1), group.oov_buckets + 1, vocabulary_name


def _as_number(value: tf.Tensor) -> tf.Tensor:
    """Gives float64, in which large integers keep their differences, with NaN where there is no finite number."""
    number = tf.cast(value, tf.float64)
    known = tf.not_equal(value, MISSING_INTEGER) if value.dtype == tf.int64 else tf.math.is_finite(value)
    return tf.where(known, number, tf.fill(tf.shape(number), tf.constant(math.nan, tf.float64)))


def _log(number: tf.Tensor) -> tf.Tensor:
    return tf.math.log1p(tf.where(number < 0, tf.zeros_like(number), number))


def _as_text(value: tf.Tensor) -> tf.Tensor:
    if value.dtype == tf.string:
        return value
    if value.dtype == tf.int64:
        text = tf.strings.as_string(value)
        return tf.where(tf.equal(value, MISSING_INTEGER), tf.fill(tf.shape(text), ""), text)
    text = tf.strings.as_string(value)
    return tf.where(tf.math.is_nan(value), tf.fill(tf.shape(text), ""), text)


def _or_zero(value: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_nan(value), tf.zeros_like(value), value)


def _z_score(matrix: tf.Tensor) -> tf.Tensor:
    """Missing values do not count in the analysis, and become the mean: 0."""
    return _or_zero(tft.scale_to_z_score(matrix, elementwise=True))


def _min_max(matrix: tf.Tensor) -> tf.Tensor:
    """A constant column becomes 0; a value outside the training range is clipped."""
    missing = tf.math.is_nan(matrix)
    infinity = tf.fill(tf.shape(matrix), tf.constant(math.inf, matrix.dtype))
    low = tft.min(tf.where(missing, infinity, matrix), reduce_instance_dims=False)
    high = tft.max(tf.where(missing, -infinity, matrix), reduce_instance_dims=False)
    return tf.clip_by_value(tf.math.divide_no_nan(_or_mean(matrix) - low, high - low), 0, 1)


def _or_mean(matrix: tf.Tensor) -> tf.Tensor:
    mean = tft.mean(matrix, reduce_instance_dims=False)
    return tf.where(tf.math.is_nan(matrix), tf.zeros_like(matrix) + mean, matrix)


_SCALES: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {"z_score": _z_score, "min_max": _min_max, "none": _or_mean}


def _bucket(number: tf.Tensor, group: NumericFeatures) -> tuple[tf.Tensor, int]:
    """Gives the quantile's id, with 0 for a missing value, and how many ids there are."""
    missing = tf.math.is_nan(number)
    known = tf.cast(_or_zero(number), tf.float32)
    boundaries = tft.quantiles(
        known, group.buckets, epsilon=0.01, weights=tf.cast(~missing, tf.float32), reduce_instance_dims=True
    )
    ids = tft.apply_buckets(known, boundaries)
    return tf.where(missing, tf.zeros_like(ids), ids + 1), group.buckets + 1


def time_parts(seconds: tf.Tensor) -> dict[str, tf.Tensor]:
    """Takes times apart, in the proleptic Gregorian calendar, UTC.

    Integer arithmetic over eras of 400 years that start in March (H. Hinnant, chrono-Compatible Low-Level
    Date Algorithms).

    Args:
        seconds: int64 since 1970-01-01, shape [rows]; may be negative.

    Returns:
        int64 tensors: year, month 1–12, day 1–31, day_of_year 1–366, weekday 0–6 (Monday is 0), hour, minute.
    """
    days = tf.math.floordiv(seconds, 86_400)
    in_day = seconds - days * 86_400
    shifted = days + 719_468
    era = tf.math.floordiv(shifted, 146_097)
    day_of_era = shifted - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_from_march = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_from_march + 2) // 153
    month = tf.where(month_from_march < 10, month_from_march + 3, month_from_march - 9)
    year = year_of_era + era * 400 + tf.cast(month <= 2, tf.int64)
    is_leap = tf.cast((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)), tf.int64)
    before_march = tf.where(month <= 2, day_from_march - 306, day_from_march + 59 + is_leap)
    return {
        "year": year,
        "month": month,
        "day": day_from_march - (153 * month_from_march + 2) // 5 + 1,
        "day_of_year": before_march + 1,
        "weekday": tf.math.floormod(days + 3, 7),
        "hour": in_day // 3_600,
        "minute": in_day // 60 % 60,
    }
