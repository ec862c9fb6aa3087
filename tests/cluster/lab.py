"""A namespace on a real cluster in which models are deployed, and a client that calls them all the time."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from components.artifacts import Manifest, write_manifest
from components.features import Label
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "manifests" / "suite"
IMAGE = os.environ.get("LOCKGATE_TEST_IMAGE", "python:3.13-slim-trixie")
"""With a python3; on the nodes already, where no registry can be reached."""
GATEWAY = os.environ.get("LOCKGATE_TEST_GATEWAY", "kserve/kserve-ingress-gateway")
GATEWAY_URL = os.environ.get("LOCKGATE_TEST_GATEWAY_URL", "http://127.0.0.1:8081")
MODELS: dict[str, dict[str, Any]] = {
    "one": {},
    "two": {},
    "three": {},
    "wrong": {"offset": 0.3},
    "slow": {"seconds": 0.2},
    "failing": {"failing": 0.5},
    "shifted": {"shift": 0.3},
    "dying": {"requests": 5},
    "crashing": {"crash": True},
}


def kubectl(*arguments: str, given: str = "", check: bool = True) -> str:
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout + ("" if check else done.stderr)


def missing() -> str:
    """Tells why there is no cluster to test on; empty: there is one."""
    if "KUBECONFIG" not in os.environ:
        return "KUBECONFIG is not set"
    if not shutil.which("kubectl"):
        return "kubectl is not on PATH"
    answer = kubectl(
        "--request-timeout=5s", "get", "crd", "inferenceservices.serving.kserve.io", "-o=name", check=False
    )
    return "" if answer.startswith("customresourcedefinition") else f"no KServe: {answer.strip()[:200]}"


class Lab:
    """A namespace with the suite's runtime, whose image is replaced by a model server that does what it is told."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self.hostname = f"flights.{namespace}.example.com"
        self.settings: dict[str, Any] = {
            "target": "kserve",
            "namespace": namespace,
            "gateway": GATEWAY,
            "hostname": self.hostname,
            "service_account": "",
            "resources": {"cpu": "10m", "memory": "32Mi", "memory_limit": "128Mi"},
            "canary": {"steps": [20, 50], "hold_seconds": 6, "min_requests": 10, "latency_slack_ms": 30},
            "settle_seconds": 3,
            "rollout_seconds": 90,
            "scheduling_seconds": 20,
            "timeout_seconds": 300,
        }
        self.predictions = _predictions(folder / "predictions")
        self.row: dict[str, Any] = {"x": 1.0}
        """What the client sends."""

    def set_up(self) -> None:
        kubectl("create", "namespace", self.namespace)
        self.apply(*self.access(), *self._objects())
        self.log_in()
        self.kubectl("wait", "pod/models", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")

    def tear_down(self) -> None:
        kubectl("delete", "namespace", self.namespace, "--wait=false")

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return kubectl("-n", self.namespace, *arguments, check=check)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        kubectl("-n", self.namespace, "apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def start(self, uri: str, run: str = "run", **changes: Any) -> subprocess.Popen[str]:
        """Starts a deployment in a process of its own."""
        folder = self.folder / f"{run}-{time.monotonic_ns()}"
        folder.mkdir()
        settings = json.dumps({**self.settings, **changes})
        return subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).parent / "deploying.py"),
                settings,
                uri,
                run,
                str(self.predictions),
                folder,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(self.folder / "kubeconfig")},
        )

    def deploy(self, model: str, **changes: Any) -> dict[str, Any]:
        """Deploys one of MODELS, or a URI, and gives the decision."""
        process = self.start(model if "://" in model else f"pvc://models/{model}", **changes)
        return decision_of(process, self.settings["timeout_seconds"])

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """Calls the service all the time; a request that fails fails the test."""
        client = Client(self.hostname, self.row)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            print(f"client: {client.requests} requests, {len(client.failures)} failed, {client.tolerated} tolerated")
        assert not client.failures, (
            f"{len(client.failures)} of {client.requests} requests failed: {client.failures[:3]}"
        )
        assert client.requests > 20

    def log_in(self) -> None:
        """Makes deployments run with no other permissions than the suite's."""
        config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        token = self.kubectl("create", "token", "runner", "--duration=1h").strip()
        config["users"] = [{"name": "runner", "user": {"token": token}}]
        config["contexts"][0]["context"]["user"] = "runner"
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(config))

    def access(self) -> Iterator[dict[str, Any]]:
        """Gives who deploys, and what they may."""
        # `runner` is outside of the cluster and reaches pods through the API server, `pipeline` is a pod.
        for account in ("runner", "pipeline"):
            yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        for name, accounts in {"deployer": ("runner", "pipeline"), "operator": ("runner",)}.items():
            role: dict[str, Any] = yaml.safe_load((SUITE / "base" / f"{name}.yaml").read_text())
            yield role
            yield {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": one, "namespace": self.namespace} for one in accounts],
            }

    def _objects(self) -> Iterator[dict[str, Any]]:
        # The pod that deploys needs the API server, which the suite's policies are not about.
        everywhere = {"podSelector": {"matchLabels": {"app": "deploy"}}, "policyTypes": ["Egress"], "egress": [{}]}
        yield {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "deploy"},
            "spec": everywhere,
        }
        for path in ("base/network-policies.yaml", "overlays/kind/call-predictors.yaml"):
            yield from yaml.safe_load_all((SUITE / path).read_text())
        text = (Path(__file__).parent / "model_server.py").read_text()
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "server"}, "data": {"server.py": text}}
        yield self.runtime("lockgate-predictor", IMAGE)
        yield self.runtime("no-image", "nowhere.invalid/predictor:1")
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claim}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "models"}, "spec": _writer()}

    def runtime(self, name: str, image: str) -> dict[str, Any]:
        """Gives the suite's runtime with another image, and another program in it."""
        runtime: dict[str, Any] = yaml.safe_load((SUITE / "base" / "serving-runtime.yaml").read_text())
        runtime["metadata"]["name"] = name
        (container,) = runtime["spec"]["containers"]
        container |= {"image": image, "command": ["python3", "/server/server.py"]}
        container["resources"] = {"requests": {"cpu": "10m", "memory": "32Mi"}}
        container["volumeMounts"].append({"name": "server", "mountPath": "/server"})
        runtime["spec"]["volumes"].append({"name": "server", "configMap": {"name": "server"}})
        return runtime


