"""Requests that fuzzing found: each was answered with 500, with UNKNOWN, or with a guess."""

import json
from typing import Any

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip

from tests.predictor.running import RunningServer
from tests.predictor.test_predictor_faults import COLUMNS, ROWS, assert_refused, tensor

HALF = b"\\ud83d"  # of a surrogate pair


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # NaN leads to another parser, which takes halves of pairs.
        (ROWS, b'{"instances": [{"%s": NaN}]}' % HALF),
        (ROWS, b'{"instances": [], "%s": NaN}' % HALF),
        (COLUMNS, b'{"inputs": [{"name": "%s", "shape": [1], "datatype": "FP32", "data": [NaN]}]}' % HALF),
        (COLUMNS, b'{"x": NaN, "id": "%s", "inputs": [%s]}' % (HALF, json.dumps(tensor()).encode())),
        (
            COLUMNS,
            b'{"x": NaN, "inputs": [%s, {"name": "colour", "shape": [2], "datatype": "BYTES",'
            b' "data": ["%s", {"b64": "cmVk"}]}]}' % (json.dumps(tensor()).encode(), HALF),
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_no_json(server: RunningServer, path: str, body: bytes) -> None:
    assert_refused(server.client.post(path, content=body), 400, ["no JSON"])


def test_a_length_of_thousands_of_digits_is_none(server: RunningServer) -> None:
    headers = {"inference-header-content-length": "1" * 5000}
    answer = server.client.post(COLUMNS, json={"inputs": [tensor()]}, headers=headers)
    assert_refused(answer, 400, ["Inference-Header-Content-Length"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"parameters": 0}, '"parameters" is 0'),
        ({"parameters": False}, '"parameters" is false'),
        ({"outputs": 0}, '"outputs"'),
        ({"outputs": ""}, '"outputs"'),
        ({"parameters": {"null_markers": "yes"}}, "null_markers is 'yes'"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output is 1"),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": None}}]}, "binary_data is null"),
    ],
)
def test_what_is_neither_yes_nor_no_is_refused(server: RunningServer, more: dict[str, Any], says: str) -> None:
    assert_refused(server.columns(inputs=[tensor()], **more), 400, [says])


def test_an_error_is_one_line_whatever_the_name(server: RunningServer) -> None:
    assert_refused(server.rows([{"trip km": 1, "a\nb\u2028c": 1}]), 400, ["'a b c'"])
    assert_refused(server.client.get("/v2/models/a%0Ab"), 404, ["'a b'"])


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/docs", 404, "/openapi.json"),
        ("GET", "/v1/models/other", 404, "/openapi.json"),
        ("GET", "/a%0Ab", 404, "/openapi.json"),
        ("POST", "/metrics", 405, "GET"),
        ("DELETE", "/v1/models/toy", 405, "GET"),
        ("POST", "/openapi.json", 405, "GET"),
    ],
)
def test_places_outside_the_model_refuse_alike(
    server: RunningServer, method: str, path: str, status: int, says: str
) -> None:
    answer = server.client.request(method, path)
    assert_refused(answer, status, [says])
    assert (answer.headers.get("allow") == "GET") == (status == 405)


def called(server: RunningServer, method: str, serialized: bytes) -> tuple[grpc.StatusCode, str]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(serialized, timeout=60)
        return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ServerReady"])
def test_bytes_that_are_no_message_are_the_clients_fault(server: RunningServer, method: str) -> None:
    code, details = called(server, method, b"\xff\xff")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be read" in details
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
@pytest.mark.parametrize("name", ["toy", "other"])
def test_nothing_is_loaded_over_grpc(server: RunningServer, method: str, name: str) -> None:
    request = oip.RepositoryModelLoadRequest(model_name=name)
    code, details = called(server, method, request.SerializeToString())
    assert code == grpc.StatusCode.NOT_FOUND
    assert "nothing is loaded" in details
    assert server.rows([{"trip km": 1}]).status_code == 200


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelInfer", oip.ModelInferRequest(model_name="toy", model_version="9")),
        ("ModelReady", oip.ModelReadyRequest(name="toy", version="9")),
        ("ModelMetadata", oip.ModelMetadataRequest(name="toy", version="9")),
    ],
)
def test_another_version_is_not_found_over_grpc(server: RunningServer, method: str, request_: Any) -> None:
    code, details = called(server, method, request_.SerializeToString())
    assert code == grpc.StatusCode.NOT_FOUND
    assert "has no version '9'" in details


@pytest.mark.parametrize("depth", [100, 400, 700, 1000, 100_000])
@pytest.mark.parametrize("body", ['{"instances": %s}', '{"instances": [{"trip km": %s}]}', '{"inputs": [%s]}'])
def test_a_value_of_any_depth_is_told_in_short(server: RunningServer, body: str, depth: int) -> None:
    deep = (body % ("[" * depth + "]" * depth)).encode()
    for path in (ROWS, COLUMNS):
        assert_refused(server.client.post(path, content=deep), 400, [])
