"""Registries that publish_model tells by itself. Needs: the authoring environment; MLflow, installed into .tools."""

import json
import os
import shlex
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from components.model_store import ModelStore
from components.publish_model.component import publish_model
from components.registries.telling import tell
from components.settings import Publication, Registries
from pipelines.environments import ROOT
from tests.pipelines.test_project import SCHEMA, VALID
from tests.publish_model.blessed import CONFIG, bless
from tests.servers import free_port

LOCAL = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model's name is a test's own, as the server is shared."""
    return f"shop-{abs(hash(request.node.name)) % 10**9}"


def publish(folder: Path, name: str, weights: str, **registries: str) -> tuple[str, str, str]:
    """Does what the stage does: URI, version, and what became of the registries."""
    run = bless(folder / weights, weights)
    section = Publication(store=str(folder / "store"), registries=Registries(**registries))
    artifacts = {"statistics": "statistics", "evaluation_result": "evaluation"}
    return tuple(  # type: ignore[return-value]
        publish_model.python_func(
            **{one: SimpleNamespace(path=str(run / one)) for one in ("model", "examples", "schema")},
            **{one: SimpleNamespace(path=str(run / at)) for one, at in artifacts.items()},
            name=name,
            config=CONFIG,
            publication=section.model_dump(mode="json"),
            run_name="shop-1",
        )
    )


def versions(url: str, name: str) -> dict[str, list[str]]:
    """The store's versions that MLflow has, with their aliases."""
    api = f"{url}/api/2.0/mlflow"
    found = httpx2.get(f"{api}/model-versions/search", params={"filter": f"name = '{name}'"}).json()["model_versions"]
    model = httpx2.get(f"{api}/registered-models/get", params={"name": name}).json()["registered_model"]
    aliases = {one["version"]: [one["alias"]] for one in model.get("aliases", [])}
    known = {one["version"]: {tag["key"]: tag["value"] for tag in one["tags"]} for one in found}
    return {tags["lockgate.version"]: aliases.get(number, []) for number, tags in known.items()}


def told(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=LOCAL)


def test_what_is_published_is_in_mlflow(tmp_path: Path, name: str, mlflow_url: str) -> None:
    _, first, _ = publish(tmp_path, name, "a", mlflow=mlflow_url)
    uri, second, registries = publish(tmp_path, name, "b", mlflow=mlflow_url)
    assert Path(uri).is_dir()
    assert registries.startswith(f"mlflow was told: {mlflow_url}/#/models/{name}/versions/")
    assert versions(mlflow_url, name) == {first: [], second: ["production"]}


def test_a_registry_that_is_away_costs_no_publication_and_is_told_later(
    tmp_path: Path, name: str, mlflow_url: str
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    uri, version, registries = publish(tmp_path, name, "a", kubeflow=away)
    assert (Path(uri) / "card.json").is_file()
    assert f"kubeflow was not told: Kubeflow's Model Registry at '{away}' does not answer" in registries
    store = ModelStore(str(tmp_path / "store"), name)
    assert store.latest() == version
    # The command does what it says, on the registry that is there.
    (line,) = tell(Registries(mlflow=away), store, version)
    command = shlex.split(line.partition("; later: python ")[2].replace(away, mlflow_url))
    ended = told(command)
    assert ended.returncode == 0, ended.stderr
    assert versions(mlflow_url, name) == {version: ["production"]}


@contextmanager
def guarded(url: str, user: str, password: str) -> Iterator[str]:
    """Puts a log-in before a server."""
    expected = "Basic " + b64encode(f"{user}:{password}".encode()).decode()

    class Guard(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != expected:
                self._answer(401, b'{"message": "who are you?"}')
                return
            headers = {"Content-Type": "application/json"}
            answer = httpx2.request(self.command, f"{url}{self.path}", content=content, headers=headers)
            self._answer(answer.status_code, answer.content)

        do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_credentials_come_from_the_environment_and_are_told_to_nobody(
    tmp_path: Path, name: str, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ali")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-sesame")
    with guarded(mlflow_url, "ali", "sesame") as url:
        uri, version, registries = publish(tmp_path, name, "a", mlflow=url)
        assert Path(uri).is_dir()
        assert f"MLflow at '{url}' refuses (401); set MLFLOW_TRACKING_TOKEN" in registries
        assert "sesame" not in registries
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sesame")
        again, _, registries = publish(tmp_path / "again", name, "a", mlflow=url)
        assert Path(again).is_dir()
        assert registries.startswith("mlflow was told: ")
    assert versions(mlflow_url, name) == {version: ["production"]}


def test_a_server_that_is_no_registry_costs_no_publication(tmp_path: Path, name: str) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"registered_model": []}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        uri, _, registries = publish(tmp_path, name, "a", mlflow=url)
    finally:
        server.shutdown()
        server.server_close()
    assert Path(uri).is_dir()
    assert f"MLflow at '{url}' answers otherwise than its interface says" in registries


def test_what_is_put_into_production_by_hand_is_told_to_the_projects_registries(
    tmp_path: Path, name: str, mlflow_url: str
) -> None:
    _, first, _ = publish(tmp_path, name, "a", mlflow=mlflow_url)
    _, second, _ = publish(tmp_path, name, "b", mlflow=mlflow_url)
    (tmp_path / "pipeline.yaml").write_text(
        f"{VALID}publication: {{store: store, registries: {{mlflow: '{mlflow_url}'}}}}\n"
    )
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    project = ["--project", str(tmp_path), "--name", name]
    ended = told(["-m", "pipelines", "models", "rollback", *project])
    assert ended.returncode == 0, ended.stderr
    assert "mlflow was told: " in ended.stdout
    assert versions(mlflow_url, name) == {first: ["production"], second: []}
    ended = told(["-m", "pipelines", "models", "promote", second, "--json", *project])
    assert json.loads(ended.stdout)["registries"][0].startswith("mlflow was told: ")
    assert versions(mlflow_url, name) == {first: [], second: ["production"]}
