"""Images in rendered objects, the webhook's certificate, and what the manifests ask for."""

import base64
import copy
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pipelines.environments import ROOT
from pipelines.kind import manifests, node, sources, webhook

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTAINER = {"name": "main", "image": "ghcr.io/team/server:1.2", "imagePullPolicy": "Always"}
OBJECTS: list[dict[str, Any]] = [
    {
        "kind": "Deployment",
        "spec": {
            "template": {
                "spec": {
                    "initContainers": [{"name": "wait", "image": "docker.io/alpine:3.23"}],
                    "containers": [
                        {
                            **CONTAINER,
                            "args": ["--executor-image", "quay.io/argoproj/argoexec:v4", "--other", "x:y"],
                            "env": [
                                {"name": "V2_DRIVER_IMAGE", "value": "ghcr.io/team/driver:2"},
                                {"name": "IMAGE_POLICY", "value": "not:one"},
                                {"name": "SECRET_IMAGE", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
                            ],
                        }
                    ],
                }
            }
        },
    },
    {
        "kind": "ConfigMap",
        "data": {
            "agent": '{"image" : "kserve/agent:latest", "cpuLimit": "1"}',
            "script": "{ not json, image }",
            "explainers": '{"art": {"image": "kserve/art-explainer", "defaultImageVersion": "latest"}}',
            "cacheImage": "",
        },
    },
    {"kind": "CustomResourceDefinition", "spec": {"image": "no/image:1"}},
]


def test_images_are_found_wherever_a_controller_will_take_them_from() -> None:
    assert manifests.images_of(copy.deepcopy(OBJECTS)) == [
        "docker.io/alpine:3.23",
        "ghcr.io/team/server:1.2",
        "quay.io/argoproj/argoexec:v4",
        "ghcr.io/team/driver:2",
        "kserve/agent:latest",
    ]


def test_finding_images_changes_no_setting() -> None:
    objects = copy.deepcopy(OBJECTS)
    manifests.images_of(objects)
    assert json.loads(objects[1]["data"]["agent"]) == json.loads(OBJECTS[1]["data"]["agent"])
    assert objects[1]["data"]["script"] == OBJECTS[1]["data"]["script"]


def test_a_mirror_takes_the_place_of_every_registry() -> None:
    objects = copy.deepcopy(OBJECTS)
    manifests.change_images(objects, lambda image: manifests.mirrored(image, "mirror.example.com/all"))
    assert manifests.images_of(objects) == [
        "mirror.example.com/all/alpine:3.23",
        "mirror.example.com/all/team/server:1.2",
        "mirror.example.com/all/argoproj/argoexec:v4",
        "mirror.example.com/all/team/driver:2",
        "mirror.example.com/all/kserve/agent:latest",
    ]


@pytest.mark.parametrize(
    ("image", "mirrored", "full"),
    [
        ("mysql:8.4", "m/library/mysql:8.4", "docker.io/library/mysql:8.4"),
        ("kserve/router:v1", "m/kserve/router:v1", "docker.io/kserve/router:v1"),
        ("localhost/a:1", "m/a:1", "localhost/a:1"),
        ("registry:5000/a/b:1", "m/a/b:1", "registry:5000/a/b:1"),
    ],
)
def test_how_an_image_is_spelled(image: str, mirrored: str, full: str) -> None:
    assert manifests.mirrored(image, "m/") == mirrored
    assert node.full_name(image) == full


def test_the_node_keeps_its_copy_of_a_tagged_image() -> None:
    objects = copy.deepcopy(OBJECTS)
    manifests.change_images(objects, lambda image: image)
    assert objects[0]["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_latest_becomes_the_release() -> None:
    assert manifests.pinned("kserve/agent:latest", "kserve/", "v0.20.0") == "kserve/agent:v0.20.0"
    assert manifests.pinned("kserve/agent:v0.19.0", "kserve/", "v0.20.0") == "kserve/agent:v0.19.0"
    assert manifests.pinned("other/agent:latest", "kserve/", "v0.20.0") == "other/agent:latest"


def test_what_others_need_comes_first() -> None:
    first, rest = manifests.split([{"kind": "Deployment"}, {"kind": "Namespace"}, {"kind": "CustomResourceDefinition"}])
    assert [one["kind"] for one in first] == ["Namespace", "CustomResourceDefinition"]
    assert [one["kind"] for one in rest] == ["Deployment"]


def test_the_certificate_is_for_the_webhook_and_trusted_by_it() -> None:
    secret = webhook.secret(None, NOW)
    data = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    certificate = x509.load_pem_x509_certificate(data["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kserve-webhook-server-service.kserve.svc"]
    assert load_pem_private_key(data["tls.key"], None).public_key() == certificate.public_key()
    hooks = [{"kind": "MutatingWebhookConfiguration", "webhooks": [{"clientConfig": {}}]}, {"kind": "Service"}]
    webhook.trust(hooks, secret)
    assert hooks[0]["webhooks"][0]["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]  # type: ignore[index]


@pytest.mark.parametrize(("days", "kept"), [(0, True), (300, True), (310, False), (400, False)])
def test_the_certificate_is_renewed_before_it_ends(days: int, kept: bool) -> None:
    live = webhook.secret(None, NOW)
    assert (webhook.secret(live, NOW + timedelta(days=days))["data"] == live["data"]) is kept


@pytest.mark.parametrize(
    "damage",
    [{"ca.crt": "bm90IG9uZQ=="}, {"ca.crt": "%"}, {"tls.key": ""}, None],
    ids=["text", "base64", "key", "empty"],
)
def test_a_secret_without_a_certificate_of_ours_gets_one(damage: dict[str, str] | None) -> None:
    live = webhook.secret(None, NOW)
    live["data"] = {**live["data"], **damage} if damage else None
    assert x509.load_pem_x509_certificate(base64.b64decode(webhook.secret(live, NOW)["data"]["ca.crt"]))


def test_every_port_is_this_machines_alone() -> None:
    wanted = {"GATEWAY_PORT": 1, "UI_PORT": 2, "API_PORT": 3, "STORE_PORT": 4}
    (only,) = node.configuration("name", "image@sha256:0", wanted)["nodes"]
    assert only["image"] == "image@sha256:0"
    assert {mapping["listenAddress"] for mapping in only["extraPortMappings"]} == {"127.0.0.1"}
    assert [mapping["hostPort"] for mapping in only["extraPortMappings"]] == [1, 2, 3, 4]
    services = [
        port["nodePort"]
        for path in (ROOT / "manifests" / "kind").rglob("*.yaml")
        for one in yaml.safe_load_all(path.read_text())
        if isinstance(one, dict) and one.get("kind") == "Service"
        for port in one["spec"]["ports"]
        if "nodePort" in port
    ]
    assert sorted(services) == sorted(mapping["containerPort"] for mapping in only["extraPortMappings"])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The platform as kind-up applies it."""
    if not shutil.which("kubectl"):
        pytest.skip("there is no `kubectl` on PATH")
    platform = sources.load()
    entries = [sources.VENDORED / one.name / entry for one in platform.sources for entry in one.entries]
    if not all(entry.is_dir() for entry in entries):
        pytest.skip("the platform's sources are not here; run `make vendor`")
    kind = ROOT / "manifests" / "kind"
    parts = {"kserve": ([entries[1]], ["kserve"]), "pipelines": (entries[2:], ["pipelines"])}
    made = {}
    for name, (resources, components) in parts.items():
        folder = tmp_path_factory.mktemp("kind") / name
        manifests.kustomization(folder, resources, [kind / component for component in components])
        command = ["kubectl", "kustomize", str(folder)]
        made[name] = manifests.parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return made


def names(objects: list[dict[str, Any]], kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in objects if one["kind"] == kind}


def test_what_only_v1_pipelines_need_is_left_out(rendered: dict[str, list[dict[str, Any]]]) -> None:
    objects = rendered["pipelines"]
    assert names(objects, "Deployment") == {
        *("ml-pipeline", "ml-pipeline-persistenceagent", "ml-pipeline-scheduledworkflow", "ml-pipeline-ui"),
        *("metadata-grpc-deployment", "metadata-envoy-deployment", "mysql", "seaweedfs", "workflow-controller"),
    }
    assert names(objects, "ClusterRole") == set()


def test_no_object_needs_cert_manager_and_no_image_is_latest(rendered: dict[str, list[dict[str, Any]]]) -> None:
    objects = rendered["kserve"]
    assert {one["apiVersion"].partition("/")[0] for one in objects}.isdisjoint({"cert-manager.io"})
    version = sources.load().source("kserve").version
    manifests.change_images(objects, lambda image: manifests.pinned(image, "kserve/", version))
    found = manifests.images_of(objects)
    assert {f"kserve/kserve-controller:{version}", f"kserve/storage-initializer:{version}"} <= set(found)
    assert not [image for image in found if image.endswith(":latest")]


def test_runs_without_a_service_account_get_the_suites(rendered: dict[str, list[dict[str, Any]]]) -> None:
    (server,) = [
        one["spec"]["template"]["spec"]["containers"][0]
        for one in rendered["pipelines"]
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "ml-pipeline"
    ]
    assert {"name": "DEFAULTPIPELINERUNNERSERVICEACCOUNT", "value": "lockgate-runner"} in server["env"]


def test_a_kustomization_reaches_what_lies_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    written = manifests.kustomization(tmp_path / "a" / "b", [tmp_path / "far"], [])
    content = yaml.safe_load((written / "kustomization.yaml").read_text())
    assert content == {"resources": ["../../far"], "components": []}
