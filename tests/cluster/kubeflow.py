"""Kubeflow Pipelines on the cluster, as a user meets it: the command line, the object store, the pods of a run."""

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from components import images, storage
from components.model_store import ModelStore
from pipelines.compiled import content_tag
from pipelines.environments import DEV
from tests.cluster.lab import GATEWAY, GATEWAY_URL, ROOT, kubectl
from tests.cluster.lab import missing as missing_kserve

HOST = os.environ.get("LOCKGATE_KFP_HOST", "http://127.0.0.1:8888")
STORE_URL = os.environ.get("LOCKGATE_TEST_STORE_URL", "http://127.0.0.1:9000")
RUNS, SERVED = "kubeflow", "lockgate"
"""The namespaces of pipelines and of models."""
_STORAGE = "lockgate-storage"
"""Secret and ConfigMap with which stages reach the object store."""
_SECONDS_TO_LIST_IMAGES = 60.0
"""A node's list of its images is older by so much."""
_DUMPS = ROOT / "build" / "cluster"
_RUN_LABEL = "pipeline/runid"


def missing() -> str:
    """Tells what a run on the cluster needs and does not find; empty: nothing."""
    if why := missing_kserve():
        return why
    for url in (f"{HOST}/apis/v2beta1/healthz", STORE_URL):
        if why := _silence(url):
            return f"{url} does not answer ({why}); `make kind-up` makes a cluster with Kubeflow Pipelines"
    if "NotFound" in kubectl("-n", RUNS, "get", f"secret/{_STORAGE}", f"configmap/{_STORAGE}", "-o=name", check=False):
        return f"namespace '{RUNS}' has no Secret and ConfigMap '{_STORAGE}'; `make kind-up` makes them"
    deadline = time.monotonic() + _SECONDS_TO_LIST_IMAGES
    while lacking := _lacking_images():
        if time.monotonic() > deadline:
            return f"no node has image '{lacking[0]}'; `make images kind-load`"
        time.sleep(5)
    return ""


def _lacking_images() -> list[str]:
    nodes = json.loads(kubectl("get", "nodes", "-o=json"))["items"]
    there = {name for node in nodes for image in node["status"]["images"] for name in image.get("names") or []}
    wanted = [f"{images.REGISTRY}/{name}:{content_tag()}" for name in images.NAMES]
    return [image for image in wanted if image not in there]


