"""The suite's optional components, rendered as an overlay takes them. Needs: the authoring environment, kubectl."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import streaming
from pipelines.environments import ROOT
from pipelines.kind import manifests
from pipelines.project import load_project

COMPONENTS = ROOT / "manifests" / "suite" / "components"
KIND = ROOT / "manifests" / "kind"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The stream, its scaling and its monitoring, in an overlay with a job."""
    if not shutil.which("kubectl"):
        pytest.skip("there is no `kubectl` on PATH")
    folder = tmp_path_factory.mktemp("overlay")
    parts = ("", "scaling", "monitoring", "windows")
    components = [COMPONENTS / "stream" / part for part in parts]
    manifests.kustomization(folder, [], components)
    content = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (folder / "job.json").write_text(json.dumps(streaming.job(load_project(ROOT / "examples" / "flights"))))
    content["configMapGenerator"] = [{"name": "lockgate-stream", "namespace": "lockgate", "files": ["job.json"]}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return _render(folder)


def _render(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def test_the_stream_is_what_its_component_says(rendered: list[dict[str, Any]]) -> None:
    assert sorted(one["kind"] for one in rendered) == [
        *("ConfigMap", "Deployment", "NetworkPolicy", "PodMonitor", "PrometheusRule", "ScaledObject"),
        *("Service", "ServiceAccount", "StatefulSet"),
    ]
    assert {one["metadata"]["namespace"] for one in rendered} == {"lockgate"}
    deployment = _one(rendered, "Deployment")
    pod = deployment["spec"]["template"]
    job = _one(rendered, "ConfigMap")
    assert {"name": "job", "configMap": {"name": job["metadata"]["name"]}} in pod["spec"]["volumes"]
    assert json.loads(job["data"]["job.json"])["stream"]["input_topic"] == "flights.events"
    labels = pod["metadata"]["labels"].items()
    for selector in (
        deployment["spec"]["selector"],
        _one(rendered, "NetworkPolicy")["spec"]["podSelector"],
        _one(rendered, "PodMonitor")["spec"]["selector"],
    ):
        assert selector["matchLabels"].items() <= labels
    assert _one(rendered, "ScaledObject")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_what_gives_window_features_shares_job_policy_and_monitor_but_no_selector(
    rendered: list[dict[str, Any]],
) -> None:
    windows, deployment = _one(rendered, "StatefulSet"), _one(rendered, "Deployment")
    pod = windows["spec"]["template"]
    (job,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "job"]
    assert job["configMap"]["name"] == _one(rendered, "ConfigMap")["metadata"]["name"]
    labels = pod["metadata"]["labels"].items()
    for selector in (
        windows["spec"]["selector"],
        _one(rendered, "NetworkPolicy")["spec"]["podSelector"],
        _one(rendered, "PodMonitor")["spec"]["selector"],
    ):
        assert selector["matchLabels"].items() <= labels
    assert not deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert windows["spec"]["serviceName"] == _one(rendered, "Service")["metadata"]["name"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_its_pods_are_restricted_and_hold_no_secret(rendered: list[dict[str, Any]], kind: str) -> None:
    pod = _one(rendered, kind)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"].keys() == {"memory"}
    assert all(source["secretRef"]["optional"] for source in container["envFrom"])
    assert [entry["name"] for entry in container["env"]] == ["LOCKGATE_INSTANCE"]


def test_the_stream_reaches_a_store_in_the_cluster_where_an_overlay_says_so(tmp_path: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("there is no `kubectl` on PATH")
    manifests.kustomization(tmp_path, [], [COMPONENTS / "stream", COMPONENTS / "stream" / "store"])
    objects = _render(tmp_path)
    plain, store = sorted(
        (one for one in objects if one["kind"] == "NetworkPolicy"), key=lambda one: str(one["metadata"]["name"])
    )
    assert store["metadata"]["namespace"] == plain["metadata"]["namespace"]
    assert store["spec"]["podSelector"] == plain["spec"]["podSelector"]
    assert store["spec"]["policyTypes"] == ["Egress"]
    # The store of kind is reached as the predictors reach it.
    fetch = yaml.safe_load((ROOT / "manifests" / "suite" / "overlays" / "kind" / "fetch-models.yaml").read_text())
    assert store["spec"]["egress"] == fetch["spec"]["egress"]


def test_every_alert_has_its_paragraph(rendered: list[dict[str, Any]]) -> None:
    (group,) = _one(rendered, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        page = "window-features" if rule["alert"].startswith("LockgateWindows") else "streaming"
        assert f"\n### {rule['alert']}\n" in (ROOT / "docs" / f"{page}.md").read_text()
        assert rule["annotations"]["runbook"] == f"docs/{page}.md#{rule['alert'].lower()}"


def test_the_pushgateway_is_restricted_and_reached_by_who_needs_it(tmp_path: Path) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("there is no `kubectl` on PATH")
    component = COMPONENTS / "pushgateway"
    manifests.kustomization(tmp_path, [], [component, component / "monitoring"])
    objects = _render(tmp_path)
    assert sorted(one["kind"] for one in objects) == [
        *("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PrometheusRule", "Service"),
        "ServiceMonitor",
    ]
    assert {one["metadata"]["namespace"] for one in objects} == {"lockgate"}
    assert {one["metadata"]["labels"]["app.kubernetes.io/part-of"] for one in objects} == {"lockgate"}
    deployment, service = _one(objects, "Deployment"), _one(objects, "Service")
    template = deployment["spec"]["template"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        _one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= template["metadata"]["labels"].items()
    monitored = _one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= service["metadata"]["labels"].items()
    pod = template["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == _one(objects, "PersistentVolumeClaim")["metadata"]["name"]
    # The stage's pods have the labels that the policy lets in.
    compiled = (ROOT / "pipelines" / "compiled" / "monitoring.yaml").read_text()
    assert "app.kubernetes.io/component: monitor_model" in compiled


def test_the_broker_for_kind_renders() -> None:
    if not shutil.which("kubectl"):
        pytest.skip("there is no `kubectl` on PATH")
    objects = _render(KIND / "kafka")
    assert sorted(one["kind"] for one in objects) == ["Namespace", "Service", "StatefulSet"]
    pod = _one(objects, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["image"].rpartition(":")[2] in (ROOT / "tools" / "kafka" / "pom.xml").read_text()
