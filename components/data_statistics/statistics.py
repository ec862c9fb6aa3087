"""TFDV's statistics of rows, computed batch by batch in memory."""

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

StatisticsList: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
FeatureStatistics: TypeAlias = statistics_pb2.FeatureNameStatistics


class StatisticsBuilder:
    """Takes rows batch by batch.

    The generators are those that `tfdv.generate_statistics_in_memory` uses on one batch; their partial
    results take more batches just as well, so that memory stays bounded.
    """

    def __init__(self, schema: schema_pb2.Schema | None) -> None:
        """Args: schema: decides which integers are categories; none: no integers are."""
        self._generators = stats_impl.get_generators(tfdv.StatsOptions(schema=schema), in_memory=True)
        self._partial = [generator.create_accumulator() for generator in self._generators]

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes some rows; their strings may be dictionaries."""
        lists = _lists(batch)
        # Infinite values make a mean NaN, which NumPy would write about to stderr; they are reported as anomalies.
        with np.errstate(invalid="ignore"):
            self._partial = [
                generator.add_input(part, lists)
                for generator, part in zip(self._generators, self._partial, strict=True)
            ]

    def statistics(self) -> StatisticsList:
        """Gives the statistics of all rows so far."""
        with np.errstate(invalid="ignore"):
            return stats_impl.extract_statistics_output(self._partial, self._generators)


def features(statistics: StatisticsList) -> dict[str, FeatureStatistics]:
    """Gives the statistics of each column by its name."""
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


def common(feature: FeatureStatistics) -> statistics_pb2.CommonStatistics:
    """Gives what the statistics of every type of column have: counts of present and missing values."""
    return getattr(feature, feature.WhichOneof("stats")).common_stats


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
