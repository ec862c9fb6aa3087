"""Requests: what each protocol says, checked against the spec and turned into arrays.

Three shapes of one thing: rows (protocol v1), named columns (Open Inference Protocol), serialized tf.Examples.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from components.model_spec import DATATYPES, ModelInput, ModelSpec
from components.predictor.columns import Array, column, from_base64, is_missing, key_column, narrowed, refuse_missing
from components.predictor.faults import RequestError, hint, shown
from components.rows import MISSING_INTEGER, Arrays, marker

EXAMPLES = "examples"
"""Name of the tensor that holds serialized tf.Examples."""
NULL_MARKERS = "null_markers"
"""A request's parameter: NaN, the smallest int64 and "" in its binary or gRPC tensors stand for missing values."""

_MOST_DIGITS = 18  # of a length; Python refuses to read thousands
_BODY_KEYS = ("instances", "signature_name")
SIGNATURES = ("serving_default", "serve_tf_examples")
_NUMPY: Mapping[str, np.dtype[Any]] = {
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
_INTEGER_TYPES = frozenset(name for name in _NUMPY if "INT" in name)
TAKES: Mapping[str, frozenset[str]] = {
    "string": frozenset({"BYTES"}),
    "int64": _INTEGER_TYPES,
    "float32": _INTEGER_TYPES | {"FP16", "FP32", "FP64"},
}


@dataclass(frozen=True)
class Tensor:
    """A named column, as a request gives it."""

    name: str
    datatype: Any
    shape: Any
    data: Any
    """A list, as in JSON; bytes, as in the binary extension and gRPC's raw contents."""


@dataclass(frozen=True)
class ColumnRequest:
    """A request of the Open Inference Protocol."""

    id: str
    tensors: list[Tensor]
    outputs: list[str]
    """Names of the wanted ones; empty: all."""
    null_markers: bool
    binary_outputs: bool = False


def parse_json(body: bytes, name: str = "the body") -> Any:
    """Parses JSON; NaN and Infinity, which JSON has not, are kept, so that the fault can be told with its row.

    Args:
        body: UTF-8.
        name: of it, for messages.

    Raises:
        RequestError: no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    if b"NaN" in body or b"Infinity" in body or "infinity" in reason:
        try:
            parsed = json.loads(body.decode())
            # Half of a surrogate pair, which no text may have, fails here.
            json.dumps(parsed, ensure_ascii=False).encode()
            return parsed
        except (ValueError, RecursionError):
            pass
    raise RequestError(f"{name} is no JSON: {reason}" if body else f"{name} is empty; send JSON")


# ------------------------------------------------------------------------------------------------ protocol v1


def from_rows(parsed: Any, spec: ModelSpec, max_rows: int, keys: Sequence[str] = ()) -> Arrays:
    """Reads a request of protocol v1: {"instances": [{feature: value, …}, …]}.

    A feature that a row does not name is missing in it. Instead of a row, {"b64": …} is a serialized tf.Example.

    Args:
        parsed: the JSON.
        spec: of the model.
        max_rows: more are refused.
        keys: columns that a client may send beside the features; those given are among the arrays, as text.

    Raises:
        RequestError: anything is not as the spec has it.
    """
    if not isinstance(parsed, dict):
        raise RequestError(f'the body is {shown(parsed)}; send an object: {{"instances": [{{feature: value, …}}]}}')
    for key in parsed:
        if key not in _BODY_KEYS:
            raise RequestError(f"the body has an unknown key '{key[:60]}'; {hint(key, _BODY_KEYS)}")
    if parsed.get("signature_name", SIGNATURES[0]) not in SIGNATURES:
        raise RequestError(f"unknown signature_name {shown(parsed['signature_name'])}; {hint('', SIGNATURES)}")
    if "instances" not in parsed:
        raise RequestError('the body has no "instances": a list of rows, each an object: {feature: value, …}')
    rows = parsed["instances"]
    if not isinstance(rows, list):
        raise RequestError(f'"instances" is {shown(rows)}; give a list of rows')
    check_count(len(rows), max_rows)
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f"row {index} is {shown(row)}; give an object: {{feature: value, …}}")
    if any(row.keys() == {"b64"} for row in rows) and all(i.name != "b64" for i in spec.inputs):
        rows = [_example_row(row, index, spec) for index, row in enumerate(rows)]
    return _columns_of(rows, spec, keys)


def _columns_of(rows: Sequence[Mapping[str, Any]], spec: ModelSpec, keys: Sequence[str]) -> Arrays:
    names = [i.name for i in spec.inputs]
    known = frozenset((*names, *keys))
    for index, row in enumerate(rows):
        if not known.issuperset(row):
            unknown = next(name for name in row if name not in known)
            raise RequestError(f"row {index}: unknown feature '{unknown[:60]}'; {hint(unknown, names)}")
    given = [key for key in keys if any(key in row for row in rows)]
    return {
        **{i.name: column(i, [row.get(i.name) for row in rows]) for i in spec.inputs},
        **{key: key_column(key, [row.get(key) for row in rows]) for key in given},
    }


def check_count(rows: int, max_rows: int) -> None:
    """Raises: RequestError: no rows, or too many."""
    if rows == 0:
        raise RequestError("the request has no rows; give at least one")
    if rows > max_rows:
        raise RequestError(f"the request has {rows:,} rows (allowed: {max_rows:,}); send them in several requests")


def _example_row(row: Mapping[str, Any], index: int, spec: ModelSpec) -> dict[str, Any]:
    if row.keys() != {"b64"}:
        raise RequestError(f'row {index} is no {{"b64": …}}, as others are; send tf.Examples or rows, not both')
    return parse_example(from_base64(row["b64"], f"row {index}"), index, spec)


# -------------------------------------------------------------------------------------------------- tf.Example


def parse_example(serialized: bytes, index: int, spec: ModelSpec) -> dict[str, Any]:
    """Reads a serialized tf.Example as a row, with the kinds of its lists as strictly as TensorFlow takes them.

    Raises:
        RequestError: no tf.Example, or a feature of another kind or with several values.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.example import example_pb2

    try:
        features = example_pb2.Example.FromString(serialized).features.feature
    except DecodeError:
        raise RequestError(f"row {index} is no serialized tf.Example") from None
    if not features and serialized:
        raise RequestError(f"row {index} is no serialized tf.Example: it holds no features")
    wanted = {
        i.name: {"string": "bytes_list", "int64": "int64_list", "float32": "float_list"}[i.dtype] for i in spec.inputs
    }
    row: dict[str, Any] = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value if kind else ()
        if name in wanted and values and kind != wanted[name]:
            raise RequestError(f"row {index}, feature '{name}': is a {kind}; the model takes a {wanted[name]}")
        if len(values) > 1:
            raise RequestError(f"row {index}, feature '{name[:60]}': has {len(values)} values; give one")
        row[name] = values[0] if values else None
    return row


# ------------------------------------------------------------------------------------- Open Inference Protocol


def parse_columns(body: bytes, json_length: str | None) -> ColumnRequest:
    """Reads a REST request of the Open Inference Protocol, its binary extension included.

    Args:
        body: JSON, and behind it the binary tensors.
        json_length: the header Inference-Header-Content-Length; None: all is JSON.

    Raises:
        RequestError: not such a request.
    """
    binary = b""
    if json_length is not None:
        if not json_length.isdecimal() or len(json_length) > _MOST_DIGITS or int(json_length) > len(body):
            raise RequestError(
                f"Inference-Header-Content-Length is {shown(json_length)}, the body has {len(body)} bytes"
            )
        body, binary = body[: int(json_length)], body[int(json_length) :]
    parsed = parse_json(body)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("inputs"), list):
        raise RequestError('the body has no "inputs": a list of {"name", "shape", "datatype", "data"}')
    parameters = _object(parsed, "parameters")
    request_id = parsed.get("id", "")
    if not isinstance(request_id, str) or len(request_id) > 256:
        raise RequestError(f'"id" is {shown(request_id)}; give text of up to 256 characters')
    tensors = []
    for index, given in enumerate(parsed["inputs"]):
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise RequestError(f'"inputs"[{index}] has no "name"')
        data = given.get("data")
        size = _object(given, "parameters").get("binary_data_size")
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(binary):
                raise RequestError(
                    f"input '{given['name'][:60]}': binary_data_size is {shown(size)}, {len(binary)} bytes are left"
                )
            data, binary = binary[:size], binary[size:]
        elif not isinstance(data, list):
            raise RequestError(f"input '{given['name'][:60]}': \"data\" is {shown(data)}; give a list")
        tensors.append(Tensor(given["name"], given.get("datatype"), given.get("shape"), data))
    if binary:
        raise RequestError(f"{len(binary)} bytes behind the JSON belong to no input; set binary_data_size")
    outputs = [] if parsed.get("outputs") is None else parsed["outputs"]
    if not isinstance(outputs, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
    ):
        raise RequestError('"outputs" is no list of {"name"}')
    return ColumnRequest(
        id=request_id,
        tensors=tensors,
        outputs=[output["name"] for output in outputs],
        null_markers=flag(parameters, NULL_MARKERS),
        binary_outputs=flag(parameters, "binary_data_output")
        or any(flag(_object(output, "parameters"), "binary_data") for output in outputs),
    )


