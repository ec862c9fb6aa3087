"""The stream's Deployment on a cluster, with the broker of manifests/kind/kafka: decisions, a lost pod, two members.

Needs: what test_training_on_cluster.py needs, the broker's image on the nodes (`apache/kafka`, or what the manifest is
patched to), and an empty namespace `kafka`, or the broker in it. Takes about 10 minutes on two cores.
"""

import json
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from pipelines.compiled import content_tag
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import SERVED, Project
from tests.cluster.lab import ROOT, SUITE, kubectl
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(_WHY), reason=f"no cluster to test on: {_WHY}"),
]
BROKER = "kafka.kafka:9092"
PREDICTOR = f"{images.REGISTRY}/predictor:{content_tag()}"
STREAM = "deployment/lockgate-stream"
EVENTS = 3000
_READ = """
import json, sys, time
from confluent_kafka import Consumer
topic, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
consumer = Consumer({"bootstrap.servers": "kafka.kafka:9092", "group.id": topic + "-reader-" + str(time.time()),
                     "auto.offset.reset": "earliest", "isolation.level": "read_committed", "enable.auto.commit": False})
consumer.subscribe([topic])
end, quiet = time.monotonic() + seconds, 0
found = []
while time.monotonic() < end and (len(found) < count or quiet < 3):
    message = consumer.poll(1)
    quiet = 0 if message else quiet + 1
    if message and not message.error():
        found.append(json.loads(message.value()))
print(json.dumps(found))
"""
_WRITE = """
import json, sys
from confluent_kafka import Producer
topic = sys.argv[1]
producer = Producer({"bootstrap.servers": "kafka.kafka:9092", "enable.idempotence": True})
for line in sys.stdin:
    event = json.loads(line)
    producer.produce(topic, line.encode(), key=event["city"])
    producer.poll(0)
assert producer.flush(60) == 0
"""
_MAKE = """
import sys
from confluent_kafka.admin import AdminClient, NewTopic
admin = AdminClient({"bootstrap.servers": "kafka.kafka:9092"})
for made in admin.create_topics([NewTopic(name, 4, 1) for name in sys.argv[1:]]).values():
    made.result(60)
"""


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a model in the cluster's store, trained on this machine."""
    folder, name = tmp_path_factory.mktemp("shop"), f"shop-{uuid.uuid4().hex[:6]}"
    source = write_project(folder / "source")
    topics = {f"{kind}_topic": f"{name}.{kind}" for kind in ("input", "output", "dead_letter")}
    changes = {"stream": {"servers": BROKER, "event_id": "visit", **topics}}
    with kubeflow.project(folder / "project", name, source / "pipeline.yaml", changes) as made:
        made.put(*sorted((source / "data").iterdir()))
        trained = kubeflow.pipelines("run", made.folder, "--runs", folder / "runs", seconds=900)
        assert trained.code == 0, trained
        yield made


@pytest.fixture(scope="module")
def client() -> Iterator[str]:
    """A pod that reaches the broker, where this machine may not."""
    kubectl("apply", "-k", str(ROOT / "manifests" / "kind" / "kafka"))
    kubectl("-n", "kafka", "rollout", "status", "statefulset/kafka", "--timeout=300s")
    name = f"client-{uuid.uuid4().hex[:6]}"
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": PREDICTOR, "command": ["sleep", "3600"], "securityContext": restricted}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    kubectl("-n", "kafka", "apply", "-f", "-", given=json.dumps(pod))
    kubectl("-n", "kafka", "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s")
    yield name
    kubectl("-n", "kafka", "delete", "pod", name, "--wait=false", "--grace-period=0")


@pytest.fixture(scope="module")
def stream(shop: Project, client: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The Deployment as the documentation has it; its pods read the models in the cluster's own store."""
    call(client, _MAKE, *topics(shop).values())
    folder = tmp_path_factory.mktemp("suite")
    shutil.copytree(SUITE, folder / "suite")
    overlay = folder / "suite" / "overlays" / "mine"
    overlay.mkdir()
    job = kubeflow.pipelines("stream", shop.folder, "--show-job")
    assert job.code == 0, job
    (overlay / "job.json").write_text(job.stdout)
    secret = json.loads(kubectl("-n", kubeflow.RUNS, "get", "secret", "lockgate-storage", "-o=json"))["data"]
    variables = json.loads(kubectl("-n", kubeflow.RUNS, "get", "configmap", "lockgate-storage", "-o=json"))["data"]
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "lockgate-stream-storage", "namespace": SERVED},
        "data": secret,
        "stringData": variables,
    }
    small = {"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "components": ["../../components/stream", "../../components/stream/store"],
                "images": [{"name": f"{images.REGISTRY}/predictor", "newTag": content_tag()}],
                "configMapGenerator": [{"name": "lockgate-stream", "namespace": SERVED, "files": ["job.json"]}],
                # A node may have two cores, and others on it.
                "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump([small])}],
            }
        )
    )
    kubectl("apply", "-f", "-", given=json.dumps(made))
    kubectl("apply", "-k", str(overlay))
    try:
        kubectl("-n", SERVED, "rollout", "status", STREAM, "--timeout=300s")
        yield shop
    finally:
        kubectl("delete", "-k", str(overlay), "--wait=false")
        kubectl("-n", SERVED, "delete", "secret/lockgate-stream-storage")


def test_each_event_is_decided_once_through_a_lost_pod_and_a_new_member(
    stream: Project, client: str, tmp_path: Path
) -> None:
    names = topics(stream)
    events = [
        {"visit": f"e{n}", "price": float(n % 100), "age": 20 + n % 50, "city": ("Paris", "Rome", "Oslo")[n % 3]}
        for n in range(EVENTS)
    ]
    for number, event in enumerate(events[-30:]):
        event["price"] = "dear" if number % 2 else event["price"]  # type: ignore[assignment]
    lines = [json.dumps(event) for event in events]
    third = EVENTS // 3
    call(client, _WRITE, names["input"], given="\n".join(lines[:third]))
    (pod,) = kubectl("-n", SERVED, "get", "pods", "-l=app.kubernetes.io/component=stream", "-o=name").split()
    kubectl("-n", SERVED, "delete", pod, "--grace-period=0", "--force", "--wait=false")
    call(client, _WRITE, names["input"], given="\n".join(lines[third : 2 * third]))
    kubectl("-n", SERVED, "scale", STREAM, "--replicas=2")
    kubectl("-n", SERVED, "rollout", "status", STREAM, "--timeout=300s")
    call(client, _WRITE, names["input"], given="\n".join(lines[2 * third :]))

    decisions = json.loads(call(client, _READ, names["output"], EVENTS - 15, 240))
    counted = Counter(one["event_id"] for one in decisions)
    assert len(counted) == len(decisions) == EVENTS - 15
    assert {one["version"] for one in decisions} == {stream.store.latest()}
    rejected = json.loads(call(client, _READ, names["dead_letter"], 15, 60))
    assert sorted(one["price"] for one in rejected) == ["dear"] * 15


def topics(project: Project) -> dict[str, str]:
    return {kind: f"{project.name}.{kind}" for kind in ("input", "output", "dead_letter")}


def call(pod: str, code: str, *arguments: Any, given: str = "", seconds: float = 400) -> str:
    """Runs Python in a pod."""
    command = ["kubectl", "-n", "kafka", "exec", "-i", pod, "--", "python3", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
