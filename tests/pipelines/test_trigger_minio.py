"""A real MinIO tells `python -m pipelines trigger --serve` of new spans. Needs: the authoring environment, minio."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import httpx2
import pytest

from pipelines.environments import ROOT
from tests import servers
from tests.pipelines.recording_server import Recording, recording_server
from tests.pipelines.test_project import SCHEMA, VALID

SECRET = "correct-horse-battery-staple"
USER, PASSWORD = "lockgate", "lockgate-password"
SECONDS = 60


@contextlib.contextmanager
def running(command: list[object], url: str, log: Path, **variables: str) -> Iterator[None]:
    """Runs a program until the block ends; it answers at the URL when the block begins."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, env={**os.environ, **variables}, stdout=file, stderr=file
        )
    try:
        wait_for(lambda: process.poll() is not None or answers(url))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


class Lab:
    """MinIO, the receiver beside it, and the GitHub that it tells."""

    def __init__(self, client: Any, github: Recording, log: Path) -> None:
        self.client = client
        self.github = github
        self._log = log

    def put(self, key: str, text: str = "customer,price\n1,2.5\n") -> None:
        self.client.put_object(Bucket="data", Key=key, Body=text.encode())

    def log(self) -> list[str]:
        """What the receiver decided."""
        return self._log.read_text().splitlines()[1:]

    def payloads(self) -> list[dict[str, str]]:
        return [json.loads(body)["client_payload"] for _, _, _, body in self.github.requests]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    program = shutil.which("minio", path=f"{servers.GO_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        pytest.skip(f"minio is neither on PATH nor in {servers.GO_TOOLS}")
    store, receiver = (f"http://127.0.0.1:{servers.free_port()}" for _ in range(2))
    project = tmp_path / "shop"
    project.mkdir()
    text = VALID.replace("source: data/", "window: 2025-01..2025-02\n  source: s3://data/new spans/")
    (project / "pipeline.yaml").write_text(text)
    (project / "schema.pbtxt").write_text(SCHEMA)
    notify = {
        "ENABLE": "on",
        "ENDPOINT": f"{receiver}/events",
        "AUTH_TOKEN": SECRET,
    }
    with contextlib.ExitStack() as stack:
        github = stack.enter_context(recording_server())
        access = {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_ENDPOINT_URL": store}
        trigger = [sys.executable, "-W", "ignore", "-m", "pipelines", "trigger", project, "--serve"]
        trigger += [receiver.rpartition(":")[2], "--dispatch", "team/models", "--api-url", github.url]
        secrets = {"LOCKGATE_TRIGGER_SECRET": SECRET, "GITHUB_TOKEN": "ghp_0123456789abcdef"}
        log = tmp_path / "trigger.log"
        stack.enter_context(running(trigger, f"{receiver}/healthz", log, **access, **secrets))
        server = [program, "server", tmp_path / "minio", "--address", store.removeprefix("http://")]
        variables = {f"MINIO_NOTIFY_WEBHOOK_{name}_LOCKGATE": value for name, value in notify.items()}
        variables |= {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD, "MINIO_BROWSER": "off"}
        stack.enter_context(running(server, f"{store}/minio/health/live", tmp_path / "minio.log", **variables))
        client = botocore.session.get_session().create_client(
            "s3",
            "us-east-1",
            endpoint_url=store,
            aws_access_key_id=USER,
            aws_secret_access_key=PASSWORD,
        )
        client.create_bucket(Bucket="data")
        queue = {"QueueArn": "arn:minio:sqs::LOCKGATE:webhook", "Events": ["s3:ObjectCreated:*"]}
        client.put_bucket_notification_configuration(
            Bucket="data", NotificationConfiguration={"QueueConfigurations": [queue]}
        )
        yield Lab(client, github, log)


def test_a_whole_window_in_a_bucket_starts_the_workflow_once(lab: Lab) -> None:
    lab.put("new spans/2025-01.csv")
    wait_for(lambda: len(lab.log()) == 1)
    lab.put("elsewhere/2025-02.csv")
    wait_for(lambda: len(lab.log()) == 2)
    lab.put("new spans/2025-02.csv")
    wait_for(lambda: len(lab.log()) == 3)
    lab.put("new spans/2025-02.csv")  # the same content again
    wait_for(lambda: len(lab.log()) == 4)
    assert [line.partition(":")[0] for line in lab.log()] == ["wait", "ignore", "start", "ignore"]
    (payload,) = lab.payloads()
    assert (payload["window"], Path(payload["project"]).name) == ("2025-01..2025-02", "shop")
    lab.put("new spans/2025-02.csv", "customer,price\n2,2.5\n")
    wait_for(lambda: len(lab.payloads()) == 2)
    assert lab.payloads()[0]["key"] != lab.payloads()[1]["key"]


def test_minio_sends_again_what_github_did_not_take(lab: Lab) -> None:
    lab.put("new spans/2025-01.csv")
    lab.github.status = 502
    lab.put("new spans/2025-02.csv")
    wait_for(lambda: "try again later: " in "\n".join(lab.log()))
    lab.github.status = 204
    wait_for(lambda: any(line.startswith("start: ") for line in lab.log()))
