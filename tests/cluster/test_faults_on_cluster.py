"""Faults around a deployment: of its process, KServe, the API server. Needs: what test_deploy_on_cluster.py needs.

Through all of them a client calls the service, and none of its requests may fail. Models that are unfit, quotas and two
runs at once are in test_deploy_on_cluster.py.
"""

import base64
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client, KubeConfig
from lightkube.types import PatchType

from components.deploy_model.cluster import HTTP_ROUTE, INFERENCE_SERVICE, LEASE
from tests.cluster.lab import IMAGE, Lab, decision_of, killed_at, kubectl, read_until

PHASES = (
    "flights-canary: rolling out",
    "flights-canary: 1 of 1 pods are ready",
    "flights-canary: golden test",
    "route: 20 %",
    "route: 50 %",
    "route: 100 %",
    "flights: rolling out",
    "flights: 1 of 1 pods are ready",
    "flights: golden test",
    "route: all traffic to the stable service",
    "flights-canary: removed",
)
KIND_NODE = os.environ.get("LOCKGATE_TEST_KIND_NODE", "")
KSERVE = os.environ.get("LOCKGATE_TEST_KSERVE_NAMESPACE", "kserve")
CONTROLLER = ("-n", KSERVE, "pod", "-l", "control-plane=kserve-controller-manager")
ROUTES = "httproutes.gateway.networking.k8s.io"


def live_model(lab: Lab) -> str:
    uri: str = lab.get("isvc", "flights")["spec"]["predictor"]["model"]["storageUri"]
    return uri.removeprefix("pvc://models/")


def test_a_run_that_is_killed_in_one_phase_after_the_other_goes_on(served: Lab) -> None:
    with served.client() as client:
        for phase in PHASES:
            killed_at(served.start("pvc://models/two"), phase)
        decision = served.deploy("two")
        assert decision["verdict"] == "pass", decision["reason"]
        assert client.next_models() == {"two"}
    assert live_model(served) == "two"
    assert "canary" not in served.kubectl("get", "isvc,deployments,services,hpa", "-o", "name")
    notes = served.get("lease", "flights-deployment")["metadata"]["annotations"]
    assert [json.loads(notes[f"lockgate.dev/{which}"])["version"] for which in ("live", "previous")] == ["two", "one"]


@pytest.mark.parametrize(
    ("phase", "model", "action", "live"),
    [
        ("route: 100 %", "three", "promoted", "three"),
        ("flights: rolling out", "three", "promoted", "three"),
        ("flights: rolling out", "wrong", "rolled back", "one"),
    ],
)
def test_what_a_killed_run_left_is_cleared_by_a_run_with_another_model(
    served: Lab, phase: str, model: str, action: str, live: str
) -> None:
    with served.client() as client:
        killed_at(served.start("pvc://models/two"), phase)
        decision = served.deploy(model)
        assert client.next_models() == {live}
    assert decision["action"] == action, decision["reason"]
    assert live_model(served) == live
    assert "canary" not in served.kubectl("get", "isvc", "-o", "name")


def test_kserves_controller_may_be_restarted_at_any_time(served: Lab) -> None:
    with served.client():
        process = served.start("pvc://models/two")
        for phase in ("flights-canary: rolling out", "route: 50 %", "flights: rolling out"):
            read_until(process, phase)
            kubectl("delete", *CONTROLLER, "--wait=false")
        decision = decision_of(process)
    assert (decision["verdict"], decision["action"]) == ("pass", "promoted"), decision["reason"]
    assert live_model(served) == "two"


def test_objects_that_others_write_all_the_time_are_written(served: Lab) -> None:
    """Others do not lose anything, and the run does not stop: it reads again, and decides again."""
    # KServe does not hand this annotation on to the pods, which every other would replace.
    note = "kubectl.kubernetes.io/last-applied-configuration"
    before, stopped = _conflicts(), threading.Event()
    counts: Counter[str] = Counter()

    def write(kind: Any, name: str) -> None:
        config = KubeConfig.from_env().get()
        assert config is not None
        client = Client(config=config, namespace=served.namespace)
        while not stopped.is_set():
            counts[name] += 1
            changed = {"metadata": {"annotations": {note: str(counts[name])}}}
            client.patch(kind, name, changed, patch_type=PatchType.MERGE)

    objects = [(INFERENCE_SERVICE, "flights"), (HTTP_ROUTE, "flights"), (LEASE, "flights-deployment")]
    threads = [threading.Thread(target=write, args=one) for one in objects for _ in range(2)]
    with served.client():
        for thread in threads:
            thread.start()
        try:
            decision = served.deploy("two")
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
    assert (decision["verdict"], decision["action"]) == ("pass", "promoted"), decision["reason"]
    assert _conflicts() > before
    assert served.get("httproute", "flights")["metadata"]["annotations"][note].isdigit()


@pytest.mark.parametrize("refused", ["flights-canary", "flights"])
def test_an_admission_webhook_that_refuses_ends_the_run_with_its_words(served: Lab, refused: str) -> None:
    """The canary's InferenceService is refused, or the stable one's when the canary has all traffic already."""
    with served.client() as client:
        with _webhook(served, refused):
            process = served.start("pvc://models/two")
            said, _ = process.communicate(timeout=200)
            assert process.returncode == 2, said
            assert said.splitlines()[-1].endswith(
                f"'{refused}' in namespace '{served.namespace}': models need a ticket"
            )
            assert client.next_models() == {"one"}
            assert "canary" not in served.kubectl("get", "isvc", "-o", "name")
        assert served.deploy("two")["action"] == "promoted"


