"""Which features are made of which columns: the settings, checked against the schema, or chosen by types."""

import difflib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import InputError
from components.schema import Column, Schema, columns
from components.settings import CategoricalFeatures, DatetimeFeatures, Features, NumericFeatures, Task

# Of text columns that nobody described: beyond this many values the rest share a bucket.
_TOP_K = 10_000
# An integer with at most this many different values is read as a category.
_FEW = 20
# A text or integer column with more different values a row than this names rows, it does not describe them.
_IDENTIFYING_SHARE = 0.9


def check(features: Features, schema: Schema, task: Task) -> None:
    """Holds the settings against the schema.

    Raises:
        InputError: a feature's column is not in the schema, has the wrong type, or is the label.
    """
    known = columns(schema)
    for name in (*features.columns, task.label):
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


def choose(schema: Schema, task: Task, train: list[Path]) -> Features:
    """Chooses features by the types in the schema, when the settings name none.

    Left out, with a printed line: the label, columns absent when serving, columns that name rows.

    Raises:
        InputError: nothing is left.
    """
    numeric, categorical, times = [], [], []
    absent = {feature.name for feature in schema.feature if "SERVING" in feature.not_in_environment}
    for name, column in columns(schema).items():
        if name == task.label or name in absent:
            continue
        distinct, rows = _distinct(train, name)
        if column.is_time:
            times.append(name)
        elif column.type == pa.float32():
            numeric.append(name)
        elif rows > _FEW and distinct > _IDENTIFYING_SHARE * rows:
            print(f"column '{name}' is no feature: {distinct:,} different values in {rows:,} rows; name it to use it")
        elif column.type == pa.string() or distinct <= _FEW or _is_categorical(schema, name):
            categorical.append(name)
        else:
            numeric.append(name)
    if not (numeric or categorical or times):
        raise InputError("no column is left to make features of; name some under 'features'")
    return Features(
        numeric=[NumericFeatures(columns=numeric)] if numeric else [],
        categorical=[CategoricalFeatures(columns=categorical, top_k=_TOP_K)] if categorical else [],
        datetime=[DatetimeFeatures(columns=times)] if times else [],
    )


def domains(schema: Schema) -> Mapping[str, list[str]]:
    """Gives the closed domains of text columns: their values, in the schema's order."""
    shared = {domain.name: list(domain.value) for domain in schema.string_domain}
    own = {
        f.name: list(f.string_domain.value) for f in schema.feature if f.WhichOneof("domain_info") == "string_domain"
    }
    named = {f.name: shared.get(f.domain, []) for f in schema.feature if f.WhichOneof("domain_info") == "domain"}
    return {name: values for name, values in {**named, **own}.items() if values}


def required(features: Features) -> set[str]:
    """Names the columns without whose value a row is refused."""
    groups = [*features.numeric, *features.categorical]
    return {name for group in groups if group.missing == "error" for name in group.columns}


def inputs(features: Features, schema: Schema) -> list[Column]:
    """Lists the raw columns that the features use."""
    known = columns(schema)
    return [known[name] for name in features.columns]


def _is_categorical(schema: schema_pb2.Schema, name: str) -> bool:
    return any(f.name == name and f.int_domain.is_categorical for f in schema.feature)


def _distinct(files: list[Path], name: str) -> tuple[int, int]:
    """Counts different values and rows of a column, in the first part: enough to tell what kind it is."""
    values = pq.read_table(files[0], columns=[name]).column(0)
    return pc.count_distinct(values).as_py(), len(values) - values.null_count
