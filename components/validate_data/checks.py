"""What TFDV does not look for: each check gives findings."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_statistics.findings import Finding
from components.data_statistics.offences import HUGE_STRING_BYTES, MISSING
from components.data_statistics.statistics import FeatureStatistics, common
from components.errors import InputError
from components.labels import distinct_classes, positive_class
from components.settings import Task
from components.validate_data import leaks
from components.validate_data.splits import Split
from components.validate_data.summaries import Summary


def check_split(summary: Summary, task: Task, known: set[tuple[str, str]]) -> Iterator[Finding]:
    """Checks what holds for any split.

    Args:
        summary: of the split.
        task: names the label.
        known: columns and anomaly types that TFDV reported in this split.
    """
    name, statistics = summary.split.name, summary.features
    for feature, one in statistics.items():
        missing = common(one).num_missing
        absent = missing and not any(about == feature and type_ in MISSING for about, type_ in known)
        if feature == task.label and absent and not task.is_unsupervised:
            yield Finding(name, feature, "MISSING_LABELS")
        elif missing == summary.split.rows and absent:
            yield Finding(name, feature, "ALL_MISSING")
        if (feature, "FLOAT_TYPE_HAS_INF") not in known and np.isinf([one.num_stats.min, one.num_stats.max]).any():
            yield Finding(name, feature, "INFINITE_VALUES")
        if (feature, "FLOAT_TYPE_HAS_NAN") not in known and any(h.num_nan for h in one.num_stats.histograms):
            yield Finding(name, feature, "NAN_VALUES")
        if summary.longest.get(feature, 0) > HUGE_STRING_BYTES:
            yield Finding(name, feature, "HUGE_STRINGS")


def check_train(train: Summary, task: Task) -> Iterator[Finding]:
    """Checks whether there is something to learn, and nothing that gives the answer away."""
    name = train.split.name
    for feature, one in train.features.items():
        if feature != task.label and train.split.rows > 1 and not common(one).num_missing and _is_constant(one):
            yield Finding(name, feature, "CONSTANT_FEATURE")
    yield from _check_label(train, task)
    if task.label is None or task.is_unsupervised:
        return  # nothing is learned from the label, so that no feature can give it away
    scores = leaks.scores(train.sample, task.label, numeric_label=task.type == "regression")
    for feature, score in scores.items():
        if score >= leaks.SUSPICIOUS:
            yield Finding(name, feature, "LABEL_LEAK", f"score {score:.3f} of 1 on rows held out")


def check_environments(schema: schema_pb2.Schema, label: str | None, serving: str) -> Iterator[Finding]:
    """Checks that requests without a label will conform to the schema."""
    if not schema.default_environment:
        return
    if serving not in schema.default_environment:
        has = ", ".join(schema.default_environment)
        yield Finding("schema", "", "SERVING_ENVIRONMENT_ABSENT", f"'{serving}' (it has: {has})")
        return
    for feature in schema.feature:
        if feature.name == label and serving not in feature.not_in_environment:
            yield Finding("schema", feature.name, "LABEL_WHEN_SERVING", f"environment '{serving}'")


def _check_label(train: Summary, task: Task) -> Iterator[Finding]:
    if task.label is None or task.type in ("regression", "clustering"):
        return
    label = train.features[task.label]
    if not common(label).num_non_missing:
        return
    if _is_constant(label):
        if task.is_unsupervised:
            return  # only usual rows to learn from are the best case
        yield Finding(train.split.name, task.label, "SINGLE_CLASS")
    elif task.type in ("binary", "anomaly_detection"):
        try:
            positive_class(_classes(train.split, task), task)
        except InputError as error:
            yield Finding(train.split.name, task.label, "UNEXPECTED_CLASSES", str(error).partition("; ")[0])


def _classes(split: Split, task: Task) -> list[str]:
    batches = (batch.column(0) for batch in split.batches(task.labels))
    distinct = [_plain(pc.unique(column)) for column in batches]
    return distinct_classes(pa.chunked_array(distinct), task)


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values


def _is_constant(feature: FeatureStatistics) -> bool:
    if feature.HasField("string_stats"):
        return bool(feature.string_stats.unique == 1)
    present = common(feature).num_non_missing
    return bool(present) and feature.num_stats.min == feature.num_stats.max
