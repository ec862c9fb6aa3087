"""How answers of an API server are taken, from a server that gives them. Needs: the venv twin of the base image."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from components.deploy_model.cluster import LEASE, Cluster
from components.errors import InputError

FORBIDDEN = (403, {"kind": "Status", "code": 403, "message": 'User "runner" cannot get resource "leases"'})
AWAY = (503, {"kind": "Status", "code": 503, "message": "apiserver is shutting down"})
FOUND = (200, {"kind": "Lease", "metadata": {"name": "flights-deployment"}})
Answer = tuple[int, dict[str, object]]


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """Gives a cluster whose API server gives these answers, one after the other."""
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    def given(*wanted: Answer) -> Cluster:
        answers.extend(wanted)
        return Cluster("lockgate", 30)

    yield given
    server.shutdown()
    server.server_close()
    assert not answers


def test_a_missing_permission_is_told_at_once(answering: Callable[..., Cluster]) -> None:
    with pytest.raises(InputError, match=r"in namespace 'lockgate': User .* cannot get resource"):
        answering(FORBIDDEN).get(LEASE, "flights-deployment")


def test_an_api_server_that_has_just_started_may_not_know_the_permissions_yet(
    answering: Callable[..., Cluster],
) -> None:
    found = answering(AWAY, FORBIDDEN, FOUND).get(LEASE, "flights-deployment")
    assert found is not None
    assert found["metadata"]["name"] == "flights-deployment"
