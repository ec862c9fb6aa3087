"""Submitting, watching, schedules and backfills on Kubeflow Pipelines, as a user types it.

Needs: what test_training_on_cluster.py needs. The pipeline is the training pipeline cut down to what is over in a
minute: ingestion, the first gate, the report.
"""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import compiled
from pipelines.environments import DEV
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import Project, pipelines, states, wait
from tests.cluster.lab import ROOT
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]
REASON = f"0 anomalies [none], {uuid.uuid4().hex[:6]}"
"""Another one each time: the gate has no other input, and would come from the cache."""


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    """A small project with two spans, whose pipeline is over in a minute."""
    here = write_project(tmp_path / "here")
    name = f"shop-{uuid.uuid4().hex[:6]}"
    with kubeflow.project(tmp_path / "there", name, here / "pipeline.yaml", {}) as project:
        project.put(*sorted((here / "data").iterdir()))
        yield project


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_pipeline(tmp_path_factory.mktemp("pipelines") / "passing.yaml", "pass")


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_pipeline(tmp_path_factory.mktemp("pipelines") / "rejecting.yaml", "fail")


def short_pipeline(path: Path, verdict: str) -> Path:
    """Cuts the training pipeline down; the gate is told the verdict."""
    documents = list(yaml.safe_load_all(compiled.read("training", tag=compiled.content_tag())))
    dag = documents[0]["components"]["comp-exit-handler-1"]["dag"]
    tasks = {name: dag["tasks"][name] for name in ("ingest-data", "gate")}
    told = {"name": "data", "verdict": verdict, "reason": REASON}
    tasks["gate"]["inputs"] = {
        "parameters": {name: {"runtimeValue": {"constant": value}} for name, value in told.items()}
    }
    tasks["gate"]["dependentTasks"] = ["ingest-data"]
    dag["tasks"] = tasks
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


def test_a_run_is_submitted_followed_reported_and_reused(shop: Project, passing: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    submit = ("submit", shop.folder, "--compiled", passing, "--tag", f"test={shop.name}", "--json")
    ended = pipelines(*submit, "--wait", "--summary", summary)
    assert ended.code == 0, ended
    assert states(ended.json) == {"ingest-data": "succeeded", "data gate": "succeeded", "report-run": "succeeded"}
    assert "✓ data gate" in ended.stderr
    assert f"- **data gate**: {REASON}" in summary.read_text()
    run = ended.json["id"]
    logs = pipelines("logs", run, "ingest-data")
    assert "the structure is right" in logs.stdout
    assert "launcher" not in logs.stdout
    assert "launcher" in pipelines("logs", run, "ingest-data", "--all").stdout
    reports = pipelines("report", run, "--output", tmp_path / "pages")
    assert reports.stdout == f"{tmp_path}/pages/index.html\n", reports
    assert "<html" in (tmp_path / "pages" / "index.html").read_text()

    again = pipelines(*submit, "--once", "--wait")
    assert (again.code, again.json["id"]) == (0, run), again
    again = pipelines(*submit, "--wait")
    assert states(again.json)["ingest-data"] == "cached", again
    again = pipelines(*submit, "--no-cache", "--wait")
    assert states(again.json)["ingest-data"] == "succeeded", again
    listed = pipelines("runs", "--tag", f"test={shop.name}", "--state", "succeeded", "--json").json
    assert [one["id"] for one in listed][-1] == run
    assert len(listed) == 3


def test_rejected_data_and_a_wrong_setting_are_told_apart(shop: Project, rejecting: Path, passing: Path) -> None:
    rejected = wait(shop.submit("--compiled", str(rejecting)))
    assert rejected.code == 3
    assert rejected.json["cause"] == f"data gate: data rejected: {REASON}"
    assert states(rejected.json)["report-run"] == "succeeded"
    # Only the stage can see it: the file has no such column.
    broken = wait(shop.submit("--compiled", str(passing), "--set", "schema=null", "--set", "task.label=nobody"))
    assert broken.code in (2, 3), broken
    assert broken.json["cause"].startswith("ingest_data: ")


def test_an_image_that_is_not_there_is_named_and_the_run_can_be_stopped(shop: Project) -> None:
    run = shop.submit("--image-tag", "no-such-tag")
    ended = pipelines("wait", run, "--timeout", "60")
    assert ended.code == 4, ended
    assert "ingest-data waits: image 'ghcr.io/lockgate/base:no-such-tag' cannot be pulled" in ended.stderr
    stages = pipelines("status", run, "--json").json["stages"]
    assert "no-such-tag" in next(one["waiting"] for one in stages if one["task"] == "ingest-data")
    assert pipelines("logs", run).code == 4
    assert pipelines("cancel", run).code == 0
    ended = wait(run)
    assert (ended.code, ended.json["verdict"]) == (4, "CANCELED"), ended
    assert pipelines("cancel", run).code == 2


def test_the_kubeconfig_is_a_way_too(shop: Project) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LOCKGATE_KFP_")}
    command = [str(DEV.executable), "-W", "ignore", "-m", "pipelines", "runs", "--limit", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list)


def test_a_schedule_starts_runs_that_pin_what_is_there(shop: Project, passing: Path) -> None:
    create = ("schedule", "create", shop.folder, "--compiled", passing, "--set", "data.window=last 2 months", "--json")
    made = pipelines(*create, "--every", "1m")
    assert (made.code, made.json["action"]) == (0, "created"), made
    name = made.json["name"]
    try:
        assert pipelines(*create, "--every", "1m").json["action"] == "unchanged"
        run = first_run(name)
        ended = wait(run)
        assert ended.code == 0, ended
        assert states(ended.json)["pin-inputs"] == "succeeded"
        assert "in production: nothing" in pipelines("logs", run, "pin-inputs").stdout
        assert pipelines(*create, "--every", "1d").json["action"] == "changed"
        assert pipelines("schedule", "pause", name).code == 0
        shown = pipelines("schedule", "show", name, "--json").json
        assert (shown["enabled"], shown["when"], shown["window"]) == (False, "every 1d", "last 2 months")
    finally:
        assert pipelines("schedule", "delete", name).code == 0
    assert pipelines("schedule", "show", name).code == 2


def test_a_backfill_goes_on_where_it_was_stopped(shop: Project, passing: Path) -> None:
    command = (
        "backfill",
        shop.folder,
        "--compiled",
        passing,
        "--concurrency",
        "2",
        "--json",
        "--from",
        "2025-01",
        "--to",
    )
    first = pipelines(*command, "2025-01", seconds=600)
    assert first.code == 0, first
    planned = pipelines(*command, "2025-02", "--dry-run").json
    assert [(one["span"], one["to_do"]) for one in planned] == [("2025-01", False), ("2025-02", True)]
    both = pipelines(*command, "2025-02", seconds=600)
    assert both.code == 0, both
    runs = {one["span"]: one["run"] for one in both.json}
    assert runs["2025-01"]["id"] == first.json[0]["run"]["id"]
    assert runs["2025-02"]["state"] == "SUCCEEDED"


def first_run(schedule: str, seconds: float = 240) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = pipelines("schedule", "show", schedule, "--json").json
        if found["runs"]:
            return str(found["runs"][-1]["id"])
        time.sleep(5)
    raise AssertionError(f"schedule '{schedule}' started nothing within {seconds:g} s")
