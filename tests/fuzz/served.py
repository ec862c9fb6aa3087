"""The real server in the predictor's environment, and a record of what it answered."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import requests
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pipelines.environments import PREDICTOR, ROOT
from tests.models import environment
from tests.servers import free_port

NAME = "toy"
ROWS, EXPLANATIONS, COLUMNS = f"/v1/models/{NAME}:predict", f"/v1/models/{NAME}:explain", f"/v2/models/{NAME}/infer"
GOOD_ROW = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}
MAX_BODY_BYTES = 1_000_000
SECONDS_TO_START = 120

REQUESTS = int(os.environ.get("LOCKGATE_FUZZ_REQUESTS", "1500"))
"""How many requests the suite sends, about."""
ANSWERS: Counter[tuple[str, str]] = Counter()
"""Answers of all tests, by protocol and code."""

REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
_SERVICE = "/inference.GRPCInferenceService"


@dataclass
class Server:
    """A server that is up."""

    process: psutil.Popen
    http_port: int
    grpc_port: int
    log_file: Path
    session: requests.Session
    channel: grpc.Channel
    messages: dict[str, Any] = field(default_factory=dict)
    """Classes of the Open Inference Protocol's messages, by name."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> requests.Response:
        """Sends a request, and sees to it that the answer is one."""
        answer = self.session.post(self.url + path, data=body, headers=headers, timeout=60)
        assert_answered(answer, f"{path} {body!r}")
        return answer

    def call(self, method: str, serialized: bytes) -> str:
        """Calls over gRPC, and sees to it that the answer is one; gives its code."""
        try:
            self.channel.unary_unary(f"{_SERVICE}/{method}")(serialized, timeout=60)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details()
            ANSWERS["gRPC", code] += 1
            assert code in REFUSALS, (code, details)
            assert details
            assert "\n" not in details
            return code
        ANSWERS["gRPC", "OK"] += 1
        return "OK"

    def rss_mib(self) -> float:
        return self.process.memory_info().rss / 2**20


def assert_answered(answer: Any, request: str = "") -> None:
    """It is an answer, or says in one line what is wrong with the request."""
    ANSWERS["REST", str(answer.status_code)] += 1
    said = (answer.status_code, answer.text, request)
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, said
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error
        assert len(error.splitlines()) == 1


@contextlib.contextmanager
def serving(model: Path) -> Iterator[Server]:
    """Runs a server on free ports, and ends it."""
    http_port, grpc_port = free_port(), free_port()
    command = [str(PREDICTOR.executable), "-m", "components.predictor", f"--model-dir={model}", f"--model-name={NAME}"]
    command += [f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--max-body-bytes={MAX_BODY_BYTES}"]
    log_file = Path(tempfile.mkstemp(prefix="lockgate-fuzz-", suffix=".log")[1])
    with log_file.open("wb") as log:
        process = psutil.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    session = requests.Session()
    session.trust_env = False  # no proxy: it is a server on this machine
    channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=[("grpc.enable_http_proxy", 0)])
    server = Server(process, http_port, grpc_port, log_file, session, channel, _messages())
    try:
        _wait(server)
        yield server
    finally:
        session.close()
        channel.close()
        process.kill()
        process.wait()
        log_file.unlink()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if server.session.get(f"{server.url}/v2/health/ready", timeout=5).ok:
                return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server is not ready: {server.log_file.read_text()[-2000:]}")
        time.sleep(0.1)


def _messages() -> dict[str, Any]:
    """Takes the protocol's messages from KServe's package, which this environment has not."""
    code = "import sys; from kserve.protocol.grpc.grpc_predict_v2_pb2 import DESCRIPTOR as file; "
    code += "sys.stdout.buffer.write(file.serialized_pb)"
    found = subprocess.run([PREDICTOR.executable, "-c", code], env=environment(), check=True, capture_output=True)
    file = descriptor_pb2.FileDescriptorProto.FromString(found.stdout)
    classes = message_factory.GetMessages([file], pool=descriptor_pool.DescriptorPool())
    return {name.rpartition(".")[2]: found for name, found in classes.items()}
