"""The monitoring pipeline, whole, under kfp.local, on what the real server logged. Needs: the venv twins; a minute."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from components.model_store import ModelStore
from components.monitoring_history import MonitoringHistory
from pipelines.environments import PREDICTOR
from tests.local.project import ROOT, newest_run, run, write_project
from tests.models import environment
from tests.servers import free_port

COLUMNS = ["visit", "price", "age", "city"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a published model, and a log of what the real server was asked."""
    if not PREDICTOR.executable.is_file():
        pytest.skip("no predictor environment to serve in: make setup")
    project = write_project(tmp_path_factory.mktemp("watched"))
    ended = run(project)
    assert ended.code == 0, ended.stderr + ended.stdout
    store = ModelStore(str(project / "models"), "shop")
    rows = pyarrow.csv.read_csv(project / "data" / "visits-2025-02.csv").select(COLUMNS).to_pylist()
    ask(Path(store.uri_of(store.latest() or "")), project / "log", rows)
    return project


def ask(version: Path, log: Path, rows: list[dict[str, Any]]) -> None:
    """Serves a model, asks it all rows, and ends it."""
    port = free_port()
    options = {"model-dir": version, "log-uri": log, "http-port": port, "grpc-port": free_port(), "drain-seconds": 0}
    command = [
        PREDICTOR.executable,
        "-m",
        "components.predictor",
        *(f"--{key}={value}" for key, value in options.items()),
    ]
    with subprocess.Popen(command, cwd=ROOT, env=environment()) as server:
        try:
            deadline = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/v2/health/ready") and time.monotonic() < deadline:
                time.sleep(0.2)
            for start in range(0, len(rows), 100):
                body = json.dumps({"instances": rows[start : start + 100]}).encode()
                assert answers(f"http://127.0.0.1:{port}/v1/models/shop:predict", body)
        finally:
            server.send_signal(signal.SIGTERM)


def answers(url: str, body: bytes | None = None) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body)) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def monitor(project: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pipelines",
        "monitor",
        str(project),
        "--runs",
        str(project / "runs"),
    ]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_a_window_is_judged_by_log_and_labels(watched: Path) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    options = ("--set", "monitoring.log.source=log", "--set", f"monitoring.labels.source={watched}/data/visits-*.csv")
    done = monitor(watched, "--window", today, "--set", "monitoring.rules.silence=ignore", *options)
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = MonitoringHistory(str(watched / "models" / "monitoring"), "shop").records()
    assert record.log.rows == 1500
    assert record.labels is not None
    assert record.labels.rows == 1500
    assert record.verdict in ("healthy", "watch")
    assert {one.kind for one in record.findings} <= {"skew", "slice_quality"}
    assert f"{record.verdict.upper()} shop" in done.stdout
    folder = newest_run(watched)
    assert folder
    assert "monitoring.html" in {path.name for path in (folder / "report").iterdir()}


def test_without_a_log_it_says_what_to_do(watched: Path) -> None:
    done = monitor(watched)
    assert done.returncode == 2
    assert "monitoring.log.source is empty" in done.stderr
    done = monitor(watched, "--set", "monitoring.log.source=nowhere", "--window", "2025-02")
    assert done.returncode == 2
    assert "nowhere' does not exist" in done.stdout
