"""What `make kind-up` made: all parts ready, reachable from this machine, and left alone when it runs again.

Needs: a cluster of kind-up as the current context; MANIFESTS and IMAGE_REGISTRY as they were when it was made.
"""

import json
import urllib.request
from pathlib import Path

import pytest

from pipelines.kind.node import LABEL, Node
from tests.cluster.kubeflow import pipelines
from tests.cluster.lab import kubectl

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def node() -> Node:
    context = kubectl("config", "current-context").strip()
    labels = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["metadata"]["labels"]
    if labels.get(LABEL) != "kind-up":
        pytest.skip(f"'{context}' was not made by `make kind-up`")
    return Node("kind", context.removeprefix("kind-"), Path())


def generations() -> dict[str, int]:
    """Gives how often each Deployment's wanted state changed."""
    found = json.loads(kubectl("get", "deployments", "-A", "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["metadata"]["generation"] for one in found}


def test_every_part_is_ready(node: Node) -> None:
    ended = pipelines("kind", "status", "--json", "--name", node.name)
    assert ended.code == 0, ended
    parts = {part["name"]: part for part in ended.json}
    assert {"cluster", "KServe", "Kubeflow Pipelines", "store s3://models", "suite"} <= set(parts)
    assert {part["state"] for part in parts.values() if part["required"]} == {"ready"}


@pytest.mark.parametrize(("variable", "path"), [("UI_PORT", "/"), ("API_PORT", "/apis/v2beta1/healthz")])
def test_this_machine_reaches_it(node: Node, variable: str, path: str) -> None:
    with DIRECT.open(f"http://127.0.0.1:{node.ports()[variable]}{path}", timeout=10) as answer:
        assert answer.status == 200


def test_env_leads_to_the_store_and_the_api(node: Node) -> None:
    ended = pipelines("kind", "env", "--name", node.name)
    variables = dict(line.removeprefix("export ").split("=", 1) for line in ended.stdout.splitlines())
    assert variables["AWS_ENDPOINT_URL"].endswith(f":{node.ports()['STORE_PORT']}")
    assert variables["LOCKGATE_KFP_HOST"].endswith(f":{node.ports()['API_PORT']}")
    assert variables["AWS_ACCESS_KEY_ID"]
    assert variables["AWS_SECRET_ACCESS_KEY"]


def test_up_again_changes_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = generations()
    ports = node.ports()
    for variable, port in ports.items():
        monkeypatch.setenv(variable, str(port))
    monkeypatch.setenv("NODE_IMAGE", node.image())
    monkeypatch.setenv("GATEWAY", "yes" if "GATEWAY_PORT" in ports else "no")
    ended = pipelines("kind", "up", "--name", node.name)
    assert ended.code == 0, ended
    assert generations() == before


def test_up_with_another_port_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, port in node.ports().items():
        monkeypatch.setenv(variable, str(port))
    monkeypatch.setenv("UI_PORT", "1")
    ended = pipelines("kind", "up", "--name", node.name)
    assert ended.code == 2
    assert f"the cluster has UI_PORT={node.ports()['UI_PORT']}, not 1" in ended.stderr
