"""TFDV's statistics of a split, computed batch by batch in memory."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.validate_data.sample import Sampler
from components.validate_data.splits import Split

StatisticsList: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
FeatureStatistics: TypeAlias = statistics_pb2.FeatureNameStatistics


@dataclass(frozen=True)
class Summary:
    """What one pass over a split gives."""

    split: Split
    statistics: StatisticsList
    sample: pa.Table
    """Rows at equal distances, long strings cut short."""
    longest: dict[str, int]
    """Bytes of the longest value of every string column."""

    @cached_property
    def features(self) -> dict[str, FeatureStatistics]:
        """The statistics by column."""
        return features(self.statistics)


def summarize(split: Split, schema: schema_pb2.Schema | None) -> Summary:
    """Reads a split once.

    The generators are those that `tfdv.generate_statistics_in_memory` uses on one batch; their partial
    results take more batches just as well, so that memory stays bounded.

    Args:
        split: the rows.
        schema: decides which integers are categories; none: no integers are.
    """
    generators = stats_impl.get_generators(tfdv.StatsOptions(schema=schema), in_memory=True)
    partial = [generator.create_accumulator() for generator in generators]
    sampler = Sampler(split)
    # Infinite values make a mean NaN, which NumPy would write about to stderr; they are reported as anomalies.
    with np.errstate(invalid="ignore"):
        for batch in split.batches() if split.rows else [_no_rows(split)]:
            sampler.add(batch)
            lists = _lists(batch)
            partial = [generator.add_input(part, lists) for generator, part in zip(generators, partial, strict=True)]
        statistics = stats_impl.extract_statistics_output(partial, generators)
    return Summary(split, statistics, sampler.table(), sampler.longest)


def features(statistics: StatisticsList) -> dict[str, FeatureStatistics]:
    """Gives the statistics of each column by its name."""
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def common(feature: FeatureStatistics) -> statistics_pb2.CommonStatistics:
    """Gives what the statistics of every type of column have: counts of present and missing values."""
    return getattr(feature, feature.WhichOneof("stats")).common_stats


def infer_schema(train: Summary, label: str, serving_environment: str) -> schema_pb2.Schema:
    """Infers a schema from the train split, with the label absent when serving."""
    schema = tfdv.infer_schema(train.statistics)
    schema.default_environment.extend(["TRAINING", serving_environment])
    for feature in schema.feature:
        if feature.name == label:
            feature.not_in_environment.append(serving_environment)
    return schema


def _no_rows(split: Split) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in split.columns.types], split.columns.names)


def _lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Gives the batch in TFDV's form: a list of values a cell, null where the value is missing."""
    return pa.RecordBatch.from_arrays([_list(column) for column in batch.columns], batch.schema.names)


def _list(column: pa.Array) -> pa.ListArray:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    offsets = np.arange(len(column) + 1, dtype=np.int32)
    if not column.null_count:
        return pa.ListArray.from_arrays(pa.array(offsets), _bytes(column))
    present = column.is_valid().to_numpy(zero_copy_only=False)
    np.cumsum(present, out=offsets[1:])
    # A null offset makes the list that starts there null; the last one starts none.
    return pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~present, False)), _bytes(column.drop_null()))


def _bytes(values: pa.Array) -> pa.Array:
    """Views strings as bytes: TFDV takes them, and they need not be valid UTF-8."""
    if pa.types.is_string(values.type):
        return values.cast(pa.binary())
    return values.cast(pa.large_binary()) if pa.types.is_large_string(values.type) else values
