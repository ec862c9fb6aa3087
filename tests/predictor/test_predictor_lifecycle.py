"""Starting, overload, and the orderly end."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from components.predictor.settings import Settings
from tests.predictor import running
from tests.predictor.running import RunningServer, wait_for

ROW = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}


def test_it_is_ready_only_when_it_answers_and_no_longer_when_it_stops(models: Path, tmp_path: Path) -> None:
    with running.serving(models / "binary", cwd=tmp_path, drain_seconds=2) as server:
        # serving() polls readiness from the start on: the first yes is followed by an answer.
        first = time.monotonic()
        assert server.rows([ROW]).status_code == 200
        assert time.monotonic() - first < 1
        for path in ("/v2/health/live", "/v2/models/toy/ready", "/v1/models/toy"):
            assert server.client.get(path).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.client.get("/v2/health/ready").status_code == 503)
        assert server.client.get("/v2/models/toy/ready").status_code == 503
        # The cluster still sends, until it has noticed.
        assert server.rows([ROW]).status_code == 200
        assert server.process.wait(timeout=30) == 0
        assert "Traceback" not in server.log()
    assert list(tmp_path.iterdir()) == []  # a read-only folder is enough to run in


def test_what_is_in_flight_at_the_end_is_answered(models: Path) -> None:
    with running.serving(models / "binary", drain_seconds=0.2, max_queue_rows=100_000) as server:
        body = json.dumps({"instances": [ROW]}).encode()
        with socket.create_connection(("127.0.0.1", server.http_port)) as slow, ThreadPoolExecutor(8) as pool:
            head = f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body[:10])
            large = [pool.submit(server.rows, [ROW] * 9000) for _ in range(8)]
            wait_for(lambda: server.metrics()["lockgate_in_flight_requests"] >= 2)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            slow.sendall(body[10:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert [len(answer.result().json()["predictions"]) for answer in large] == [9000] * 8
        assert server.process.wait(timeout=30) == 0


def test_no_request_is_lost_when_clients_follow_readiness(models: Path) -> None:
    with running.serving(models / "binary", drain_seconds=2) as server:
        is_ready = True
        counts = Counter[int]()

        def client() -> None:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as mine:
                while is_ready:
                    counts[mine.post("/v1/models/toy:predict", json={"instances": [ROW]}).status_code] += 1

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client) for _ in range(4)]
            wait_for(lambda: sum(counts.values()) > 50)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.client.get("/v2/health/ready").status_code == 503)
            time.sleep(0.5)  # a cluster takes its time
            is_ready = False
            for ended in clients:
                ended.result()
        assert server.process.wait(timeout=30) == 0
        assert set(counts) == {200}


def test_a_client_that_never_ends_does_not_hold_up_the_end(models: Path) -> None:
    with (
        running.serving(models / "binary", grace_seconds=1) as server,
        socket.create_connection(("127.0.0.1", server.http_port)) as slow,
    ):
        slow.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        wait_for(lambda: server.metrics()["lockgate_in_flight_requests"] == 1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("limit", [{"max_in_flight": 2}, {"max_queue_rows": 1000}])
def test_overload_is_answered_at_once_and_passes(models: Path, limit: dict[str, int]) -> None:
    with running.serving(models / "binary", max_batch_rows=1000, **limit) as server:
        answers = at_once(server, [[ROW] * 2000] * 24)
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 503}, codes
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"].startswith("overloaded: ")
        assert server.rows([ROW]).status_code == 200
        samples = server.metrics()
        assert samples['lockgate_requests_total{code="503",protocol="v1"}'] == codes.count(503)
        assert samples["lockgate_queue_requests"] == 0
        assert samples["lockgate_in_flight_requests"] == 0


def test_requests_that_wait_are_predicted_together(models: Path) -> None:
    with running.serving(models / "binary") as server:
        alone = server.rows([ROW]).json()["predictions"][0]
        answers = at_once(server, [[ROW]] * 200)
        assert all(answer.json()["predictions"][0]["label"] == alone["label"] for answer in answers)
        wait_for(lambda: server.metrics()["lockgate_batch_rows_sum"] == 201)
        assert server.metrics()["lockgate_batch_rows_count"] < 201


def test_a_client_that_goes_away_leaves_nothing_behind(server: RunningServer) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.http_port)) as gone:
            gone.sendall(b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    wait_for(lambda: server.metrics()["lockgate_in_flight_requests"] == 0)
    assert server.rows([ROW]).status_code == 200


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model_dir": "/nowhere"}, "'/nowhere' is no directory"),
        ({"model_dir": "/etc"}, "has no spec.json"),
        ({"http_port": "eighty"}, "http_port"),
        ({"max_rows": 0}, "max_rows"),
        ({"log_sample": 2}, "log_sample"),
        ({"log_uri": "ftp://x/y"}, "unknown scheme 'ftp'"),
        ({"log_uri": "/tmp/lockgate-unused", "redact": "colours"}, "did you mean 'colour'?"),
    ],
)
def test_wrong_settings_end_the_start_with_one_line(models: Path, settings: dict[str, object], says: str) -> None:
    given = {"model_dir": models / "binary", "http_port": running.free_port(), "grpc_port": 0, **settings}
    command = running.command(given.pop("model_dir"), **given)  # type: ignore[arg-type]
    done = subprocess.run(command, env=running.environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("predictor: fix your input: ")
    assert says in line


def test_a_port_that_is_taken_ends_the_start(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("http_port", "grpc_port"):
            command = running.command(models / "binary", **{"http_port": 0, "grpc_port": 0, name: port})
            done = subprocess.run(command, env=running.environment(), capture_output=True, text=True, timeout=120)
            assert done.returncode == 2
            assert f"port {port} cannot be had: Address already in use; set {name} to another" in done.stderr


def test_a_damaged_model_ends_the_start(models: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "spec.json").write_bytes((models / "binary" / "model" / "spec.json").read_bytes())
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no model")
    command = running.command(tmp_path, http_port=running.free_port(), grpc_port=0)
    done = subprocess.run(command, env=running.environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "cannot be loaded" in done.stderr


def test_settings_come_from_the_environment_and_are_documented(models: Path) -> None:
    environment = {**running.environment(), "LOCKGATE_MODEL_DIR": "/from/the/environment"}
    done = subprocess.run(running.command(models)[:3], env=environment, capture_output=True, text=True)
    assert "'/from/the/environment' is no directory" in done.stderr
    readme = (running.ROOT / "components" / "predictor" / "README.md").read_text()
    for name, setting in Settings.model_fields.items():
        assert f"| `{name}` | " in readme
        default = "none" if setting.default in ("", []) else str(setting.default)
        assert f"| `{name}` | {default} | {' '.join(str(setting.description).split())} |" in readme


def at_once(server: RunningServer, requests: list[list[dict[str, object]]]) -> list[httpx.Response]:
    barrier = threading.Barrier(len(requests))

    def send(rows: list[dict[str, object]]) -> httpx.Response:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            body = json.dumps({"instances": rows})
            barrier.wait()
            return client.post("/v1/models/toy:predict", content=body)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, requests))
