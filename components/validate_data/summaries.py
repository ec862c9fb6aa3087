"""One pass over a split: TFDV's statistics, a sample, and the longest strings."""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_statistics.statistics import FeatureStatistics, StatisticsBuilder, StatisticsList, features
from components.validate_data.sample import Sampler
from components.validate_data.splits import Split


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

    Args:
        split: the rows.
        schema: decides which integers are categories; none: no integers are.
    """
    builder = StatisticsBuilder(schema)
    sampler = Sampler(split)
    for batch in split.batches() if split.rows else [_no_rows(split)]:
        sampler.add(batch)
        builder.add(batch)
    return Summary(split, builder.statistics(), sampler.table(), sampler.longest)


def infer_schema(train: Summary, label: str | None, serving_environment: str) -> schema_pb2.Schema:
    """Infers a schema from the train split, with the label, if there is one, absent when serving."""
    schema = tfdv.infer_schema(train.statistics)
    schema.default_environment.extend(["TRAINING", serving_environment])
    for feature in schema.feature:
        if feature.name == label:
            feature.not_in_environment.append(serving_environment)
    return schema


def _no_rows(split: Split) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in split.columns.types], split.columns.names)
