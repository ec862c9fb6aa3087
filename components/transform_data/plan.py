"""Which features are made of which columns: the settings, checked against the schema, or chosen by types."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.schema import Column, Schema, columns
from components.settings import CategoricalFeatures, DatetimeFeatures, Features, NumericFeatures, Task
from components.transform_data.analysis import read_batches
from components.transform_data.extremes import Extremes

# Of text columns that nobody described: beyond this many values the rest share a bucket.
_TOP_K = 10_000
# Among so few rows, any column may happen to differ in every one.
_FEW = 20
# A text or integer column with more different values a row than this names rows, it does not describe them.
_IDENTIFYING_SHARE = 0.9


def check(features: Features, schema: Schema, task: Task) -> None:
    """Holds the settings against the schema.

    Raises:
        InputError: a feature's column is not in the schema, has the wrong type, or is the label.
    """
    known = columns(schema)
    for name in (*features.columns, *task.labels):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else "add it to the schema"
            raise InputError(f"column '{name}' is not in the schema; {hint}")
    if task.label in features.columns:
        raise InputError(f"the label '{task.label}' is among the features; take it out")
    for numeric in features.numeric:
        for name in numeric.columns:
            if known[name].type == pa.string():
                raise InputError(f"numeric feature '{name}' holds text (schema: BYTES); list it under categorical")
    for group in features.datetime:
        for name in group.columns:
            if not known[name].is_time:
                raise InputError(f"datetime feature '{name}' has no time_domain in the schema; add one")


def choose(schema: Schema, task: Task, train: Sequence[Path], ranges: Mapping[str, Extremes]) -> Features:
    """Chooses features by the types in the schema, when the settings name none.

    Left out, with a printed line: columns without a value, and columns that name rows. Left out in silence: the
    label, and columns absent when serving.

    Args:
        schema: describes the columns.
        task: names the label.
        train: Parquet parts of the train split.
        ranges: what they hold, by column.

    Raises:
        InputError: nothing is left.
    """
    numeric, categorical, times = [], [], []
    absent = {feature.name for feature in schema.feature if "SERVING" in feature.not_in_environment}
    for name, column in columns(schema).items():
        if name == task.label or name in absent:
            continue
        if name not in ranges or ranges[name].is_missing:
            print(f"transform_data: column '{name}' is no feature: it has no value in train")
        elif column.is_time:
            times.append(name)
        elif column.type == pa.float32():
            numeric.append(name)
        elif (kind := _kind(schema, column, train)) == "category":
            categorical.append(name)
        elif kind == "number":
            numeric.append(name)
    if not (numeric or categorical or times):
        raise InputError("no column is left to make features of; name some under 'features'")
    return Features(
        numeric=[NumericFeatures(columns=numeric)] if numeric else [],
        categorical=[CategoricalFeatures(columns=categorical, top_k=_TOP_K)] if categorical else [],
        datetime=[DatetimeFeatures(columns=times)] if times else [],
    )


def numbers(features: Features) -> list[str]:
    """Names the columns that are read as numbers."""
    return [name for group in features.numeric for name in group.columns]


def domains(schema: Schema) -> Mapping[str, list[str]]:
    """Gives the closed domains of text columns: their values, in the schema's order."""
    shared = {domain.name: list(domain.value) for domain in schema.string_domain}
    own = {
        f.name: list(f.string_domain.value) for f in schema.feature if f.WhichOneof("domain_info") == "string_domain"
    }
    named = {f.name: shared.get(f.domain, []) for f in schema.feature if f.WhichOneof("domain_info") == "domain"}
    return {name: values for name, values in {**named, **own}.items() if values}


def inputs(features: Features, schema: Schema) -> list[Column]:
    """Lists the raw columns that the features use."""
    known = columns(schema)
    return [known[name] for name in features.columns]


def _kind(schema: Schema, column: Column, train: Sequence[Path]) -> Literal["category", "number", "identifier"]:
    """Tells what a column of text or integers is, by its first rows."""
    values = next(read_batches(train, [column.name])).column(0).drop_null()
    distinct = pc.count_distinct(values).as_py()
    if len(values) > _FEW and distinct > _IDENTIFYING_SHARE * len(values):
        print(
            f"transform_data: column '{column.name}' is no feature: {distinct:,} different values in {len(values):,} "
            "rows; name it under 'features' to use it"
        )
        return "identifier"
    is_categorical = any(f.name == column.name and f.int_domain.is_categorical for f in schema.feature)
    return "category" if column.type == pa.string() or is_categorical else "number"
