"""The steps of `.github/workflows/retrain.yaml` against Kubeflow Pipelines, in bash, as a runner starts them.

Needs: a cluster such as `make kind-up` makes, with this code's images on its nodes (README.md). Takes 20 minutes.
"""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import storage
from pipelines.environments import DEV
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import SERVED, Project, pipelines
from tests.cluster.lab import ROOT
from tests.local.project import write_project, write_span

WORKFLOW = ROOT / ".github" / "workflows" / "retrain.yaml"

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]


@dataclass
class Job:
    """What a job of the workflow left behind."""

    code: int
    log: str
    summary: str
    outputs: dict[str, str]
    folder: Path

    @property
    def run(self) -> dict[str, Any]:
        """The run, as `submit --json` tells it."""
        return dict(json.loads((self.folder / "outcome" / "run.json").read_text()))


class Runner:
    """Runs the steps that have scripts, as GitHub does."""

    def __init__(self, folder: Path, project: Project) -> None:
        self._folder = folder
        self._project = project
        self._pipeline = folder / "released.yaml"
        folder.mkdir(parents=True)
        compiled = pipelines("compile", "--output", self._pipeline)
        assert compiled.code == 0, compiled

    def __call__(self, job: str, **variables: str) -> Job:
        folder = self._folder / f"{job}-{uuid.uuid4().hex[:6]}"
        folder.mkdir()
        environment = {
            **os.environ,
            "PATH": f"{DEV.executable.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "PYTHONWARNINGS": "ignore",
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_OUTPUT": str(folder / "outputs"),
            "PROJECT": str(self._project.folder),
            "PIPELINE": str(self._pipeline),
            "LOCKGATE_KFP_HOST": kubeflow.HOST,
            "LOCKGATE_KFP_TOKEN": "",  # a secret that nobody made
            **variables,
        }
        code, log = 0, ""
        outputs: dict[str, str] = {}
        for step in yaml.safe_load(WORKFLOW.read_text())["jobs"][job]["steps"]:
            condition = step.get("if", "")
            wanted = "run" in outputs if "steps.submit.outputs.run" in condition else True
            if "run" in step and wanted and (code == 0 or "always()" in condition):
                done = subprocess.run(
                    ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=1800,
                    check=False,
                )
                print(done.stdout)
                code, log = code or done.returncode, log + done.stdout
                outputs = dict(line.partition("=")[::2] for line in (folder / "outputs").read_text().splitlines())
        return Job(code, log, (folder / "summary").read_text(), outputs, folder)


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("shop") / "source")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Project]:
    """A small project with two spans; its section deployment says how it would be served."""
    name = f"shop-{uuid.uuid4().hex[:6]}"
    changes = {
        "deployment": {**kubeflow.served(f"{name}.example.com"), "target": "local"},
        "cluster": {"all_stages": {"cpu": "100m"}},  # a node may have two cores, and others on it
    }
    folder = tmp_path_factory.mktemp("shop") / "project"
    with kubeflow.project(folder, name, source / "pipeline.yaml", changes) as made:
        made.put(*sorted((source / "data").iterdir()))
        yield made


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, shop: Project) -> Runner:
    return Runner(tmp_path_factory.mktemp("runner") / "work", shop)


@pytest.fixture(scope="module")
def trained(runner: Runner) -> Job:
    """What the first job left, started by hand."""
    job = runner("train", CACHE="--cache", ONCE="", WINDOW="2025-01..2025-02")
    assert job.code == 0, job.log
    return job


def runs_of(project: Project) -> set[str]:
    return {run["id"] for run in pipelines("runs", "--tag", f"project={project.name}", "--json").json}


def test_a_run_by_hand_leaves_a_summary_and_reports(shop: Project, trained: Job) -> None:
    assert trained.run["verdict"] == "PASSED"
    assert trained.outputs["window"] == "2025-01..2025-02"
    assert re.fullmatch("[0-9a-f]{12}", trained.outputs["inputs"])
    assert "PASSED" in trained.summary
    assert "::error" not in trained.log
    assert list((trained.folder / "outcome" / "reports").rglob("*.html"))
    assert len(shop.store.cards()) == 1


def test_an_event_for_the_same_data_starts_nothing(shop: Project, runner: Runner, trained: Job) -> None:
    before = runs_of(shop)
    said = pipelines("trigger", shop.folder, "--dry-run", "--json").json
    assert said["action"] == "start"
    job = runner("train", CACHE="--cache", ONCE="--once", WINDOW=said["window"])
    assert (job.code, job.outputs) == (0, trained.outputs), job.log
    assert runs_of(shop) == before


def test_what_was_approved_is_deployed_and_nothing_else(
    shop: Project, runner: Runner, source: Path, trained: Job
) -> None:
    approved = {"WINDOW": trained.outputs["window"], "APPROVED": trained.outputs["inputs"]}
    other = runner("deploy", **approved, SETTINGS="training.epochs=4")
    assert other.code == 2, other.log
    assert "::error title=Fix your input::" in other.log
    job = runner("deploy", **approved)
    assert job.code == 0, job.log
    executed = {stage["label"] for stage in job.run["stages"] if stage["state"] != "cached"}
    assert executed == {"publish-model", "deploy-model", "deployment gate", "report-run"}
    row = {"price": 12.5, "age": 40, "city": "Rome"}
    assert 0 < kubeflow.predict(shop.hostname, shop.name, row)["probability"] < 1
    state = pipelines("deployments", "status", shop.name, "--namespace", SERVED, "--json").json
    uri = next(stage["parameters"]["uri"] for stage in trained.run["stages"] if stage["parameters"].get("uri"))
    assert state["stable"]["version"] == uri.rpartition("/")[2]
    fs, path = storage.filesystem(uri)
    assert fs.exists(path)


def test_an_event_for_a_new_span_trains_on_it(shop: Project, runner: Runner, source: Path, trained: Job) -> None:
    write_span(source, 3, 1500)
    new = source / "data" / "visits-2025-03.csv"
    shop.put(new)
    uri = f"s3://{shop.bucket}/data/{new.name}"
    said = pipelines("trigger", shop.folder, "--object", uri, "--dry-run", "--json").json
    assert (said["action"], said["window"]) == ("start", "2025-01..2025-03")
    try:
        job = runner("train", CACHE="--cache", ONCE="--once", WINDOW=said["window"])
    finally:
        shop.drop(new.name)
    assert job.code == 0, job.log
    assert job.outputs["window"] == "2025-01..2025-03"
    assert len(shop.store.cards()) == 2


def test_a_red_gate_is_told_apart(runner: Runner, trained: Job) -> None:
    settings = "evaluation.thresholds=[{metric: auc, min: 0.9999}]\n"
    job = runner("train", CACHE="--cache", ONCE="", WINDOW="2025-01..2025-02", SETTINGS=settings)
    assert job.code == 3, job.log
    assert "::error title=Data or model rejected; what is in service stays::" in job.log
    assert "0.9999" in job.summary
    assert list((job.folder / "outcome" / "reports").rglob("*.html"))
