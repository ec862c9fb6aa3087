"""Hostile payloads: each gets an answer, or a refusal that says why."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.served import COLUMNS, EXPLANATIONS, GOOD_ROW, MAX_BODY_BYTES, REQUESTS, ROWS, Server

TESTS = 7
FUZZ = settings(
    max_examples=max(1, REQUESTS // 2 // TESTS), deadline=None, suppress_health_check=list(HealthCheck), database=None
)

NAMES = st.sampled_from([*GOOD_ROW, "b64", "examples", "instances", "inputs", "parameters", "signature_name"])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)  # halves of surrogate pairs as well
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**25), 2**63, -(2**63), 2**53 + 1, 1e308, 3.5e38, 5e-324, -0.0])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=4)
)
PLAUSIBLE = st.fixed_dictionaries(
    {"trip km": st.floats(-1e6, 1e6)},
    optional={
        "amount": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "visits": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
        "colour": st.none() | st.text(max_size=12),
    },
)
ROW = PLAUSIBLE | st.dictionaries(NAMES | TEXTS, JSON, max_size=3).map(lambda changes: GOOD_ROW | changes)
DATATYPES = ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES", ""]
PATHS = st.sampled_from([ROWS, EXPLANATIONS, COLUMNS])


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def twice(pairs: list[tuple[str, Any]]) -> bytes:
    """An object that has keys more than once."""
    return b"{%s}" % b",".join(dumped(name) + b":" + dumped(value) for name, value in pairs)


def deep(depth: int) -> bytes:
    return b'{"instances":' + b"[" * depth + b"]" * depth + b"}"


BODIES = (
    st.binary(max_size=200)
    | JSON.map(dumped)
    | JSON.map(lambda value: dumped({"instances": value}))
    | st.lists(st.tuples(NAMES | TEXTS, JSON), max_size=5).map(lambda pairs: twice(pairs + pairs[:2]))
    | st.integers(1, 30_000).map(deep)
)


@FUZZ
@given(path=PATHS, body=BODIES)
def test_bodies(server: Server, path: str, body: bytes) -> None:
    server.post(path, body)


@FUZZ
@given(
    path=PATHS,
    rows=st.lists(PLAUSIBLE, min_size=1, max_size=4) | st.lists(ROW, min_size=1, max_size=4),
    more=st.just({}) | st.dictionaries(NAMES | TEXTS, JSON, max_size=1),
)
def test_rows(server: Server, path: str, rows: list[Any], more: dict[str, Any]) -> None:
    server.post(path, dumped({"instances": rows} | more))


@FUZZ
@given(
    path=PATHS,
    at=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 300),
    encoding=st.sampled_from([None, "gzip", "identity", "br, gzip", "ÿ"]),
)
def test_damaged_bodies(server: Server, path: str, at: list[tuple[int, int]], cut: int, encoding: str | None) -> None:
    body = bytearray(dumped({"instances": [GOOD_ROW] * 2}))
    for place, byte in at:
        body[place % len(body)] = byte
    headers = {"content-encoding": encoding} if encoding else None
    server.post(path, bytes(body[cut:] if cut % 2 else body[: len(body) - cut]), headers)


SHAPES = st.just([2]) | st.just([2, 1]) | st.lists(st.integers(-(2**62), 2**62), max_size=3)
TENSORS = st.lists(
    st.fixed_dictionaries(
        {
            "name": NAMES | TEXTS,
            "shape": SHAPES | JSON,
            "datatype": st.sampled_from(DATATYPES) | JSON,
        },
        optional={
            "data": st.lists(SCALARS, min_size=2, max_size=2) | JSON,
            "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 40) | JSON}) | JSON,
        },
    ),
    max_size=3,
)
GOOD_TENSOR = {"name": "trip km", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}


@FUZZ
@given(
    tensors=st.just([]) | TENSORS,
    behind=st.just(b"") | st.binary(max_size=40),
    lie=st.sampled_from([0, 0, 0, 1, -1, 10**9, -(10**9)]),
    more=st.fixed_dictionaries(
        {},
        optional={
            "parameters": st.fixed_dictionaries({}, optional={"null_markers": JSON, "binary_data_output": JSON}) | JSON,
            "outputs": st.just([{"name": "label", "parameters": {"binary_data": True}}]) | JSON,
            "id": TEXTS | JSON,
        },
    ),
)
def test_columns_and_what_is_behind_them(
    server: Server, tensors: list[Any], behind: bytes, lie: int, more: dict[str, Any]
) -> None:
    head = dumped({"inputs": [GOOD_TENSOR, *tensors], **more})
    headers = {"inference-header-content-length": str(len(head) + lie)} if behind or lie else None
    server.post(COLUMNS, head + behind, headers)


CONTENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=8),
}
GOOD_CONTENTS = {"name": "trip km", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [2.5]}}
GRPC_TENSOR = st.just(GOOD_CONTENTS) | st.fixed_dictionaries(
    {
        "name": st.sampled_from([*GOOD_ROW, "examples"]) | st.text(max_size=5),
        "datatype": st.sampled_from(DATATYPES) | st.text(max_size=5),
        "shape": st.just([1]) | st.just([2]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "contents": st.fixed_dictionaries(
            {}, optional={kind: st.lists(values, max_size=2) for kind, values in CONTENTS.items()}
        ),
    }
)
PARAMETER = st.one_of(
    st.booleans().map(lambda value: {"bool_param": value}),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: {"int64_param": value}),
    st.text(max_size=5).map(lambda value: {"string_param": value}),
    st.just({}),
)


@FUZZ
@given(
    tensors=st.just([GOOD_CONTENTS]) | st.lists(GRPC_TENSOR, max_size=3),
    raw=st.just([]) | st.lists(st.binary(max_size=20), max_size=4),
    both=st.booleans(),
    names=st.sampled_from([*[("toy", "")] * 4, ("toy", "9"), ("other", "")]),
    parameters=st.dictionaries(st.sampled_from(["null_markers", "x"]), PARAMETER, max_size=2),
    outputs=st.lists(st.sampled_from(["label", "probability", "lable", ""]), max_size=2),
)
def test_tensors_over_grpc(
    server: Server,
    tensors: list[dict[str, Any]],
    raw: list[bytes],
    both: bool,
    names: tuple[str, str],
    parameters: dict[str, Any],
    outputs: list[str],
) -> None:
    request = server.messages["ModelInferRequest"](model_name=names[0], model_version=names[1])
    for tensor in tensors:
        contents = tensor["contents"] if both or not raw else None
        request.inputs.add(**tensor | {"contents": contents})
    request.raw_input_contents.extend(raw)
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(server.messages["InferParameter"](**value))
    for output in outputs:
        request.outputs.add(name=output)
    server.call("ModelInfer", request.SerializeToString())


METHODS = ["ModelInfer", "ModelReady", "ModelMetadata", "ServerReady", "ServerMetadata"]
METHODS += ["RepositoryModelLoad", "RepositoryModelUnload", "Nothing"]


@FUZZ
@given(method=st.sampled_from(METHODS), serialized=st.binary(max_size=60) | st.just(b"\n\x03toy"))
def test_any_bytes_over_grpc(server: Server, method: str, serialized: bytes) -> None:
    server.call(method, serialized)


@settings(FUZZ, max_examples=5)
@given(more=st.integers(1, 100_000))
def test_large_requests(server: Server, more: int) -> None:
    assert server.post(ROWS, b" " * (MAX_BODY_BYTES + more)).status_code == 413
    assert server.call("ModelInfer", b"\x00" * (MAX_BODY_BYTES + more)) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("length", ["1" * 5000, "²", "-1", "1e3"])
def test_lengths_that_are_none(server: Server, length: str) -> None:
    headers = {"inference-header-content-length": length}
    assert server.post(COLUMNS, dumped({"inputs": [GOOD_TENSOR]}), headers).status_code == 400
