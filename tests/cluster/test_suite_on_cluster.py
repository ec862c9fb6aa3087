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
# Of the runner, where pipelines run.
RUNNER_ALLOWED = [
    *("create workflowtaskresults.argoproj.io", "patch workflowtaskresults.argoproj.io"),
    *("get configmaps/kfp-launcher", "get secrets/mlpipeline-minio-artifact", "get pods"),
]
RUNNER_REFUSED = [
    *("get secrets", "list secrets", "get secrets/mysql-secret", "get secrets/lockgate-storage", "create secrets"),
    *("get configmaps", "update configmaps/kfp-launcher", "list pods", "create pods", "delete pods"),
    *("get pods/log", "create pods/exec", "create deployments.apps", "create jobs.batch"),
    *("get workflows.argoproj.io", "create workflows.argoproj.io", "delete workflowtaskresults.argoproj.io"),
    *("create persistentvolumeclaims", "create services", "create rolebindings.rbac.authorization.k8s.io"),
    *("create scheduledworkflows.kubeflow.org", "create inferenceservices.serving.kserve.io"),
]
# The profile `restricted`, as the API server would enforce it.
PLAIN = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def applied() -> Iterator[tuple[str, str]]:
    """The kind overlay, in two namespaces of its own: that of the served models, and that of the pipelines."""
    name = f"lockgate-test-{uuid.uuid4().hex[:6]}"
    pipelines = f"{name}-pipelines"
    text = kubectl("kustomize", str(SUITE / "overlays" / "kind"))
    text = text.replace("namespace: lockgate\n", f"namespace: {name}\n").replace("name: lockgate\n", f"name: {name}\n")
    text = text.replace("namespace: kubeflow\n", f"namespace: {pipelines}\n")
    try:
        kubectl("create", "namespace", pipelines)
        kubectl("apply", "-f", "-", given=text)
        yield name, pipelines
    finally:
        kubectl("delete", "namespace", name, pipelines, "--wait=false")


@pytest.fixture(scope="module")
def pipelines(applied: tuple[str, str]) -> str:
    return applied[1]


@pytest.mark.parametrize("overlay", ["kind", "cluster"])
def test_the_api_server_takes_an_overlay(overlay: str) -> None:
    assert len(_dry_run(SUITE / "overlays" / overlay)) >= 14


def test_the_api_server_takes_a_quota_for_pipelines(tmp_path: Path) -> None:
    shutil.copytree(SUITE, tmp_path / "suite")
    overlay = tmp_path / "suite" / "overlays" / "cluster" / "pipelines"
    text = (overlay / "kustomization.yaml").read_text()
    for line in ("components:", "- ../../../components/pipeline-quota"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    (overlay / "kustomization.yaml").write_text(text)
    kinds = {line.split("/")[0] for line in _dry_run(overlay)}
    assert {"resourcequota", "limitrange", "serviceaccount"} <= kinds


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
    for name in ("lockgate", "kubeflow"):
        kubectl("create", "namespace", name, check=False)
    # On the server's side: who applied the objects before, and how, is nothing to warn about.
    options = ("--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict")
    lines = kubectl("apply", *options, "-k", str(folder), check=False).strip().splitlines()
    assert all(line.endswith("(server dry run)") for line in lines), lines
    return lines


@pytest.mark.parametrize("what", ALLOWED)
def test_the_pipeline_may(applied: tuple[str, str], what: str) -> None:
    namespace, pipelines = applied
    assert _can(namespace, what, _runner(pipelines)) == "yes"


@pytest.mark.parametrize("what", REFUSED)
def test_the_pipeline_may_not(applied: tuple[str, str], what: str) -> None:
    namespace, pipelines = applied
    assert _can(namespace, what, _runner(pipelines)) == "no"


@pytest.mark.parametrize(
    "what", ["get inferenceservices.serving.kserve.io", "list pods", "get leases.coordination.k8s.io"]
)
def test_it_ends_at_the_namespace(pipelines: str, what: str) -> None:
    assert _can("default", what, _runner(pipelines)) == "no"


@pytest.mark.parametrize("what", RUNNER_ALLOWED)
def test_a_step_may(pipelines: str, what: str) -> None:
    assert _can(pipelines, what, _runner(pipelines)) == "yes"


@pytest.mark.parametrize("what", RUNNER_REFUSED)
def test_a_step_may_not(pipelines: str, what: str) -> None:
    assert _can(pipelines, what, _runner(pipelines)) == "no"


def test_what_a_step_may_ends_at_the_namespace_of_the_pipelines(pipelines: str) -> None:
    assert _can("default", "get secrets/mlpipeline-minio-artifact", _runner(pipelines)) == "no"


@pytest.mark.parametrize(("root", "taken"), [(False, True), (True, False)])
def test_restricted_takes_a_step_that_may_not_be_root(pipelines: str, root: bool, taken: bool) -> None:
    kubectl("label", "--overwrite", "namespace", pipelines, "pod-security.kubernetes.io/enforce=restricted")
    context = PLAIN if root else {**PLAIN, "runAsNonRoot": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "step", "namespace": pipelines},
        "spec": {"containers": [{"name": "main", "image": "none.invalid/step:1", "securityContext": context}]},
    }
    said = kubectl("create", "--dry-run=server", "-f", "-", given=yaml.safe_dump(pod), check=False)
    assert ("violates PodSecurity" not in said) is taken, said


def _runner(namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:lockgate-runner"


def _can(namespace: str, what: str, who: str) -> str:
    """Asks whether somebody may do something, e.g. `get pods`, `get pods/log` or, of one object, `get secrets/name`."""
    verb, resource = what.split()
    plain, _, part = resource.partition("/")
    options = []
    if part and plain in ("pods", "services", "serviceaccounts"):
        resource, options = plain, [f"--subresource={part}"]
    said = kubectl("auth", "can-i", verb, resource, *options, "-n", namespace, f"--as={who}", check=False)
    return said.splitlines()[-1] if said.startswith("Warning") else said.split()[0]
