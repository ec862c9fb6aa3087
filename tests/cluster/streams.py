"""The stream on the cluster: a broker, a pod that talks to it, the suite's components as the documentation has them."""

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components import images
from pipelines.compiled import content_tag
from tests.cluster import kubeflow
from tests.cluster.kubeflow import SERVED, Project
from tests.cluster.lab import ROOT, SUITE, kubectl

BROKER = "kafka.kafka:9092"
PREDICTOR = f"{images.REGISTRY}/predictor:{content_tag()}"
STREAM, WINDOWS = "deployment/lockgate-stream", "statefulset/lockgate-stream-windows"
_PODS = "app.kubernetes.io/component=stream"
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
_ENDS = """
import json, sys
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": "kafka.kafka:9092", "group.id": "ends"})
partitions = consumer.list_topics(sys.argv[1], 30).topics[sys.argv[1]].partitions
ends = {n: consumer.get_watermark_offsets(TopicPartition(sys.argv[1], n), 30)[1] for n in sorted(partitions)}
print(json.dumps(ends))
"""


class Client:
    """A pod that reaches the broker, where this machine may not."""

    def __init__(self) -> None:
        self._pod = f"client-{uuid.uuid4().hex[:6]}"

    def start(self) -> None:
        """Starts the broker, where there is none, and the pod."""
        kubectl("apply", "-k", str(ROOT / "manifests" / "kind" / "kafka"))
        kubectl("-n", "kafka", "rollout", "status", "statefulset/kafka", "--timeout=300s")
        restricted = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container = {"name": "main", "image": PREDICTOR, "command": ["sleep", "3600"], "securityContext": restricted}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self._pod}, "spec": {"containers": [container]}}
        kubectl("-n", "kafka", "apply", "-f", "-", given=json.dumps(pod))
        kubectl("-n", "kafka", "wait", f"pod/{self._pod}", "--for=condition=Ready", "--timeout=120s")

    def stop(self) -> None:
        """Takes the pod away."""
        kubectl("-n", "kafka", "delete", "pod", self._pod, "--wait=false", "--grace-period=0")

    def make(self, topics: Sequence[str]) -> None:
        """Makes topics of four partitions."""
        self._run(_MAKE, *topics)

    def write(self, topic: str, events: Sequence[dict[str, Any]]) -> None:
        """Sends events, by city."""
        self._run(_WRITE, topic, given="\n".join(map(json.dumps, events)))

    def ends(self, topic: str) -> dict[int, int]:
        """Gives the offset of the next message, by partition."""
        return {int(partition): end for partition, end in json.loads(self._run(_ENDS, topic)).items()}

    def read(self, topic: str, count: int, seconds: float = 240) -> list[dict[str, Any]]:
        """Waits for so many messages, and gives all there are some seconds later."""
        return list(json.loads(self._run(_READ, topic, count, seconds)))

    def _run(self, code: str, *arguments: Any, given: str = "") -> str:
        command = ["kubectl", "-n", "kafka", "exec", "-i", self._pod, "--", "python3", "-c", code]
        done = subprocess.run(
            [*command, *map(str, arguments)], input=given, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def topics(name: str) -> dict[str, str]:
    """Gives the topics of a project, by the setting that names them."""
    return {f"{kind}_topic": f"{name}.{kind}" for kind in ("input", "output", "dead_letter", "features")}


@contextmanager
def trained(folder: Path, source: Path, **stream: Any) -> Iterator[Project]:
    """Makes a project with a model in the cluster's store, trained on this machine.

    Args:
        folder: for it.
        source: a project's pipeline.yaml.
        stream: more of the section.
    """
    name = f"shop-{uuid.uuid4().hex[:6]}"
    changes = {"stream": {"servers": BROKER, "event_id": "visit", **topics(name), **stream}}
    with kubeflow.project(folder / "project", name, source, changes) as made:
        made.put(*sorted((source.parent / "data").iterdir()))
        ended = kubeflow.pipelines("run", made.folder, "--runs", folder / "runs", seconds=900)
        assert ended.code == 0, ended
        yield made


@contextmanager
def deployed(
    project: Project, folder: Path, *components: str, patches: Sequence[dict[str, Any]] = ()
) -> Iterator[None]:
    """Applies the suite's component `stream`, and others of its folder; the pods read models in the cluster's store.

    Args:
        project: whose events are decided.
        folder: for a copy of the suite.
        components: beside the stream itself, e.g. `windows`.
        patches: what the overlay changes in them.
    """
    shutil.copytree(SUITE, folder / "suite")
    overlay = folder / "suite" / "overlays" / "mine"
    overlay.mkdir()
    job = kubeflow.pipelines("stream", project.folder, "--show-job")
    assert job.code == 0, job
    (overlay / "job.json").write_text(job.stdout)
    small = {"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/cpu", "value": "100m"}
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "components": [f"../../components/stream/{name}".rstrip("/") for name in ("", *components)],
                "images": [{"name": f"{images.REGISTRY}/predictor", "newTag": content_tag()}],
                "configMapGenerator": [{"name": "lockgate-stream", "namespace": SERVED, "files": ["job.json"]}],
                # A node may have two cores, and others on it.
                "patches": [
                    {"target": {"kind": "Deployment|StatefulSet"}, "patch": yaml.safe_dump([small])},
                    *patches,
                ],
            }
        )
    )
    kubectl("apply", "-f", "-", given=json.dumps(_credentials()))
    kubectl("apply", "-k", str(overlay))
    try:
        for workload in (STREAM, WINDOWS)[: 1 + ("windows" in components)]:
            kubectl("-n", SERVED, "rollout", "status", workload, "--timeout=300s")
        yield
    finally:
        kubectl("delete", "-k", str(overlay), "--wait=false")
        kubectl("-n", SERVED, "delete", "secret/lockgate-stream-storage")
        kubectl("-n", SERVED, "wait", "pods", f"-l={_PODS}", "--for=delete", "--timeout=120s")
        kubectl("-n", SERVED, "delete", "pvc", f"-l={_PODS}")


def _credentials() -> dict[str, Any]:
    """Makes the Secret by which the stream's pods reach the store that the pods of runs reach."""
    found = {}
    for kind in ("secret", "configmap"):
        found[kind] = json.loads(kubectl("-n", kubeflow.RUNS, "get", kind, "lockgate-storage", "-o=json"))["data"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "lockgate-stream-storage", "namespace": SERVED},
        "data": found["secret"],
        "stringData": found["configmap"],
    }


def kill(workload: str) -> None:
    """Takes the one pod of a workload away, without leave."""
    name = workload.rpartition("/")[2]
    (pod,) = kubectl("-n", SERVED, "get", "pods", f"-l=app.kubernetes.io/name={name}", "-o=name").split()
    kubectl("-n", SERVED, "delete", pod, "--grace-period=0", "--force", "--wait=false")


def lose_disk(workload: str) -> None:
    """Starts the one pod of a StatefulSet again, without what it had on disk."""
    kubectl("-n", SERVED, "scale", workload, "--replicas=0")
    kubectl("-n", SERVED, "delete", "pvc", f"-l={_PODS}")
    kubectl("-n", SERVED, "scale", workload, "--replicas=1")