def test_an_admission_webhook_that_does_not_answer_is_waited_for(served: Lab) -> None:
    with served.client():
        with _webhook(served, "flights-canary", is_there=False):
            process = served.start("pvc://models/two", timeout_seconds=20)
            said, _ = process.communicate(timeout=100)
            assert process.returncode == 4, said
            assert re.search("the API server does not answer .*failed calling webhook", said.splitlines()[-1]), said
            process = served.start("pvc://models/two")
            time.sleep(8)
            assert process.poll() is None
        decision = decision_of(process)
    assert decision["action"] == "promoted", decision["reason"]


@pytest.mark.skipif(
    not KIND_NODE, reason="stops the API server for a while: set LOCKGATE_TEST_KIND_NODE to the node's container"
)
def test_a_run_outlasts_the_api_server(served: Lab) -> None:
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    with served.client():
        process = served.start("pvc://models/two", timeout_seconds=600)
        read_until(process, "route: 20 %")
        try:
            subprocess.run(["docker", "exec", KIND_NODE, "mv", manifest, "/kube-apiserver.yaml"], check=True)
            time.sleep(30)  # longer than a lease is left alone
        finally:
            subprocess.run(["docker", "exec", KIND_NODE, "mv", "/kube-apiserver.yaml", manifest], check=True)
        decision = decision_of(process, 600)
    assert (decision["verdict"], decision["action"]) == ("pass", "promoted"), decision["reason"]


@pytest.mark.skipif(
    os.environ.get("LOCKGATE_TEST_REMOVES_GATEWAY_API") != "1",
    reason="removes Gateway API from the cluster for a while: set LOCKGATE_TEST_REMOVES_GATEWAY_API=1 where it may",
)
def test_without_gateway_api_a_model_is_tested_and_promoted(lab: Lab) -> None:
    definition = json.loads(kubectl("get", "crd", ROUTES, "-o", "json"))
    found = json.loads(kubectl("get", ROUTES, "--all-namespaces", "-o", "json"))["items"]
    # Those of other tests go with their namespaces.
    kept = [one for one in found if not one["metadata"]["namespace"].startswith("lockgate-test-")]
    try:
        kubectl("delete", "crd", ROUTES)
        decisions = [lab.deploy(model) for model in ("one", "two", "wrong")]
    finally:
        definition["metadata"] = {name: definition["metadata"].get(name) for name in ("name", "labels", "annotations")}
        kubectl("create", "-f", "-", given=json.dumps({**definition, "status": {}}))
        kubectl("wait", "crd", ROUTES, "--for=condition=Established", "--timeout=60s")
        for one in kept:
            for name in ("uid", "resourceVersion"):
                one["metadata"].pop(name)
            kubectl("create", "-f", "-", given=json.dumps(one))
    assert [one["action"] for one in decisions] == ["created", "promoted", "rolled back"]
    assert all("no Gateway API" in str(one["happenings"]) for one in decisions)
    assert live_model(lab) == "two"


def _conflicts() -> float:
    """Counts the writes of InferenceServices and HTTPRoutes that the API server refused because of the version."""
    found = re.findall(
        r'^apiserver_request_total\{code="409".*resource="(?:inferenceservices|httproutes)".*subresource="".*'
        r'verb="PUT".*\} (\S+)$',
        kubectl("get", "--raw", "/metrics"),
        re.MULTILINE,
    )
    return sum(map(float, found))


@contextmanager
def _webhook(lab: Lab, refused: str, is_there: bool = True) -> Iterator[None]:
    """Asks a webhook about an InferenceService before the run may write it."""
    folder = lab.folder / f"webhook-{refused}"
    folder.mkdir()
    name = f"webhook.{lab.namespace}.svc"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout tls.key -out tls.crt -subj /CN={name} "
        f"-addext subjectAltName=DNS:{name}",
        shell=True,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    if is_there:
        lab.apply(*_webhook_server(folder))
        lab.kubectl("wait", "pod/webhook", "--for=condition=Ready", "--timeout=60s")
    hook = {
        "name": name,
        "clientConfig": {
            "service": {"name": "webhook", "namespace": lab.namespace},
            "caBundle": base64.b64encode((folder / "tls.crt").read_bytes()).decode(),
        },
        "rules": [
            {
                "apiGroups": ["serving.kserve.io"],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["inferenceservices"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        # KServe writes its finalizer.
        "matchConditions": [
            {"name": "name", "expression": f"request.name == '{refused}'"},
            {"name": "user", "expression": "request.userInfo.username.endsWith(':runner')"},
        ],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    lab.apply({**kind, "metadata": {"name": lab.namespace}, "webhooks": [hook]})
    try:
        time.sleep(2)  # the API server follows
        yield
    finally:
        kubectl("delete", "validatingwebhookconfiguration", lab.namespace)


def _webhook_server(folder: Path) -> Iterator[dict[str, Any]]:
    files = {"server.py": (Path(__file__).parent / "refusing_webhook.py").read_text()}
    files |= {path.name: path.read_text() for path in folder.iterdir()}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "webhook"}, "data": files}
    container = {
        "name": "webhook",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/server/server.py"],
        "readinessProbe": {"tcpSocket": {"port": 8443}},
        "volumeMounts": [{"name": "server", "mountPath": "/server"}],
    }
    yield {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "webhook", "labels": {"app": "webhook"}},
        "spec": {"containers": [container], "volumes": [{"name": "server", "configMap": {"name": "webhook"}}]},
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "webhook"},
        "spec": {"selector": {"app": "webhook"}, "ports": [{"port": 443, "targetPort": 8443}]},
    }
    allowed = {"podSelector": {"matchLabels": {"app": "webhook"}}, "policyTypes": ["Ingress"], "ingress": [{}]}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    yield {**kind, "metadata": {"name": "webhook"}, "spec": allowed}