def _object(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f'"{key}" is {shown(value)}; give an object')
    return value


def flag(parameters: Mapping[str, Any], name: str) -> bool:
    """Reads a parameter that is true or false; false where it is not given.

    Raises:
        RequestError: it is something else.
    """
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"the parameter {name} is {shown(value)}; give true or false")
    return value


def from_columns(request: ColumnRequest, spec: ModelSpec, max_rows: int, keys: Sequence[str] = ()) -> Arrays:
    """Reads the tensors of a request; an optional feature without a tensor is missing in all rows.

    Args: as of `from_rows`.

    Raises:
        RequestError: anything is not as the spec has it.
    """
    known = {i.name: i for i in spec.inputs}
    if not request.tensors:
        raise RequestError("the request has no inputs; give a tensor for each feature")
    given: dict[str, Tensor] = {}
    for tensor in request.tensors:
        if tensor.name in given:
            raise RequestError(f"input '{tensor.name[:60]}' is given twice")
        given[tensor.name] = tensor
    first = request.tensors[0]
    rows = _rows(first)
    check_count(rows, max_rows)
    if list(given) == [EXAMPLES] and EXAMPLES not in known:
        return _from_examples(first, rows, spec, keys)
    arrays: Arrays = {}
    for name, tensor in given.items():
        if name not in known and name not in keys:
            raise RequestError(f"unknown input '{name[:60]}'; {hint(name, known)}")
        if _rows(tensor) != rows:
            raise RequestError(
                f"input '{name}' has {_rows(tensor)} rows, '{first.name[:60]}' has {rows}; give as many of each"
            )
        arrays[name] = (
            _from_tensor(tensor, known[name], rows, request.null_markers)
            if name in known
            else _key_from_tensor(tensor, rows)
        )
    for i in spec.inputs:
        if i.name not in arrays:
            dtype = object if i.dtype == "string" else i.dtype
            arrays[i.name] = np.full(rows, marker(i.dtype), dtype)
            if i.required:
                refuse_missing(i, arrays[i.name])
    return arrays