class Client:
    """Sends one request after the other through the gateway."""

    def __init__(self, hostname: str, row: dict[str, Any], model: str = "flights") -> None:
        self._request = urllib.request.Request(
            f"{GATEWAY_URL}/v1/models/{model}:predict",
            json.dumps({"instances": [row]}).encode(),
            {"Host": hostname, "Content-Type": "application/json"},
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.requests = 0
        self.failures: list[str] = []
        self.tolerates = ""
        """A text in answers that are no failure: those of a model that fails on purpose."""
        self.tolerated = 0
        self.models: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def next_models(self) -> set[str]:
        """Tells who answers from now on."""
        time.sleep(1)  # what is under way ends
        self.models.clear()
        time.sleep(2)
        return set(self.models)

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            self.requests += 1
            try:
                with urllib.request.urlopen(self._request, timeout=10) as response:
                    self.models[json.loads(response.read()).get("model", "")] += 1
            except urllib.error.HTTPError as error:
                text = error.read().decode(errors="replace")
                if self.tolerates and self.tolerates in text:
                    self.tolerated += 1
                else:
                    self.failures.append(f"{time.strftime('%H:%M:%S')} HTTP {error.code} {text[:60]}")
            except OSError as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error}")


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Waits until a deployment says something."""
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"never said '{text}': {''.join(said)[-3000:]}")


def killed_at(process: subprocess.Popen[str], text: str) -> None:
    """Kills a deployment when it says something; it can do nothing about it."""
    read_until(process, text)
    process.kill()
    process.wait()


def decision_of(process: subprocess.Popen[str], seconds: float = 300) -> dict[str, Any]:
    """Waits for a deployment, and reads its decision."""
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    decision: dict[str, Any] = json.loads(said.splitlines()[-1])
    print(*(f"{one['at'][11:23]} {one['text']}" for one in decision["happenings"]), sep="\n")
    return decision


def _predictions(folder: Path) -> Path:
    (folder / "eval").mkdir(parents=True)
    label = Label(name="y", kind="binary", positive="1", classes=["0", "1"])
    inputs = [ModelInput(name="x", tensor="x", dtype="float32", required=True)]
    spec = ModelSpec(
        inputs=inputs, outputs=outputs_of(label), label=label, weights_digest="0", train_rows=1, libraries={}
    )
    write_spec(folder, spec)
    x = [i / 100 for i in range(100)]
    probability = [value / 2 for value in x]
    table = pa.table({"x": pa.array(x, pa.float32()), "probability": pa.array(probability, pa.float32())})
    pq.write_table(table, folder / "eval" / "part-00000.parquet")
    write_manifest(folder, Manifest(splits={"eval": 100, "rejected": 0}, digest="0"))
    return folder


def _writer() -> dict[str, Any]:
    """Gives a pod that writes the models into the claim."""
    models = {name: {**behaviour, "name": name} for name, behaviour in MODELS.items()}
    code = (
        "import json, os, pathlib\n"
        "for name, behaviour in json.loads(os.environ['MODELS']).items():\n"
        "    folder = pathlib.Path('/models', name); folder.mkdir(parents=True, exist_ok=True)\n"
        "    (folder / 'behaviour.json').write_text(json.dumps(behaviour))\n"
    )
    container = {
        "name": "write",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "env": [{"name": "MODELS", "value": json.dumps(models)}],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        "securityContext": {"runAsUser": 0},
    }
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    return {"restartPolicy": "Never", "containers": [container], "volumes": [claim]}
