"""manifests/suite on a real cluster: the API server takes it, and it allows what is needed and nothing else.

Needs: KUBECONFIG, KServe, Gateway API.
"""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.lab import SUITE, kubectl

OPERATED = {
    "podmonitor": "podmonitors.monitoring.coreos.com",
    "prometheusrule": "prometheusrules.monitoring.coreos.com",
}
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
    assert len(_dry_run(SUITE / "overlays" / overlay)) >= 11


@pytest.mark.parametrize(
    ("component", "kind"),
    [("monitoring", "podmonitor"), ("monitoring", "prometheusrule"), ("tensorflow-serving", "servingruntime")],
)
def test_the_api_server_takes_a_component(component: str, kind: str, tmp_path: Path) -> None:
    if component == "monitoring" and "NotFound" in kubectl("get", "crd", OPERATED[kind], check=False):
        pytest.skip(f"the cluster has no {OPERATED[kind]}, which comes with the Prometheus operator")
    shutil.copytree(SUITE, tmp_path / "suite")  # kustomize takes relative paths only
    wanted = {"resources": ["suite/overlays/cluster"], "components": [f"suite/components/{component}"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "lockgate", **wanted}))
    assert any(line.startswith(f"{kind}.") for line in _dry_run(tmp_path))


def _dry_run(folder: Path) -> list[str]:
    """Lets the API server judge what a folder makes, and gives its word on each object."""
    kubectl("create", "namespace", "lockgate", check=False)
    said = kubectl("apply", "--dry-run=server", "--validate=strict", "-k", str(folder), check=False)
    # About the namespace made above.
    lines = [line for line in said.strip().splitlines() if not line.startswith("Warning: resource namespaces/lockgate")]
    assert all(line.endswith("(server dry run)") for line in lines), said
    return lines


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