def _rows(tensor: Tensor) -> int:
    shape = tensor.shape
    if (
        isinstance(shape, list)
        and all(type(size) is int and size >= 0 for size in shape)
        and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
    ):
        return int(shape[0])
    raise RequestError(f"input '{tensor.name[:60]}' has the shape {shown(shape)}; the model takes [rows], or [rows, 1]")


def _from_tensor(tensor: Tensor, i: ModelInput, rows: int, null_markers: bool) -> Array:
    if not isinstance(tensor.datatype, str) or tensor.datatype not in TAKES[i.dtype]:
        raise RequestError(
            f"input '{i.name}' has the datatype {shown(tensor.datatype)}; the model takes {DATATYPES[i.dtype]}"
        )
    if isinstance(tensor.data, list):
        values = _values(tensor, rows)
        return column(i, _without_markers(values, i.dtype) if null_markers else values)
    array = _from_binary(tensor, rows)
    if i.dtype == "string":
        return _optional(i, column(i, array.tolist()))
    if i.dtype == "float32":
        wide = array.astype(np.float64)
        missing = np.isnan(wide) if null_markers else np.zeros(rows, bool)
        return _optional(i, narrowed(i, wide, missing))
    if tensor.datatype == "INT64" and null_markers:
        return _optional(i, array.astype(np.int64))
    return column(i, array.tolist())


