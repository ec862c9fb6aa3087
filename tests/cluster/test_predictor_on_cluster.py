"""Our own model server, deployed from an S3 store into a namespace that enforces `restricted` pod security.

Needs: what test_deploy_on_cluster.py needs; LOCKGATE_TEST_PREDICTOR_IMAGE, a predictor image of this code on the
nodes; the tensorflow environment, which exports the models; the dev environment, for the S3 server; and a
ClusterStorageContainer that keeps to `restricted` (docs/deploying.md). The S3 server runs on this machine; pods reach
it at LOCKGATE_TEST_STORE_HOST, by default the address of the docker network `kind`.
"""

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components import storage
from tests import servers
from tests.cluster.lab import SUITE, Lab, kubectl
from tests.cluster.test_deployments_command import deployments
from tests.models import export

IMAGE = os.environ.get("LOCKGATE_TEST_PREDICTOR_IMAGE", "")
STORED_AS = {"v0001": "binary", "v0002": "binary", "v0003": "binary", "v0004": "regression"}
CORRUPT = "v0003"

pytestmark = pytest.mark.skipif(not IMAGE, reason="LOCKGATE_TEST_PREDICTOR_IMAGE is not set")


class PredictorLab(Lab):
    """A namespace with the suite as it is, but for the image of the model server."""

    def __init__(self, folder: Path, models: Path, store: str) -> None:
        super().__init__(f"lockgate-test-{uuid.uuid4().hex[:6]}", folder)
        self.settings |= {
            "service_account": "lockgate-predictor",
            "storage_secret": "store",
            "resources": {"cpu": "100m", "memory": "512Mi", "memory_limit": "2Gi"},
            "canary": {"steps": [20, 50], "hold_seconds": 15, "min_requests": 10, "latency_slack_ms": 500},
            "rollout_seconds": 240,
            "scheduling_seconds": 60,
            "timeout_seconds": 900,
        }
        self.store = store
        self.predictions = models / "binary" / "predictions"
        self.row = pq.read_table(models / "binary" / "rows.parquet").to_pylist()[0]

    def set_up(self) -> None:
        suite = kubectl("kustomize", str(SUITE / "overlays" / "kind"))
        suite = re.sub("name(space)?: lockgate$", rf"name\1: {self.namespace}", suite, flags=re.MULTILINE)
        kubectl("apply", "-f", "-", given=re.sub(r"ghcr.io/lockgate/predictor:\S+", IMAGE, suite))
        kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        self.apply(*self.access(), *self._objects())
        self.log_in()

    def _objects(self) -> Iterator[dict[str, Any]]:
        host, _, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").partition(":")
        kserve = {"s3-endpoint": f"{host}:{port}", "s3-usehttps": "0", "s3-region": "us-east-1"}
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "store", "annotations": {f"serving.kserve.io/{k}": v for k, v in kserve.items()}},
            "stringData": {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
        }
        to_store = {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(port)}]}
        yield {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "fetch-models-for-tests"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [to_store]},
        }

    def deploy(self, model: str, **changes: Any) -> dict[str, Any]:
        return super().deploy(f"{self.store}/{model}", **changes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models, trained and exported by the stages' code."""
    return export(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def store(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with versions of a model, in a bucket that pods can read."""
    variables = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with servers.s3_server(_store_host()) as url, servers.environment(AWS_ENDPOINT_URL=url, **variables):
        servers.make_s3_bucket(url, "models")
        for version, kind in STORED_AS.items():
            folder = tmp_path_factory.mktemp(version) / version
            shutil.copytree(models / kind, folder)
            if version == CORRUPT:
                graph = folder / "model" / "1" / "saved_model.pb"
                graph.write_bytes(graph.read_bytes()[:1000])
            fs, path = storage.filesystem(f"s3://models/{version}")
            for file in (one for one in folder.rglob("*") if one.is_file()):
                fs.put_file(str(file), f"{path}/{file.relative_to(folder)}")
        yield "s3://models"


@pytest.fixture(scope="module")
def served(models: Path, store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PredictorLab]:
    """The first version is in service."""
    container = json.loads(kubectl("get", "clusterstoragecontainer", "default", "-o", "json"))["spec"]["container"]
    if not container.get("securityContext", {}).get("runAsNonRoot"):
        pytest.skip("KServe's storage-initializer does not keep to `restricted`: patch it as docs/deploying.md says")
    lab = PredictorLab(tmp_path_factory.mktemp("lab"), models, store)
    try:
        lab.set_up()
        decision = lab.deploy("v0001")
        assert (decision["verdict"], decision["action"]) == ("pass", "created"), decision
        yield lab
    finally:
        lab.tear_down()


def test_a_pod_has_no_more_rights_than_it_needs(served: PredictorLab) -> None:
    (pod,) = json.loads(served.kubectl("get", "pods", "-l", "serving.kserve.io/inferenceservice=flights", "-o=json"))[
        "items"
    ]
    assert not [one for one in pod["spec"]["volumes"] if "projected" in one]
    code = (
        "import json, os, pathlib\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "written = []\n"
        "for folder in ('/', '/opt/lockgate', '/mnt/models', '/tmp'):\n"
        "    try: pathlib.Path(folder, 'x').write_text('x'); written.append(folder)\n"
        "    except OSError: pass\n"
        "found = {n: status[n].strip() for n in ('NoNewPrivs', 'Seccomp', 'CapEff', 'CapBnd')}\n"
        "print(json.dumps({**found, 'uid': os.getuid(), 'written': written,\n"
        "                  'token': os.path.exists('/var/run/secrets/kubernetes.io')}))\n"
    )
    name = pod["metadata"]["name"]
    assert json.loads(served.kubectl("exec", name, "-c", "kserve-container", "--", "python3", "-c", code)) == {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
        "uid": 10001,
        "written": ["/tmp"],
        "token": False,
    }


def test_a_version_is_promoted_and_rolled_back_under_traffic(served: PredictorLab) -> None:
    """Rolling back replaces pods that have all the traffic: what they have begun, they end."""
    with served.client():
        decision = served.deploy("v0002")
        assert (decision["verdict"], decision["action"]) == ("pass", "promoted"), decision["reason"]
        assert [step["percent"] for step in decision["steps"]] == [20, 50]
        assert all(step["canary_requests"] > 0 and len(step["checks"]) == 3 for step in decision["steps"])
        ended = deployments(served, "rollback", "flights")
        assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["v0001 is in service"]), ended.stderr


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (CORRUPT, r"container 'kserve-container' .* crashes \(exit code \d.*\): .*saved_model"),
        ("v0004", r"golden test: \d+ of \d+ rows differ from the evaluated predictions"),
    ],
    ids=["corrupt", "another model"],
)
def test_a_version_that_is_no_good_leaves_the_one_before(served: PredictorLab, version: str, cause: str) -> None:
    with served.client():
        decision = served.deploy(version)
    assert (decision["verdict"], decision["action"]) == ("fail", "rolled back")
    assert re.search(cause, decision["reason"]), decision["reason"]


def test_a_version_that_is_not_in_the_store_is_refused_before_anything_is_done(served: PredictorLab) -> None:
    with served.client():
        process = served.start(f"{served.store}/v0009")
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 2, said
    assert "'s3://models/v0009/' has no 1/saved_model.pb" in said.splitlines()[-1]


def _store_host() -> str:
    if host := os.environ.get("LOCKGATE_TEST_STORE_HOST"):
        return host
    asked = ["docker", "network", "inspect", "kind", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}"]
    if shutil.which("docker"):
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if (found := re.search(r"\d+\.\d+\.\d+\.\d+", done.stdout)) is not None:
            return found[0]
    pytest.skip("pods cannot reach this machine: set LOCKGATE_TEST_STORE_HOST")
