"""The schema: TensorFlow Metadata's, in text format, as TFDV writes and data scientists curate it."""

from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.errors import InputError

Schema: TypeAlias = schema_pb2.Schema

_ARROW_TYPES = {
    schema_pb2.BYTES: pa.string(),
    schema_pb2.INT: pa.int64(),
    schema_pb2.FLOAT: pa.float32(),
}


@dataclass(frozen=True)
class Column:
    """One column, as the schema wants it."""

    name: str
    type: pa.DataType
    """string, int64 or float32."""
    required: bool
    """Whether every row must have a value."""
    is_time: bool
    """An int64 that counts seconds since 1970 UTC (time_domain UNIX_SECONDS)."""


def parse_schema(text: str) -> Schema:
    """Parses a schema in protobuf text format.

    Raises:
        InputError: not a schema, with the line and column of the fault.
    """
    try:
        return text_format.Parse(text, Schema())
    except text_format.ParseError as error:
        raise InputError(f"schema: {error}; it must be a tensorflow.metadata.v0.Schema in text format") from error


def format_schema(schema: Schema) -> str:
    """Gives the schema in protobuf text format."""
    return str(text_format.MessageToString(schema))


def columns(schema: Schema, environment: str = "") -> dict[str, Column]:
    """Lists the columns that a schema describes, by name, in its order.

    Args:
        schema: with or without environments.
        environment: only columns that rows of this one have; empty, or one that the schema does not know: all.

    Raises:
        InputError: a feature has a type that a table cannot hold.
    """
    result = {}
    for feature in schema.feature:
        if environment in schema.default_environment and environment in feature.not_in_environment:
            continue
        if feature.type not in _ARROW_TYPES:
            kind = schema_pb2.FeatureType.Name(feature.type)
            raise InputError(f"schema: feature '{feature.name}' has type {kind}; use BYTES, INT or FLOAT")
        result[feature.name] = Column(
            name=feature.name,
            type=_ARROW_TYPES[feature.type],
            required=feature.presence.min_fraction == 1,
            is_time=feature.HasField("time_domain"),
        )
    return result