def _key_from_tensor(tensor: Tensor, rows: int) -> Array:
    if not isinstance(tensor.datatype, str) or tensor.datatype not in TAKES["string"] | TAKES["int64"]:
        raise RequestError(f"key '{tensor.name[:60]}' has the datatype {shown(tensor.datatype)}; give BYTES or INT64")
    if isinstance(tensor.data, list):
        return key_column(tensor.name, _values(tensor, rows))
    return key_column(tensor.name, _from_binary(tensor, rows).tolist())


def _without_markers(values: Sequence[Any], dtype: str) -> list[Any]:
    """Turns the markers in a list, as gRPC's typed contents are, into None."""
    if dtype == "int64":
        return [None if type(value) is int and value == MISSING_INTEGER else value for value in values]
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _optional(i: ModelInput, array: Array) -> Array:
    if i.required and is_missing(i.dtype, array).any():
        refuse_missing(i, array)
    return array


def _values(tensor: Tensor, rows: int) -> Sequence[Any]:
    """Gives the values of a tensor in JSON, which may be nested as its shape is."""
    data = tensor.data
    if len(tensor.shape) == 2 and len(data) == rows and all(isinstance(row, list) and len(row) == 1 for row in data):
        return [row[0] for row in data]
    if len(data) != rows:
        raise RequestError(f"input '{tensor.name[:60]}' has {len(data)} values, by its shape {rows}")
    return data


def _from_binary(tensor: Tensor, rows: int) -> Array:
    """Reads a tensor in the binary form: little-endian values; for BYTES, each after its length in 4 bytes."""
    raw: bytes = tensor.data
    if tensor.datatype != "BYTES":
        kind = _NUMPY[tensor.datatype]
        if len(raw) != rows * kind.itemsize:
            raise RequestError(
                f"input '{tensor.name[:60]}' has {len(raw)} bytes, by shape and datatype {rows * kind.itemsize}"
            )
        return np.frombuffer(raw, kind)
    values = []
    at = 0
    while at + 4 <= len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        values.append(raw[at + 4 : end])
        at = end
    if at != len(raw) or len(values) != rows:
        raise RequestError(f"input '{tensor.name[:60]}': its bytes do not hold {rows} values, each after its length")
    array = np.empty(rows, object)
    array[:] = values
    return array


def _from_examples(tensor: Tensor, rows: int, spec: ModelSpec, keys: Sequence[str]) -> Arrays:
    if tensor.datatype != "BYTES":
        raise RequestError(f"input '{EXAMPLES}' has the datatype {shown(tensor.datatype)}; give BYTES")
    if isinstance(tensor.data, list):
        # JSON has no bytes; gRPC has.
        serialized = [
            value if isinstance(value, bytes) else from_base64(value, f"row {index}")
            for index, value in enumerate(_values(tensor, rows))
        ]
    else:
        serialized = _from_binary(tensor, rows).tolist()
    return _columns_of([parse_example(value, index, spec) for index, value in enumerate(serialized)], spec, keys)
