"""manifests/suite on a real cluster: the API server takes it, and it allows what is needed and nothing else.

Needs: KUBECONFIG, KServe, Gateway API.
"""

import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.lab import SUITE, kubectl

RUNNER = "system:serviceaccount:kubeflow:pipeline-runner"
ALLOWED = [
    *(f"{verb} inferenceservices.serving.kserve.io" for verb in ("get", "create", "update", "delete")),
    *(f"{verb} httproutes.gateway.networking.k8s.io" for verb in ("get", "create", "update", "delete")),
    *(f"{verb} leases.coordination.k8s.io" for verb in ("get", "create", "update", "delete")),
    *("get servingruntimes.serving.kserve.io", "get deployments.apps", "list replicasets.apps"),
    *("list pods", "list events", "get pods/log", "get services"),
]
REFUSED = [
    *(f"{verb} secrets" for verb in ("get", "list", "create")),
    *(f"{verb} configmaps" for verb in ("get", "list", "create")),
    *("create pods", "create pods/exec", "get pods/proxy", "create services/proxy", "delete pods"),
    *("create deployments.apps", "update deployments.apps", "delete services", "create serviceaccounts/token"),
    *("create rolebindings.rbac.authorization.k8s.io", "impersonate serviceaccounts"),
    *("create servingruntimes.serving.kserve.io", "update servingruntimes.serving.kserve.io"),
    *("list inferenceservices.serving.kserve.io", "update networkpolicies.networking.k8s.io"),
]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """The kind overlay, in a namespace of its own."""
    name = f"lockgate-test-{uuid.uuid4().hex[:6]}"
    text = kubectl("kustomize", str(SUITE / "overlays" / "kind"))
    text = text.replace("namespace: lockgate\n", f"namespace: {name}\n").replace("name: lockgate\n", f"name: {name}\n")
    try:
        kubectl("apply", "-f", "-", given=text)
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("overlay", ["kind", "cluster"])
def test_the_api_server_takes_an_overlay(overlay: str) -> None:
    kubectl("create", "namespace", "lockgate", check=False)
    said = kubectl("apply", "--dry-run=server", "-k", str(SUITE / "overlays" / overlay), check=False)
    lines = said.strip().splitlines()
    assert len(lines) >= 11
    assert all(line.endswith("(server dry run)") for line in lines), said


@pytest.mark.parametrize("what", ALLOWED)
def test_the_pipeline_may(namespace: str, what: str) -> None:
    assert _can(namespace, what) == "yes"


@pytest.mark.parametrize("what", REFUSED)
def test_the_pipeline_may_not(namespace: str, what: str) -> None:
    assert _can(namespace, what) == "no"


@pytest.mark.parametrize(
    "what", ["get inferenceservices.serving.kserve.io", "list pods", "get leases.coordination.k8s.io"]
)
def test_it_ends_at_the_namespace(namespace: str, what: str) -> None:
    assert _can("default", what) == "no"


def _can(namespace: str, what: str) -> str:
    verb, resource = what.split()
    plain, _, part = resource.partition("/")
    options = [f"--subresource={part}"] if part else []
    said = kubectl("auth", "can-i", verb, plain, *options, "-n", namespace, f"--as={RUNNER}", check=False)
    return said.splitlines()[-1] if said.startswith("Warning") else said.split()[0]
