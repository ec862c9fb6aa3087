"""One client a protocol: rows in, predictions out, each by name."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import urllib3
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from components.check_serving.server import NAME, AnswerError, Server
from components.model_spec import DATATYPES, ModelInput
from components.rows import marker

Rows = Sequence[Mapping[str, Any]]
Ask = Callable[[Rows], list[dict[str, Any]]]

PREDICT = f"/v1/models/{NAME}:predict"
INFER = f"/v2/models/{NAME}/infer"
SECONDS = 30.0

_CONTENTS = {"string": "bytes_contents", "int64": "int64_contents", "float32": "fp32_contents"}


class Clients:
    """Connections to one server."""

    def __init__(self, server: Server, inputs: Sequence[ModelInput]) -> None:
        """Connects. Args: inputs: that the model takes."""
        self.http = server.connect(SECONDS)
        self._channel = grpc.insecure_channel(server.grpc_address, options=[("grpc.enable_http_proxy", 0)])
        self.stub = GRPCInferenceServiceStub(self._channel)
        self._inputs = inputs

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()
        self._channel.close()

    def protocols(self) -> dict[str, Ask]:
        """All ways to ask, by the name that a reader knows."""
        return {"REST v1": self.ask_v1, "REST v2": self.ask_v2, "gRPC": self.ask_grpc}

    def ask_v1(self, rows: Rows) -> list[dict[str, Any]]:
        """Asks over KServe's protocol v1.

        Raises:
            AnswerError: no predictions.
        """
        answer = self._asked(PREDICT, {"instances": rows})
        predictions: list[dict[str, Any]] = answer["predictions"]
        return predictions

    def ask_v2(self, rows: Rows) -> list[dict[str, Any]]:
        """Asks over the Open Inference Protocol, REST.

        Raises:
            AnswerError: no predictions.
        """
        answer = self._asked(INFER, {"inputs": tensors(rows, self._inputs)})
        columns = {one["name"]: _unflattened(one["data"], one["shape"]) for one in answer["outputs"]}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def ask_grpc(self, rows: Rows) -> list[dict[str, Any]]:
        """Asks over the Open Inference Protocol, gRPC.

        Raises:
            AnswerError: no predictions.
        """
        try:
            answer = self.stub.ModelInfer(grpc_request(rows, self._inputs), timeout=SECONDS)
        except grpc.RpcError as error:
            raise AnswerError(f"{error.code().name}: {error.details()}") from error
        columns = {}
        for one in answer.outputs:
            contents = one.contents
            data = [text.decode() for text in contents.bytes_contents] or list(contents.fp32_contents)
            columns[one.name] = _unflattened(data, list(one.shape))
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def post(self, path: str, body: bytes) -> urllib3.BaseHTTPResponse:
        """Sends a body over REST.

        Raises:
            AnswerError: the connection breaks.
        """
        try:
            return self.http.request("POST", path, body=body)
        except urllib3.exceptions.HTTPError as error:
            raise AnswerError(f"no answer: {error}") from error

    def _asked(self, path: str, body: Any) -> Any:
        answer = self.post(path, json.dumps(body).encode())
        if answer.status != 200:
            raise AnswerError(f"HTTP {answer.status}: {answer.data[:300].decode(errors='replace')}")
        return answer.json()


def tensors(rows: Rows, inputs: Sequence[ModelInput]) -> list[dict[str, Any]]:
    """Spells rows as tensors in JSON; a missing value is null."""
    return [
        {"name": i.name, "shape": [len(rows)], "datatype": DATATYPES[i.dtype], "data": [row[i.name] for row in rows]}
        for i in inputs
    ]


def grpc_request(rows: Rows, inputs: Sequence[ModelInput]) -> Any:
    """Spells rows as a message; a missing value is a marker, which the message says."""
    request = oip.ModelInferRequest(model_name=NAME)
    request.parameters["null_markers"].bool_param = True
    for i in inputs:
        tensor = request.inputs.add(name=i.name, datatype=DATATYPES[i.dtype], shape=[len(rows)])
        values = [marker(i.dtype) if row[i.name] is None else row[i.name] for row in rows]
        if i.dtype == "string":
            values = [value.encode() if isinstance(value, str) else value for value in values]
        getattr(tensor.contents, _CONTENTS[i.dtype]).extend(values)
    return request


def _unflattened(data: list[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return data
    width = shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]