def _silence(url: str) -> str:
    """Tells why nothing answers; an answer with an error is one."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return str(error)
    return ""


def credentials() -> dict[str, str]:
    """Gives the variables by which this machine reaches the object store that the stages reach."""
    secret = json.loads(kubectl("-n", RUNS, "get", "secret", _STORAGE, "-o=json"))["data"]
    given = {name: base64.b64decode(value).decode() for name, value in secret.items() if name.startswith("AWS_")}
    return {"AWS_DEFAULT_REGION": "us-east-1", **given, "AWS_ENDPOINT_URL": STORE_URL}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What it printed for scripts."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.stdout}\n{self.stderr}"


def pipelines(*arguments: str | Path, seconds: float = 300) -> Ended:
    """Runs `python -m pipelines …` to its end."""
    done = subprocess.run(
        [str(DEV.executable), "-W", "ignore", "-m", "pipelines", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONPATH": "", "LOCKGATE_KFP_HOST": HOST},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Project:
    """A project whose data and models lie in a bucket of its own."""

    folder: Path
    bucket: str

    @property
    def name(self) -> str:
        """Of the project, its model and its service."""
        return self.bucket

    @property
    def store(self) -> ModelStore:
        """Its models."""
        return ModelStore(f"s3://{self.bucket}/models", self.name)

    @property
    def hostname(self) -> str:
        """Under which the gateway has its model."""
        return f"{self.name}.example.com"

    def put(self, *files: Path) -> None:
        """Puts spans into the bucket."""
        fs, path = storage.filesystem(f"s3://{self.bucket}/data")
        for file in files:
            fs.put_file(str(file), f"{path}/{file.name}")

    def drop(self, name: str) -> None:
        """Takes a span out of the bucket."""
        fs, path = storage.filesystem(f"s3://{self.bucket}/data")
        fs.rm_file(f"{path}/{name}")

    def submit(self, *options: str) -> str:
        """Starts a run, and gives its id."""
        ended = pipelines("submit", self.folder, "--json", *options)
        assert ended.code == 0, ended
        return str(ended.json["id"])

    def run(self, *options: str) -> dict[str, Any]:
        """Runs to the end, and gives what the command tells a script."""
        ended = wait(self.submit(*options))
        assert ended.code == ended.json["exit_code"]
        return dict(ended.json)


def wait(run: str, seconds: float = 1800) -> Ended:
    """Follows a run to its end."""
    ended = pipelines("wait", run, "--json", "--timeout", str(seconds), seconds=seconds + 120)
    assert ended.stdout, ended
    return ended


def run_by_schedule(folder: Path, *options: str) -> Ended:
    """Makes a schedule of every minute, and follows its first run to the end, while the schedule is paused."""
    made = pipelines("schedule", "create", folder, "--every", "1m", *options, "--json")
    assert made.code == 0, made
    name = made.json["name"]
    try:
        run = _first_run_of(name)
        assert pipelines("schedule", "pause", name).code == 0
        return wait(run)
    finally:
        assert pipelines("schedule", "delete", name).code == 0


def _first_run_of(schedule: str, seconds: float = 300) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if runs := pipelines("schedule", "show", schedule, "--json").json["runs"]:
            return str(runs[0]["id"])
        time.sleep(3)
    raise AssertionError(f"schedule '{schedule}' started no run within {seconds:g} s")


def states(outcome: dict[str, Any]) -> dict[str, str]:
    """Gives how the stages of a run ended, by their labels."""
    return {stage["label"]: stage["state"] for stage in outcome["stages"]}


def reason(outcome: dict[str, Any], gate: str) -> str:
    """Gives what a gate was told."""
    (found,) = [stage for stage in outcome["stages"] if stage["label"] == gate]
    return str(found["parameters"]["reason"])


@contextmanager
def project(folder: Path, name: str, source: Path, changes: dict[str, Any]) -> Iterator[Project]:
    """Makes a project on the cluster of one on this machine, and takes all of it away at the end.

    Args:
        folder: for its settings.
        name: of its bucket, its model and its service.
        source: its pipeline.yaml here.
        changes: sections, or parts of them, that are different there.
    """
    settings = yaml.safe_load(source.read_text())
    pattern = Path(settings["data"]["source"]).name
    settings |= {"name": name, "publication": {"store": f"s3://{name}/models"}}
    settings["data"]["source"] = f"s3://{name}/data/{pattern}"
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values}
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "schema.pbtxt").write_text((source.parent / "schema.pbtxt").read_text())
    fs, bucket = storage.filesystem(f"s3://{name}")
    fs.mkdir(bucket)
    try:
        yield Project(folder, name)
    finally:
        if "deployment" in changes:
            print(pipelines("deployments", "delete", name, "--namespace", SERVED, "--yes"))
        fs.rm(bucket, recursive=True)


def served(hostname: str) -> dict[str, Any]:
    """Gives the settings under which a model is served, and a canary lasts as long as a test can wait."""
    return {
        "target": "kserve",
        "namespace": SERVED,
        "gateway": GATEWAY,
        "hostname": hostname,
        "resources": {"cpu": "100m", "memory": "512Mi", "memory_limit": "2Gi"},
        "canary": {"steps": [20, 50], "hold_seconds": 15, "min_requests": 10, "latency_slack_ms": 500},
    }


def predict(hostname: str, name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Asks a served model for one prediction, through the gateway."""
    request = urllib.request.Request(
        f"{GATEWAY_URL}/v1/models/{name}:predict",
        json.dumps({"instances": [row]}).encode(),
        {"Host": hostname, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return dict(json.loads(response.read())["predictions"][0])


def pods(run: str) -> list[dict[str, Any]]:
    """Lists the pods of a run."""
    return list(json.loads(kubectl("-n", RUNS, "get", "pods", "-l", f"{_RUN_LABEL}={run}", "-o=json"))["items"])


def log(run: str, task: str) -> str:
    """Gives what the program of a task said, from its pod."""
    (pod,) = [one for one in pods(run) if executes(one) == task]
    return kubectl("-n", RUNS, "logs", pod["metadata"]["name"], "-c", "main")


def running_pod(run: str, task: str, after: dict[str, Any] | None = None, seconds: float = 600) -> dict[str, Any]:
    """Waits until the container of a task runs, and gives its pod.

    Args:
        run: its id.
        task: of the run.
        after: an earlier pod of the task, whose name Argo gives to the next.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for pod in pods(run):
            is_new = after is None or pod["metadata"]["uid"] != after["metadata"]["uid"]
            if executes(pod) == task and is_new and _main(pod).get("running"):
                return pod
        time.sleep(0.5)
    raise AssertionError(f"'{task}' of run {run} did not run within {seconds:g} s")


def lose(pod: dict[str, Any]) -> None:
    """Makes a pod vanish as with its node; Argo's finalizer would keep it until its program ends."""
    name = pod["metadata"]["name"]
    kubectl("-n", RUNS, "patch", "pod", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    kubectl("-n", RUNS, "delete", "pod", name, "--grace-period=0", "--force", "--wait=false")


def where_time_went(run: str) -> str:
    """Writes a table of a run's pods: when each began, how long it was there, and how long its own program ran."""
    found = sorted(pods(run), key=lambda pod: pod["metadata"]["creationTimestamp"])
    first = _moment(found[0]["metadata"]["creationTimestamp"])
    lines = [f"{'pod':<34} {'from':>5} {'for s':>6} {'own s':>6}"]
    for pod in found:
        created = _moment(pod["metadata"]["creationTimestamp"])
        ended = [one["state"].get("terminated") for one in pod["status"].get("containerStatuses", [])]
        last = max((_moment(one["finishedAt"]) for one in ended if one), default=created)
        main = _main(pod).get("terminated")
        own = _moment(main["finishedAt"]) - _moment(main["startedAt"]) if main else 0
        lines.append(f"{executes(pod) or _node(pod)[-1]:<34} {created - first:5.0f} {last - created:6.0f} {own:6.0f}")
    return "\n".join(lines)


def executes(pod: dict[str, Any]) -> str:
    """Gives the task that a pod executes; empty: it is a driver's."""
    *_, task, last = ("", *_node(pod))
    return task if last == "executor" else ""


def main_ran(pod: dict[str, Any]) -> tuple[float, float]:
    """Gives when the program of a pod that is over began and ended."""
    ended = _main(pod)["terminated"]
    return _moment(ended["startedAt"]), _moment(ended["finishedAt"])


def _node(pod: dict[str, Any]) -> list[str]:
    """Gives the path of a pod in its workflow."""
    node = str(pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"])
    return [part.partition("(")[0] for part in node.split(".")]


def _main(pod: dict[str, Any]) -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses", [])
    return next((dict(one["state"]) for one in statuses if one["name"] == "main"), {})


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def dump(test: str) -> Path:
    """Writes down what the cluster knows, after a failure.

    Returns:
        The folder.
    """
    folder = _DUMPS / f"{time.strftime('%Y%m%d-%H%M%S')}-{test}"
    for namespace in (RUNS, SERVED):
        (folder / namespace / "logs").mkdir(parents=True)
        of = ("-n", namespace)
        asked = {
            "pods.txt": ("get", "pods", "-o=wide"),
            "pods.yaml": ("get", "pods", "-o=yaml"),  # `describe` asks for the events of each: minutes for hundreds
            "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
            "workflows.yaml": ("get", "workflows", "-o=yaml"),
            "services.yaml": ("get", "inferenceservices,httproutes", "-o=yaml"),
        }
        for file, arguments in asked.items():
            (folder / namespace / file).write_text(kubectl(*of, *arguments, check=False))
        for name in kubectl(*of, "get", "pods", "-o=name", check=False).split():
            text = kubectl(*of, "logs", name, "--all-containers", "--prefix", "--tail=1000", check=False)
            (folder / namespace / "logs" / f"{name.rpartition('/')[2]}.txt").write_text(text)
    return folder
