"""Every protocol gives what ServingModel gives."""

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tensorflow.core.example import example_pb2

from components.rows import MISSING_INTEGER
from tests.predictor import running
from tests.predictor.conftest import expected, instances
from tests.predictor.running import RunningServer

DATATYPES = {"amount": "FP32", "trip km": "FP32", "visits": "INT64", "colour": "BYTES"}
NUMPY = {"FP32": "<f4", "INT64": "<i8"}


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in rows]}
        for name, datatype in DATATYPES.items()
    ]


def raw(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [(value or "").encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    missing = float("nan") if datatype == "FP32" else MISSING_INTEGER
    return np.array([missing if value is None else value for value in values], NUMPY[datatype]).tobytes()


def serialized(row: dict[str, Any]) -> bytes:
    example = example_pb2.Example()
    for name, value in row.items():
        if value is None:
            continue
        feature = example.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return example.SerializeToString()


def labels(probabilities: Any) -> list[str]:
    return ["1" if probability >= np.float32(0.4) else "0" for probability in probabilities]


# ----------------------------------------------------------------------------------------------------- REST


def test_v1_gives_objects_with_the_outputs_and_the_label(server: RunningServer, models: Path) -> None:
    answer = server.rows(instances(models, "binary"))
    assert answer.status_code == 200
    predictions = answer.json()["predictions"]
    wanted = expected(models, "binary")["probability"].astype("float32")
    got = np.array([prediction["probability"] for prediction in predictions], "float32")
    np.testing.assert_allclose(got, wanted, rtol=2e-6)
    assert [prediction["label"] for prediction in predictions] == labels(got)
    assert 0 < labels(got).count("1") < len(got)
    assert all(prediction.keys() == {"probability", "label"} for prediction in predictions)


def test_one_row_gives_what_it_gives_among_others(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")[:20]
    together = [p["probability"] for p in server.rows(rows).json()["predictions"]]
    alone = [server.rows([row]).json()["predictions"][0]["probability"] for row in rows]
    np.testing.assert_allclose(alone, together, rtol=2e-6)


def test_a_feature_that_is_left_out_is_missing(server: RunningServer) -> None:
    short = server.rows([{"trip km": 2.5}]).json()
    assert short == server.rows([{"trip km": 2.5, "amount": None, "visits": None, "colour": None}]).json()


def test_the_body_needs_no_content_type(server: RunningServer) -> None:
    body = b'{"instances": [{"trip km": 2.5}], "signature_name": "serving_default"}'
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        headers = {"content-type": kind}
        assert server.client.post("/v1/models/toy:predict", content=body, headers=headers).status_code == 200


def test_whole_numbers_are_integers_and_integers_are_numbers(server: RunningServer) -> None:
    assert server.rows([{"trip km": 2, "visits": 3.0}]).json() == server.rows([{"trip km": 2.0, "visits": 3}]).json()


def test_v1_takes_serialized_examples(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    encoded = [{"b64": base64.b64encode(serialized(row)).decode()} for row in rows]
    assert server.rows(encoded).json() == server.rows(rows).json()


def test_v2_gives_named_tensors(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    answer = server.columns(id="my-request", inputs=tensors(rows)).json()
    assert answer["id"] == "my-request"
    assert answer["model_version"] == "v0001-0123abcd"
    by_row = server.rows(rows).json()["predictions"]
    assert answer["outputs"] == [
        {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [row[name] for row in by_row]}
        for name, datatype in (("probability", "FP32"), ("label", "BYTES"))
    ]


def test_v2_gives_only_the_outputs_that_are_asked_for(server: RunningServer, models: Path) -> None:
    answer = server.columns(inputs=tensors(instances(models, "binary")[:3]), outputs=[{"name": "label"}]).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]


def test_v2_takes_columns_of_one_and_other_number_types(server: RunningServer) -> None:
    trip = {"name": "trip km", "shape": [2, 1], "datatype": "FP64", "data": [[2.5], [3]]}
    visits = {"name": "visits", "shape": [2], "datatype": "INT8", "data": [1, None]}
    answer = server.columns(inputs=[trip, visits])
    assert answer.status_code == 200
    by_row = server.rows([{"trip km": 2.5, "visits": 1}, {"trip km": 3}]).json()["predictions"]
    assert answer.json()["outputs"][0]["data"] == [row["probability"] for row in by_row]


def test_v2_takes_and_gives_binary_tensors(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    parts = {name: raw(datatype, [row[name] for row in rows]) for name, datatype in DATATYPES.items()}
    head = json.dumps(
        {
            "parameters": {"binary_data_output": True, "null_markers": True},
            "inputs": [
                {
                    "name": name,
                    "shape": [len(rows)],
                    "datatype": DATATYPES[name],
                    "parameters": {"binary_data_size": len(part)},
                }
                for name, part in parts.items()
            ],
        }
    ).encode()  # fmt: skip
    answer = server.client.post(
        "/v2/models/toy/infer",
        content=head + b"".join(parts.values()),
        headers={"inference-header-content-length": str(len(head))},
    )
    length = int(answer.headers["inference-header-content-length"])
    described = json.loads(answer.content[:length])["outputs"]
    size = described[0]["parameters"]["binary_data_size"]
    got = np.frombuffer(answer.content[length : length + size], "<f4")
    by_row = server.rows(rows).json()["predictions"]
    np.testing.assert_array_equal(got, np.array([row["probability"] for row in by_row], "float32"))


def test_v2_takes_serialized_examples(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    data = [base64.b64encode(serialized(row)).decode() for row in rows]
    answer = server.columns(inputs=[{"name": "examples", "shape": [len(rows)], "datatype": "BYTES", "data": data}])
    by_row = server.rows(rows).json()["predictions"]
    assert answer.json()["outputs"][0]["data"] == [row["probability"] for row in by_row]


@pytest.mark.parametrize("kind", ["multiclass", "regression", "anomaly_detection", "clustering"])
def test_other_tasks(models: Path, kind: str) -> None:
    with running.serving(models / kind, model_name="") as server:
        assert server.client.get("/v1/models").json() == {"models": [kind]}
        rows = instances(models, kind)
        answer = server.client.post(f"/v1/models/{kind}:predict", json={"instances": rows}).json()["predictions"]
        for name, values in expected(models, kind).items():
            got = np.array([prediction[name] for prediction in answer])
            if name in ("class", "cluster"):
                assert got.tolist() == [value.decode() for value in values.tolist()]
            else:
                np.testing.assert_allclose(got, values, rtol=2e-5, atol=1e-6)
        assert ("label" in answer[0]) == (kind == "anomaly_detection")
        columns = server.client.post(f"/v2/models/{kind}/infer", json={"inputs": tensors(rows)}).json()
        assert columns["outputs"][0]["shape"] == ([200, 3] if kind in ("multiclass", "clustering") else [200])
        counters = ["lockgate_predictions_count"]
        if names := {"multiclass": ("low", "mid", "high"), "clustering": ("0", "1", "2")}.get(kind):
            counters = [f'lockgate_predicted_classes_total{{name="{name}"}}' for name in names]
        running.wait_for(lambda: sum(server.metrics()[counter] for counter in counters) == 400)


# ----------------------------------------------------------------------------------------------------- gRPC


def _set_nan(request: oip.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents[1] = float("nan")


def infer(server: RunningServer, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        return GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)


def test_grpc_gives_the_same_with_markers_for_missing_values(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    assert {DATATYPES[name] for row in rows for name, value in row.items() if value is None} == {
        "FP32",
        "INT64",
        "BYTES",
    }
    request = oip.ModelInferRequest(model_name="toy", id="7")
    request.parameters["null_markers"].bool_param = True
    missing = {"FP32": float("nan"), "INT64": -(2**63), "BYTES": ""}
    for name, datatype in DATATYPES.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        values = [missing[datatype] if row[name] is None else row[name] for row in rows]
        if datatype == "FP32":
            tensor.contents.fp32_contents.extend(values)
        elif datatype == "INT64":
            tensor.contents.int64_contents.extend(values)
        else:
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
    answer = infer(server, request)
    by_row = server.rows(rows).json()["predictions"]
    assert answer.id == "7"
    got = np.array(answer.outputs[0].contents.fp32_contents, "float32")
    np.testing.assert_array_equal(got, np.array([row["probability"] for row in by_row], "float32"))
    assert [value.decode() for value in answer.outputs[1].contents.bytes_contents] == [row["label"] for row in by_row]


def test_grpc_takes_and_gives_raw_contents_with_markers_for_missing_values(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    request = oip.ModelInferRequest(model_name="toy")
    request.parameters["null_markers"].bool_param = True
    for name, datatype in DATATYPES.items():
        request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        request.raw_input_contents.append(raw(datatype, [row[name] for row in rows]))
    got = np.frombuffer(infer(server, request).raw_output_contents[0], "<f4")
    by_row = server.rows(rows).json()["predictions"]
    np.testing.assert_array_equal(got, np.array([row["probability"] for row in by_row], "float32"))


def test_grpc_takes_serialized_examples(server: RunningServer, models: Path) -> None:
    rows = instances(models, "binary")
    request = oip.ModelInferRequest(model_name="toy")
    tensor = request.inputs.add(name="examples", datatype="BYTES", shape=[len(rows)])
    tensor.contents.bytes_contents.extend(map(serialized, rows))
    by_row = server.rows(rows).json()["predictions"]
    got = np.array(infer(server, request).outputs[0].contents.fp32_contents, "float32")
    np.testing.assert_array_equal(got, np.array([row["probability"] for row in by_row], "float32"))


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda r: setattr(r, "model_name", "other"), "NOT_FOUND", "other"),
        (lambda r: setattr(r.inputs[0], "name", "trip"), "INVALID_ARGUMENT", "did you mean 'trip km'?"),
        (lambda r: setattr(r.inputs[0], "datatype", "BYTES"), "INVALID_ARGUMENT", "trip km"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP23"), "INVALID_ARGUMENT", ""),
        (lambda r: r.inputs[0].contents.fp32_contents.append(1), "INVALID_ARGUMENT", "has 3 values, by its shape 2"),
        (lambda r: _set_nan(r), "INVALID_ARGUMENT", "row 1, feature 'trip km'"),
        (lambda r: r.raw_input_contents.append(b"123"), "INVALID_ARGUMENT", ""),
        (lambda r: r.ClearField("inputs"), "INVALID_ARGUMENT", "no inputs"),
        (lambda r: r.outputs.add(name="lable"), "INVALID_ARGUMENT", "did you mean 'label'?"),
        (lambda r: setattr(r.parameters["null_markers"], "string_param", "yes"), "INVALID_ARGUMENT", "null_markers"),
        (lambda r: r.parameters["null_markers"].SetInParent(), "INVALID_ARGUMENT", "give true or false"),
    ],
)  # fmt: skip
def test_grpc_tells_what_is_wrong(server: RunningServer, change: Any, code: str, says: str) -> None:
    request = oip.ModelInferRequest(model_name="toy")
    tensor = request.inputs.add(name="trip km", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([1.0, 2.0])
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        infer(server, request)
    assert caught.value.code().name == code
    assert says in caught.value.details()


def test_grpc_unloads_nothing(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="toy"))
        assert stub.ModelReady(oip.ModelReadyRequest(name="toy")).ready
        described = stub.ModelMetadata(oip.ModelMetadataRequest(name="toy"))
        assert {tensor.name: tensor.datatype for tensor in described.inputs} == DATATYPES
    assert server.rows([{"trip km": 1}]).status_code == 200


# ------------------------------------------------------------------------------------------------- metadata


def test_metadata_describes_inputs_and_outputs(server: RunningServer) -> None:
    described = server.client.get("/v2/models/toy").json()
    assert described == server.client.get("/v2/models/toy/versions/v0001-0123abcd").json()
    assert {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]} == DATATYPES
    assert [tensor["name"] for tensor in described["outputs"]] == ["probability", "label"]
    assert described["versions"] == ["v0001-0123abcd"]
    assert described["properties"]["required"] == ["trip km"]
    assert described["properties"]["threshold"] == 0.4
    assert described["properties"]["choices"]["colour"] == sorted(["green", "grün", "red"])
    assert server.rows([described["properties"]["example"]]).status_code == 200


def test_the_page_is_for_browsers(server: RunningServer) -> None:
    page = server.client.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert server.client.get("/").json() == {"status": "alive"}
