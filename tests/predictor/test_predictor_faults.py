"""Bad requests: answered with a 4xx that names the cause, never a 500, never a guess."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.predictor.running import RunningServer

GOOD = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}
ROWS = "/v1/models/toy:predict"
COLUMNS = "/v2/models/toy/infer"

ROW_FAULTS = [
    ({"trip kn": 1.0}, ["row 1", "'trip kn'", "did you mean 'trip km'?"]),
    ({"zzz": 1.0}, ["row 1", "'zzz'", "trip km", "visits"]),
    ({"trip km": "warm"}, ["row 1", "'trip km'", "'warm' is text", "a number"]),
    ({"trip km": True}, ["row 1", "'trip km'", "true is a boolean"]),
    ({"trip km": [1.0]}, ["row 1", "'trip km'", "a list"]),
    ({"trip km": {"value": 1}}, ["row 1", "'trip km'", "an object"]),
    ({"trip km": None}, ["row 1", "'trip km'", "missing, and required"]),
    ({"trip km": 1e39}, ["row 1", "'trip km'", "beyond float32"]),
    ({"trip km": 10**400}, ["row 1", "'trip km'"]),
    ({"visits": 3.5}, ["row 1", "'visits'", "fraction"]),
    ({"visits": "3"}, ["row 1", "'visits'", "'3' is text", "an integer"]),
    ({"visits": False}, ["row 1", "'visits'", "a boolean"]),
    ({"visits": 2**63}, ["row 1", "'visits'", "9223372036854775808", "int64"]),
    ({"visits": 10**30}, ["row 1", "'visits'", "int64"]),
    ({"visits": -(2**63)}, ["row 1", "'visits'", "missing value"]),
    ({"visits": 1e300}, ["row 1", "'visits'", "int64"]),
    ({"colour": 3}, ["row 1", "'colour'", "3 is an integer", "text"]),
    ({"colour": {"b64": "*"}}, ["row 1", "'colour'", "base64"]),
    ({"colour": {"b64": "/w=="}}, ["row 1", "'colour'", "UTF-8"]),
    ({"colour": {"b64": "cmVk", "more": 1}}, ["row 1", "'colour'", "an object"]),
]


@pytest.mark.parametrize(("fault", "says"), ROW_FAULTS, ids=lambda value: str(value)[:40])
def test_a_faulty_row_is_named(server: RunningServer, fault: dict[str, Any], says: list[str]) -> None:
    assert_refused(server.rows([GOOD, GOOD | fault, GOOD]), 400, says)


@pytest.mark.parametrize("spelled", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("feature", ["trip km", "visits"])
def test_numbers_that_json_has_not_are_named(server: RunningServer, spelled: str, feature: str) -> None:
    body = f'{{"instances": [{{"trip km": 1}}, {{"trip km": 1, "{feature}": {spelled}}}]}}'
    assert_refused(server.client.post(ROWS, content=body), 400, ["row 1", f"'{feature}'", spelled])


BODIES = [
    (b"", "empty"),
    (b"{", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    (b'{"instances": [{"colour": "\\ud800", "trip km": 1}]}', "no JSON"),
    (b"[" * 100_000, "no JSON"),
    (b"null", "an object"),
    (b"[]", "an object"),
    (b'"text"', "an object"),
    (b"{}", '"instances"'),
    (b'{"instances": {}}', "list of rows"),
    (b'{"instances": null}', "list of rows"),
    (b'{"instances": []}', "no rows"),
    (b'{"instances": [1]}', "row 0 is 1"),
    (b'{"instances": [{"trip km": 1}, null]}', "row 1 is null"),
    (b'{"instances": [[1, 2]]}', "row 0"),
    (b'{"instance": [{"trip km": 1}]}', "did you mean 'instances'?"),
    (b'{"instances": [{"trip km": 1}], "signature_name": "other"}', "serving_default"),
    (b'{"instances": [{"trip km": 1}], "signature_name": 3}', "signature_name"),
    (b'{"instances": [{"b64": "not base64!"}]}', "row 0: not base64"),
    (b'{"instances": [{"b64": 3}]}', "row 0: 3 is no base64"),
    (b'{"instances": [{"b64": "AAAA"}]}', "row 0 is no serialized tf.Example"),
    (b'{"instances": [{"trip km": 1}, {"b64": "AAAA"}]}', "not both"),
    (json.dumps({"instances": [{"trip km": 1}] * 1001}).encode(), "1,001 rows (allowed: 1,000)"),
]


@pytest.mark.parametrize(("body", "says"), BODIES, ids=[body[:40].decode("latin-1") for body, _ in BODIES])
def test_a_faulty_body_is_refused(server: RunningServer, body: bytes, says: str) -> None:
    assert_refused(server.client.post(ROWS, content=body), 400, [says])


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "trip km", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]} | changes


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], '"inputs"'),
        ({}, '"inputs"'),
        ({"inputs": {}}, '"inputs"'),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [1]}, '"name"'),
        ({"inputs": [{"shape": [1]}]}, '"name"'),
        ({"inputs": [tensor(name="trip_km")]}, "did you mean 'trip km'?"),
        ({"inputs": [tensor(), tensor()]}, "given twice"),
        ({"inputs": [tensor(shape=[3])]}, "has 2 values, by its shape 3"),
        ({"inputs": [tensor(shape=[-1])]}, "shape"),
        ({"inputs": [tensor(shape=[2, 2])]}, "shape"),
        ({"inputs": [tensor(shape="2")]}, "shape"),
        ({"inputs": [tensor(shape=[2.0])]}, "shape"),
        ({"inputs": [tensor(shape=[0], data=[])]}, "no rows"),
        ({"inputs": [tensor(shape=[1001], data=[1] * 1001)]}, "1,001 rows"),
        ({"inputs": [tensor(datatype="BYTES")]}, "takes FP32"),
        ({"inputs": [tensor(datatype=None)]}, "takes FP32"),
        ({"inputs": [tensor(datatype=["FP32"])]}, "FP32"),
        ({"inputs": [tensor(data=None)]}, '"data"'),
        ({"inputs": [tensor(data=[1, "x"])]}, "row 1, feature 'trip km': 'x' is text"),
        ({"inputs": [tensor(data=[1, None])]}, "row 1, feature 'trip km': is missing"),
        ({"inputs": [tensor(), tensor(name="visits", datatype="INT64", shape=[1], data=[1])]}, "has 1 rows"),
        ({"inputs": [tensor(name="visits", datatype="INT64", data=[1, 2])]}, "row 0, feature 'trip km': is missing"),
        ({"inputs": [tensor(name="visits", datatype="FP32")]}, "takes INT64"),
        ({"inputs": [tensor()], "outputs": [{"name": "lable"}]}, "did you mean 'label'?"),
        ({"inputs": [tensor()], "outputs": [3]}, '"outputs"'),
        ({"inputs": [tensor()], "parameters": [3]}, '"parameters"'),
        ({"inputs": [tensor()], "id": 3}, '"id"'),
        ({"inputs": [tensor(data=None, parameters={"binary_data_size": 8})]}, "binary_data_size"),
        ({"inputs": [tensor(name="examples", datatype="FP32")]}, "BYTES"),
        ({"inputs": [tensor(name="examples", datatype="BYTES", data=["AAAA", 3])]}, "row 1"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_faulty_columns_are_refused(server: RunningServer, body: Any, says: str) -> None:
    assert_refused(server.client.post(COLUMNS, json=body), 400, [says])


def test_a_faulty_length_of_the_json_is_refused(server: RunningServer) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    for length in ("x", "-1", "99999", ""):
        answer = server.client.post(COLUMNS, content=body, headers={"inference-header-content-length": length})
        assert_refused(answer, 400, ["Inference-Header-Content-Length"])
    rest = server.client.post(
        COLUMNS, content=body + b"1234", headers={"inference-header-content-length": str(len(body))}
    )
    assert_refused(rest, 400, ["4 bytes"])


def test_a_large_body_is_refused_before_it_is_read(server: RunningServer) -> None:
    assert_refused(server.client.post(ROWS, content=b" " * 1_000_001), 413, ["1,000,001", "1,000,000"])

    def pieces() -> Any:
        for _ in range(30):
            yield b" " * 100_000

    assert_refused(server.client.post(ROWS, content=pieces()), 413, ["1,000,000"])
    assert server.rows([GOOD]).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/v1/models/other:predict", 404, "other"),
        ("POST", "/v2/models/other/infer", 404, "other"),
        ("GET", "/v2/models/other", 404, "other"),
        ("POST", "/v2/models/toy/versions/7/infer", 404, "7"),
        ("GET", "/v2/models/toy/versions/7", 404, "7"),
        ("GET", ROWS, 405, "POST"),
        ("GET", COLUMNS, 405, "POST"),
        ("POST", "/v2/models/toy", 405, "GET"),
        ("POST", "/v2/repository/models/toy/unload", 404, "nothing is loaded"),
        ("POST", "/v2/repository/models/toy/load", 404, "nothing is loaded"),
    ],
)
def test_wrong_addresses(server: RunningServer, method: str, path: str, status: int, says: str) -> None:
    assert_refused(server.client.request(method, path, json={"instances": [GOOD]}), status, [says])


def test_compressed_bodies_are_refused(server: RunningServer) -> None:
    answer = server.client.post(ROWS, content=b"x", headers={"content-encoding": "gzip"})
    assert_refused(answer, 415, ["compressed"])


def assert_refused(answer: Any, status: int, says: list[str]) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert "\n" not in error
    assert len(error) < 700
    for part in says:
        assert part in error


# -------------------------------------------------------------------------------------------------- fuzzing

NAMES = st.sampled_from(["trip km", "amount", "visits", "colour", "b64", "examples", "instances", "inputs"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(width=64) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4)
)
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def assert_answered(answer: Any) -> None:
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.status_code == 200 or answer.json()["error"]


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@FUZZ
@given(body=JSON.map(lambda value: dumped({"instances": value})) | JSON.map(dumped) | st.binary(max_size=60))
def test_any_body_gets_an_answer(server: RunningServer, body: bytes) -> None:
    assert_answered(server.client.post(ROWS, content=body))
    assert_answered(server.client.post(COLUMNS, content=body))


@FUZZ
@given(rows=st.lists(st.dictionaries(NAMES, JSON, max_size=5).map(lambda row: GOOD | row), min_size=1, max_size=4))
def test_any_rows_get_an_answer(server: RunningServer, rows: list[dict[str, Any]]) -> None:
    assert_answered(server.client.post(ROWS, content=dumped({"instances": rows})))


@FUZZ
@given(
    inputs=st.lists(
        st.fixed_dictionaries(
            {
                "name": NAMES,
                "shape": st.just([1]) | JSON,
                "datatype": st.sampled_from(["FP32", "FP64", "INT64", "INT8", "UINT64", "BYTES", "BOOL", "FP16"])
                | JSON,
                "data": st.lists(SCALARS, min_size=1, max_size=1) | JSON,
            },
            optional={"parameters": JSON},
        ),
        max_size=3,
    )
)
def test_any_columns_get_an_answer(server: RunningServer, inputs: list[dict[str, Any]]) -> None:
    assert_answered(server.client.post(COLUMNS, content=dumped({"inputs": [tensor(shape=[1], data=[1.0]), *inputs]})))


@FUZZ
@given(cut=st.integers(0, 200), at=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_damaged_body_gets_an_answer(server: RunningServer, cut: int, at: int, byte: int) -> None:
    body = bytearray(dumped({"instances": [GOOD, GOOD]}))
    body[at % len(body)] = byte
    assert_answered(server.client.post(ROWS, content=bytes(body[: len(body) - cut % 3])))
