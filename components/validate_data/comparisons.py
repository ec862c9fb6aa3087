"""How far the distributions of two sets of rows are apart, by TFDV's comparators."""

from dataclasses import dataclass
from typing import Literal

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.data_statistics.findings import percent
from components.data_statistics.statistics import FeatureStatistics, StatisticsList, features
from components.settings import Comparison
from components.validate_data.anomalies import Anomaly, Example
from components.validate_data.rules import Against, Rules

Measure = Literal["l_infinity", "jensen_shannon"]

_NO_LIMIT = 1.0
"""Neither distance exceeds 1: TFDV measures and never objects."""

_COUNTED = 1000

_MEASURES: dict[int, Measure] = {
    anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY: "l_infinity",
    anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE: "jensen_shannon",
}
_TYPES: dict[Measure, str] = {
    "l_infinity": "COMPARATOR_L_INFTY_HIGH",
    "jensen_shannon": "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
}
_NAMES: dict[Measure, str] = {
    "l_infinity": "largest difference of one value's share",
    "jensen_shannon": "Jensen-Shannon divergence",
}


@dataclass(frozen=True)
class Distance:
    """Between the train split and something else, in one feature."""

    feature: str
    against: Against
    measure: Measure
    value: float
    """0 (alike) to 1."""
    limit: float | None


def compare(
    train: StatisticsList,
    other: StatisticsList,
    against: Against,
    schema: schema_pb2.Schema,
    rules: Rules,
) -> list[Distance]:
    """Measures every feature that both have; limits in the schema hold where the configuration has none."""
    statistics = features(train)
    limits = {
        feature.name: _limits(feature, against, rules, _is_countable(statistics.get(feature.name)))
        for feature in schema.feature
    }
    anomalies = tfdv.validate_statistics(
        train,
        _with_comparators(schema, limits, statistics),
        serving_statistics=other if against == "eval" else None,
        previous_statistics=other if against == "production" else None,
    )
    distances = []
    for info in anomalies.drift_skew_info:
        feature = info.path.step[0]
        for one in info.skew_measurements if against == "eval" else info.drift_measurements:
            measure = _MEASURES[one.type]
            if getattr(limits[feature], measure) is None and not _is_countable(statistics[feature]):
                continue
            distances.append(Distance(feature, against, measure, one.value, getattr(limits[feature], measure)))
    return distances


def excesses(
    distances: list[Distance],
    split: str,
    train: StatisticsList,
    other: StatisticsList,
    schema: schema_pb2.Schema,
    examples: int,
) -> list[Anomaly]:
    """Gives an anomaly for each distance beyond its limit, with the values that differ most."""
    before, after = features(train), features(other)
    times = {feature.name for feature in schema.feature if feature.HasField("time_domain")}
    return [
        Anomaly(
            split=split,
            feature=one.feature,
            type=_TYPES[one.measure],
            description=f"{_NAMES[one.measure]} {one.value:.3g} from {one.against} (allowed: {one.limit:g})",
            examples=[]
            if one.feature in times
            else _changes(split, before[one.feature], after[one.feature], one.against)[:examples],
            against=one.against,
        )
        for one in distances
        if one.limit is not None and one.value > one.limit
    ]


def shares(feature: FeatureStatistics) -> dict[str, float]:
    """Gives the share of each value among the rows that have one; empty for numbers."""
    buckets = feature.string_stats.rank_histogram.buckets
    total = feature.string_stats.common_stats.num_non_missing
    return {bucket.label: bucket.sample_count / total for bucket in buckets} if total else {}


def _is_countable(feature: FeatureStatistics | None) -> bool:
    """Tells whether TFDV keeps the count of every value; it does for 1,000."""
    return feature is None or feature.string_stats.unique <= _COUNTED


def _limits(feature: schema_pb2.Feature, against: Against, rules: Rules, countable: bool) -> Comparison:
    comparator = feature.skew_comparator if against == "eval" else feature.drift_comparator
    limits = rules.limits(feature.name, against, countable)
    return Comparison(
        l_infinity=_first(limits.l_infinity, comparator.infinity_norm),
        jensen_shannon=_first(limits.jensen_shannon, comparator.jensen_shannon_divergence),
    )


def _first(configured: float | None, curated: schema_pb2.InfinityNorm) -> float | None:
    if configured is not None:
        return configured
    return curated.threshold if curated.HasField("threshold") else None


def _with_comparators(
    schema: schema_pb2.Schema, limits: dict[str, Comparison], train: dict[str, FeatureStatistics]
) -> schema_pb2.Schema:
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    for feature in result.feature:
        statistics = train.get(feature.name)
        for comparator in (feature.skew_comparator, feature.drift_comparator):
            comparator.Clear()
            limit = limits[feature.name].jensen_shannon
            comparator.jensen_shannon_divergence.threshold = _NO_LIMIT if limit is None else limit
            if statistics is not None and statistics.HasField("string_stats"):
                limit = limits[feature.name].l_infinity
                comparator.infinity_norm.threshold = _NO_LIMIT if limit is None else limit
    return result


def _changes(split: str, train: FeatureStatistics, other: FeatureStatistics, against: str) -> list[Example]:
    if not train.HasField("string_stats"):
        text = f"mean: {train.num_stats.mean:.4g} ({split}), {other.num_stats.mean:.4g} ({against})"
        return [Example(value=text)]
    before, after = shares(train), shares(other)
    changes = {value: after.get(value, 0.0) - before.get(value, 0.0) for value in before | after}
    return [
        Example(
            value=f"{value[:60]}: {percent(before.get(value, 0))} ({split}), {percent(after.get(value, 0))} ({against})"
        )
        for value in sorted(changes, key=lambda value: -abs(changes[value]))
        if changes[value]
    ]
