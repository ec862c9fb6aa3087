"""`python -m pipelines prune`, as a user types it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.model_store import ModelStore
from tests.publish_model.blessed import bless, publish_blessed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
name: visits
data: {source: data.csv, split: {by: hash, key: [id]}}
task: {type: binary, label: bought}
monitoring: {log: {source: log}}
retention: {models: 1, log_days: 30, run_days: 7}
"""


def day(ago: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=ago)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Four versions, of which the second is in production and the first was before; logs and runs, old and new."""
    (tmp_path / "pipeline.yaml").write_text(PROJECT)
    (tmp_path / "data.csv").write_text("id,bought\n1,true\n")
    store = ModelStore(str(tmp_path / "models"), "visits")
    for weights in "abcd":
        publish_blessed(bless(tmp_path / "made" / weights, weights, 0.7), store.uri, name="visits")
    for _ in range(2):
        store.rollback()
    for ago in (1, 29, 31, 400):
        folder = tmp_path / "log" / f"{day(ago):%Y-%m-%d}"
        folder.mkdir(parents=True)
        (folder / "part.parquet").write_bytes(b"12345")
    (tmp_path / "log" / "2020-01").mkdir()
    for name in (f"visits-{day(8):%Y%m%d-%H%M%S}-11", f"visits-{day(6):%Y%m%d-%H%M%S}-12", "other-20200101-000000-1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "kfp.log").write_text("abc")
    return tmp_path


def prune(project: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "pipelines",
            "prune",
            str(project),
            "--runs",
            str(project / "runs"),
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **variables},
    )


def listed(project: Path, *arguments: str) -> Any:
    ended = prune(project, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return [(item["kind"], Path(item["what"]).name) for item in json.loads(ended.stdout)["items"]]


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_first_it_only_tells(project: Path) -> None:
    before = everything(project)
    ended = prune(project)
    assert ended.returncode == 0
    assert "4 things" in ended.stdout
    assert "nothing was removed yet; add --apply" in ended.stdout
    assert [path for path in everything(project) if path.name != ".lock"] == [p for p in before if p.name != ".lock"]


def test_what_is_old_goes_and_nothing_else(project: Path) -> None:
    store = ModelStore(str(project / "models"), "visits")
    _, second, third, fourth = store.versions()
    assert store.latest() == second
    expected = [
        ("model", third),
        ("log", f"{day(400):%Y-%m-%d}"),
        ("log", f"{day(31):%Y-%m-%d}"),
        ("run", next(path.name for path in (project / "runs").glob("visits-*-11"))),
    ]
    assert listed(project) == expected
    assert listed(project, "--apply") == expected
    assert listed(project, "--apply") == []
    assert list(store.retired()) == [third]
    assert Path(store.uri_of(fourth)).is_dir()
    assert sorted(path.name for path in (project / "log").iterdir()) == sorted(
        ["2020-01", f"{day(29):%Y-%m-%d}", f"{day(1):%Y-%m-%d}"]
    )
    assert {path.name.split("-")[0] for path in (project / "runs").iterdir()} == {"visits", "other"}


def test_a_project_without_anything_has_nothing_to_prune(project: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "pipeline.yaml").write_text(PROJECT)
    ended = prune(new)
    assert (ended.returncode, ended.stdout.strip()) == (0, "nothing is old enough to go")


def test_no_model_goes_while_the_cluster_does_not_say_what_it_serves(project: Path) -> None:
    config = {
        "current-context": "one",
        "clusters": [{"name": "one", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "users": [{"name": "one", "user": {}}],
    }
    (project / "config").write_text(json.dumps(config))
    ended = prune(project, "--cluster", "--apply", KUBECONFIG=str(project / "config"))
    assert ended.returncode in (2, 4)
    assert "Traceback" not in ended.stderr
    assert not ModelStore(str(project / "models"), "visits").retired()
    assert len(list((project / "log").iterdir())) == 5
