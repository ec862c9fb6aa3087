"""The real server, in a process of its own."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.models import environment
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 90


@dataclass
class RunningServer:
    """A server that is up."""

    name: str
    http_port: int
    grpc_port: int
    process: "subprocess.Popen[bytes]"
    log_file: Path
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def rows(self, instances: Any, **keywords: Any) -> httpx.Response:
        """A request of protocol v1."""
        return self.client.post(f"/v1/models/{self.name}:predict", json={"instances": instances}, **keywords)

    def columns(self, **body: Any) -> httpx.Response:
        """A request of the Open Inference Protocol."""
        return self.client.post(f"/v2/models/{self.name}/infer", json=body)

    def metrics(self) -> dict[str, float]:
        """The samples at /metrics, by name and labels as they are written."""
        lines = self.client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Ends it as a cluster does; gives the exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=60)

    def log(self) -> str:
        return self.log_file.read_text()


def command(model: Path, **settings: Any) -> list[str]:
    """The command line that serves a model."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {"model_dir": model, **settings}.items()]
    return [sys.executable, "-m", "components.predictor", *options]


@contextlib.contextmanager
def serving(model: Path, cwd: Path | None = None, **settings: Any) -> Iterator[RunningServer]:
    """Runs a server on free ports, and ends it."""
    ports = {"http_port": free_port(), "grpc_port": free_port(), "drain_seconds": 0}
    given = {**ports, "model_name": "toy", **settings}
    log_file = Path(tempfile.mkstemp(prefix="lockgate-predictor-", suffix=".log")[1])
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command(model, **given), env=environment(), cwd=cwd or ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    # No proxy: it is a server on this machine.
    client = httpx.Client(base_url=f"http://127.0.0.1:{given['http_port']}", trust_env=False, timeout=60)
    server = RunningServer(given["model_name"], given["http_port"], given["grpc_port"], process, log_file, client)
    try:
        wait_until_ready(server)
        yield server
    finally:
        client.close()
        process.kill()
        process.wait()
        log_file.unlink()


def wait_until_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        with contextlib.suppress(httpx.TransportError):
            if server.client.get("/v2/health/ready").status_code == 200:
                return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server is not ready: {server.log()[-2000:]}")
        time.sleep(0.05)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for what comes about soon after an answer: rows are counted when the answer is out."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
