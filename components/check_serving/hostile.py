"""Requests that no server may answer with a prediction, an internal error or silence."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import urllib3
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip

from components.check_serving.clients import INFER, PREDICT, SECONDS, Clients, grpc_request, tensors
from components.check_serving.result import Hostile
from components.model_spec import DATATYPES, ModelInput

_NO_SUCH = "lockgate_no_such_feature"
_TOO_MANY_ROWS = 100_001
_TOO_LARGE_BYTES = 64 * 2**20
_DEPTH = 100_000
# What a client can mend. RESOURCE_EXHAUSTED: the message is too large.
_GRPC_REFUSALS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"})


@dataclass(frozen=True)
class _Http:
    """A request over REST."""

    protocol: Literal["v1", "v2"]
    about: str
    path: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] | None = None


def send_all(clients: Clients, row: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Iterator[Hostile]:
    """Sends every hostile request that fits the model, and judges the answers.

    Args:
        clients: of the server.
        row: a good one, to be spoiled.
        inputs: that the model takes.
    """
    for request in _rest(row, inputs):
        yield _judge_rest(clients, request)
    for about, message in _grpc(row, inputs):
        yield _judge_grpc(clients, about, message)


# ------------------------------------------------------------------------------------------------- requests


def _rest(row: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Iterator[_Http]:
    yield from _rest_v1(row, inputs)
    yield from _rest_v2(row, inputs)


def _rest_v1(row: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Iterator[_Http]:
    def v1(about: str, body: Any, **others: Any) -> _Http:
        return _Http("v1", about, PREDICT, body if isinstance(body, bytes) else json.dumps(body).encode(), **others)

    def spoiled(about: str, name: str, value: Any) -> _Http:
        return v1(f"feature '{name}': {about}", {"instances": [{**row, name: value}]})

    yield v1("an empty body", b"")
    yield v1("half a JSON document", b'{"instances": [')
    yield v1("bytes that are no text", bytes(range(256)))
    yield v1("brackets without end", b"[" * _DEPTH)
    yield v1("a list instead of an object", [row])
    yield v1("no instances", {})
    yield v1("instances that are no list", {"instances": row})
    yield v1("a row that is no object", {"instances": [row, 1]})
    yield v1("more rows than a request may have", b'{"instances": [%s]}' % b",".join([b"{}"] * _TOO_MANY_ROWS))
    yield v1("a body above the limit", b" " * _TOO_LARGE_BYTES)
    yield v1("a compressed body", {"instances": [row]}, headers={"content-encoding": "gzip"})
    yield v1("another method", b"", method="GET")
    yield _Http("v1", "another model", PREDICT.replace(":", "x:"), json.dumps({"instances": [row]}).encode())
    yield spoiled("no feature of the model", _NO_SUCH, 1)
    for i in inputs:
        yield spoiled("an object", i.name, {})
        yield spoiled("a boolean", i.name, True)
        if i.required:
            yield spoiled("missing, though required", i.name, None)
        if i.dtype == "string":
            yield spoiled("a number", i.name, 1.5)
            yield v1(
                f"feature '{i.name}': half a surrogate pair",
                json.dumps({"instances": [{**row, i.name: "\ud800"}]}).encode(),
            )
        else:
            yield spoiled("text", i.name, "12")
            yield spoiled("not a number", i.name, float("nan"))
            yield spoiled("infinite", i.name, float("inf"))
            yield spoiled("beyond its type", i.name, 2**63 if i.dtype == "int64" else 1e300)


def _rest_v2(row: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Iterator[_Http]:
    good = tensors([row], inputs)
    first = good[0]

    def v2(about: str, body: Any, **others: Any) -> _Http:
        return _Http("v2", about, INFER, body if isinstance(body, bytes) else json.dumps(body).encode(), **others)

    def changed(about: str, **changes: Any) -> _Http:
        return v2(f"a tensor with {about}", {"inputs": [{**first, **changes}, *good[1:]]})

    yield v2("no inputs", {})
    yield v2("inputs that are no list", {"inputs": first})
    yield v2("the same tensor twice", {"inputs": [*good, first]})
    yield v2("an output that the model has not", {"inputs": good, "outputs": [{"name": _NO_SUCH}]})
    yield changed("a name that no feature has", name=_NO_SUCH)
    yield changed("an unknown datatype", datatype="FP1")
    yield changed("another feature's datatype", datatype="BYTES" if inputs[0].dtype != "string" else "FP32")
    yield changed("a shape for two rows", shape=[2])
    yield changed("a negative shape", shape=[-1])
    yield changed("three dimensions", shape=[1, 1, 1])
    yield changed("no data", data=[])
    yield v2(
        "binary data that ends too soon",
        {"inputs": [{**first, "data": None, "parameters": {"binary_data_size": 1000}}, *good[1:]]},
        headers={"inference-header-content-length": "10"},
    )
    yield v2("a JSON length that is no number", {"inputs": good}, headers={"inference-header-content-length": "x"})
    yield _Http(
        "v2", "another version", INFER.replace("/infer", "/versions/0/infer"), json.dumps({"inputs": good}).encode()
    )


def _grpc(row: Mapping[str, Any], inputs: Sequence[ModelInput]) -> Iterator[tuple[str, Any]]:
    def changed(**changes: Any) -> Any:
        request = grpc_request([row], inputs)
        for name, value in changes.items():
            setattr(request.inputs[0], name, value)
        return request

    yield "no inputs", oip.ModelInferRequest(model_name=changed().model_name)
    another = changed()
    another.model_name += "x"
    yield "another model", another
    yield "a tensor with a name that no feature has", changed(name=_NO_SUCH)
    yield "a tensor with an unknown datatype", changed(datatype="FP1")
    shaped = changed()
    shaped.inputs[0].shape[:] = [2]
    yield "a tensor with a shape for two rows", shaped
    twice = changed()
    twice.inputs.append(twice.inputs[0])
    yield "the same tensor twice", twice
    short = oip.ModelInferRequest(model_name=another.model_name.removesuffix("x"))
    for i in inputs:
        short.inputs.add(name=i.name, datatype=DATATYPES[i.dtype], shape=[1])
        short.raw_input_contents.append(b"\x01")
    yield "raw contents that end too soon", short


# -------------------------------------------------------------------------------------------------- answers


def _judge_rest(clients: Clients, request: _Http) -> Hostile:
    try:
        answer = clients.http.request(
            request.method, request.path, body=request.body or None, headers=dict(request.headers or {})
        )
        status, text = answer.status, answer.data.decode(errors="replace")
        ok = 400 <= status < 500 and bool(_cause(text))
        said = f"HTTP {status}: {_cause(text) or text[:200] or 'no cause'}"
    except urllib3.exceptions.HTTPError as error:
        # A server may refuse a large body by its length, and close the connection before it is sent.
        ok, said = len(request.body) == _TOO_LARGE_BYTES, f"the connection was closed: {type(error).__name__}"
    return Hostile(protocol=request.protocol, request=request.about, ok=ok, answer=said)


def _cause(text: str) -> str:
    """Gives what an answer says is wrong; empty: nothing that a client could read."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return ""
    cause = parsed.get("error") if isinstance(parsed, dict) else None
    return " ".join(cause.split())[:300] if isinstance(cause, str) else ""


def _judge_grpc(clients: Clients, about: str, message: Any) -> Hostile:
    try:
        clients.stub.ModelInfer(message, timeout=SECONDS)
        ok, said = False, "OK"
    except grpc.RpcError as error:
        code, details = error.code().name, error.details() or ""
        ok, said = code in _GRPC_REFUSALS and bool(details), f"{code}: {' '.join(details.split())[:300] or 'no cause'}"
    return Hostile(protocol="grpc", request=about, ok=ok, answer=said)
