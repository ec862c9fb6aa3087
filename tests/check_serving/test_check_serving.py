"""The real server, examined. Needs: the venv twins of the predictor and tensorflow images."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.artifacts import split_files
from components.check_serving.checking import check
from components.check_serving.clients import Clients
from components.check_serving.hostile import send_all
from components.check_serving.result import SERVING, ServingResult
from components.check_serving.server import NAME, Server
from components.errors import InputError
from components.golden import read_golden
from components.model_spec import read_spec
from components.settings import Serving
from pipelines.environments import ROOT


def checked(folder: Path, tmp_path: Path, **settings: Any) -> ServingResult:
    return check(
        str(folder / "model"),
        str(folder / "predictions"),
        Serving.model_validate({"requests": 20, **settings}),
        str(tmp_path / "result"),
        str(tmp_path / "report.html"),
    )


def copied(models: Path, kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / kind, tmp_path / kind))


def change_predictions(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    for file in split_files(folder / "predictions", "eval"):
        pq.write_table(change(pq.read_table(file)), file)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "anomaly_detection", "clustering"])
def test_a_sound_model_passes(models: Path, kind: str, tmp_path: Path) -> None:
    result = checked(models / kind, tmp_path)
    assert result.verdict == "pass", result.reason
    assert re.fullmatch(
        r"50 golden rows alike over REST v1, REST v2 and gRPC; \d+ bad requests refused; ready after .* s; p50 .* ms, "
        r"p99 .* ms",
        result.reason,
    )
    assert {one.protocol for one in result.hostile} == {"v1", "v2", "grpc"}
    assert len(result.hostile) > 40
    assert all(one.ok and len(one.answer) > 10 for one in result.hostile)
    assert result.scalars().keys() == {"start_seconds", "p50_ms", "p99_ms", "memory_mib"}
    assert all(value > 0 for value in result.scalars().values())
    assert result.log == []
    assert ServingResult.model_validate_json((tmp_path / "result" / SERVING).read_bytes()) == result
    page = (tmp_path / "report.html").read_text()
    assert result.reason in page
    assert "half a surrogate pair" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result"]


def test_other_predictions_than_evaluated_fail(models: Path, tmp_path: Path) -> None:
    folder = copied(models, "binary", tmp_path)

    def shifted(table: pa.Table) -> pa.Table:
        moved = pc.add(table["probability"], pa.scalar(0.01, table["probability"].type))
        return table.set_column(table.column_names.index("probability"), "probability", moved)

    change_predictions(folder, shifted)
    result = checked(folder, tmp_path)
    assert result.verdict == "fail"
    assert "golden rows over REST v1: 50 of 50 rows differ from the evaluated predictions: row 0: " in result.reason
    assert "tolerance 0.0001" in result.reason
    assert result.log
    assert checked(folder, tmp_path, golden={"tolerance": 0.02}).verdict == "pass"


def test_a_model_that_cannot_be_loaded_fails(models: Path, tmp_path: Path) -> None:
    folder = copied(models, "binary", tmp_path)
    (folder / "model" / "1" / "saved_model.pb").write_bytes(b"no model")
    result = checked(folder, tmp_path)
    assert result.verdict == "fail"
    assert result.reason.startswith("the server: it ended with 2 before it was ready: ")
    assert "cannot be loaded" in result.reason
    assert result.figures is None
    assert result.reason in (tmp_path / "report.html").read_text().replace("&#39;", "'").replace("&#34;", '"')


def test_a_server_that_a_request_kills_fails(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any) -> list[Any]:
        server = next(child for child in psutil.Process().children() if f"--model-name={NAME}" in child.cmdline())
        server.kill()
        server.wait()
        return []

    monkeypatch.setattr("components.check_serving.examination.send_all", kill)
    result = checked(models / "binary", tmp_path)
    assert result.verdict == "fail"
    assert "golden rows over REST v1, again: no answer: " in result.reason
    assert result.checks[-1].name == "the server"
    assert result.checks[-1].detail.startswith("no answer: ")
    assert result.figures is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"start_seconds": 0.01}, r"the server: it is not ready after 0\.01 s \(serving\.start_seconds\)"),
        ({"max_p50_ms": 0.001}, r"latency, median: .* ms \(allowed: 0\.001\)"),
        ({"max_p99_ms": 0.001}, r"latency, 99th percentile: .* ms \(allowed: 0\.001\)"),
        ({"max_memory_mib": 1}, r"memory: .* MiB \(allowed: 1\)"),
    ],
)
def test_a_limit_binds(models: Path, tmp_path: Path, settings: dict[str, float], says: str) -> None:
    result = checked(models / "regression", tmp_path, **settings)
    assert result.verdict == "fail"
    assert re.search(says, result.reason), result.reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop_columns(["colour"]), "lack column 'colour'"),
        (lambda table: table.slice(0, 0), "have no rows for the golden test"),
    ],
)
def test_predictions_that_are_no_golden_rows_are_refused(
    models: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    folder = copied(models, "binary", tmp_path)
    change_predictions(folder, change)
    with pytest.raises(InputError, match=says):
        checked(folder, tmp_path)
    assert not (tmp_path / "result").exists()


def test_predictions_of_another_model_are_refused(models: Path, tmp_path: Path) -> None:
    folder = copied(models, "binary", tmp_path)
    spec = json.loads((folder / "predictions" / "spec.json").read_text())
    (folder / "predictions" / "spec.json").write_text(json.dumps({**spec, "weights_digest": "f" * 64}))
    with pytest.raises(InputError, match=r"the predictions are of model ffffffffffff, .* run predict_batch with this"):
        checked(folder, tmp_path)


@pytest.mark.parametrize("wrong", ["nothing", "a file"])
def test_what_is_no_model_is_refused(models: Path, tmp_path: Path, wrong: str) -> None:
    folder = copied(models, "binary", tmp_path)
    shutil.rmtree(folder / "model")
    if wrong == "a file":
        (folder / "model").write_text("model")
    with pytest.raises(InputError, match=r"has no spec\.json; give a model that train_model exported"):
        checked(folder, tmp_path)


@pytest.mark.parametrize(("status", "body"), [(200, b"{}"), (500, b'{"error": "no"}'), (400, b"no JSON"), (404, b"{}")])
def test_a_server_that_answers_hostile_requests_otherwise_is_caught(models: Path, status: int, body: bytes) -> None:
    class Careless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    rows, spec = read_golden(models / "binary" / "predictions", 1), read_spec(models / "binary" / "model")
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as careless:
        Thread(target=careless.serve_forever, daemon=True).start()
        server = Server(careless.server_port, 1, subprocess.Popen(["true"]), Path(os.devnull))  # nothing at port 1
        clients = Clients(server, spec.inputs)
        found = list(send_all(clients, rows.instances[0], spec.inputs))
        clients.close()
        careless.shutdown()
    assert not any(one.ok for one in found)
    assert all(f"HTTP {status}" in one.answer for one in found if one.protocol != "grpc")
    assert all("UNAVAILABLE" in one.answer for one in found if one.protocol == "grpc")


def test_a_killed_check_leaves_no_server_behind(models: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from components.check_serving.checking import check; from components.settings import Serving\n"
        "check(*sys.argv[1:3], Serving(requests=1_000_000), *sys.argv[3:])"
    )
    folder = models / "binary"
    paths = [folder / "model", folder / "predictions", tmp_path / "result", tmp_path / "report.html"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, paths)], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: bool(psutil.Process(process.pid).children()))
    (server,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    assert not (tmp_path / "result").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
