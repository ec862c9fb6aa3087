"""`python -m pipelines lineage`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.model_store import ModelStore
from tests.publish_model.blessed import NAME, bless, publish_blessed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Three versions, each of a month more; the first is retired, the second was put back into production."""
    folder = tmp_path_factory.mktemp("lineage")
    store = ModelStore(str(folder / "store"), NAME)
    for index, weights in enumerate("abc"):
        latest = store.latest()
        spans = tuple(f"2025-0{month + 1}" for month in range(index + 1))
        run = bless(folder / weights, weights, 0.7, spans)
        publish_blessed(run, store.uri, production_model=store.uri_of(latest) if latest else "")
    store.retire("1")
    store.rollback()
    return store


def lineage(store: ModelStore, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "lineage", "--store", store.uri, "--name", NAME]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def asked(store: ModelStore, *arguments: str) -> Any:
    ended = lineage(store, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_version_says_what_made_it(store: ModelStore) -> None:
    first, second, third = store.versions()
    found = asked(store, "3")
    assert (found["version"], found["parents"], found["children"]) == (third, [second, first], [])
    assert found["spans"] == ["2025-01", "2025-02", "2025-03"]
    assert [file["span"] for file in found["files"]] == found["spans"]
    assert found["data_digest"] == store.card("3").data.digest
    assert [one["action"] for one in found["promotions"]] == ["publish"]
    assert found["served"] == []


def test_latest_is_what_is_in_production(store: ModelStore) -> None:
    second = store.versions()[1]
    found = asked(store)
    assert found["version"] == second
    assert found["served"] == [{"where": "production", "version": second, "share": 100}]
    assert [one["action"] for one in found["promotions"]] == ["publish", "rollback"]


def test_a_retired_version_is_remembered(store: ModelStore) -> None:
    ended = lineage(store, "1")
    assert ended.returncode == 0
    assert f"{store.versions()[0]}, retired 20" in ended.stdout
    assert "files     gone" in ended.stdout


@pytest.mark.parametrize(
    ("target", "expected"),
    [("2025-01", [1, 2, 3]), ("2025-02", [2, 3]), ("2025-03", [3]), ("2025", [1, 2, 3]), ("2025-02-14", [2, 3])],
)
def test_a_span_says_who_saw_it(target: str, expected: list[int], store: ModelStore) -> None:
    versions = store.versions()
    assert [use["version"] for use in asked(store, target)] == [versions[number - 1] for number in expected]


def test_a_file_or_a_digest_says_who_saw_it(store: ModelStore) -> None:
    card = store.card("3")
    file = card.data.files[-1]
    for target in (file.uri, Path(file.uri).name, file.digest, card.data.digest):
        assert asked(store, target)[-1]["version"] == card.version, target
    (use,) = asked(store, "2025-03")
    assert use["files"] == [file.uri]
    assert use["rows"] == file.rows


@pytest.mark.parametrize("target", ["2024-12", "v0009", "nothing", "2025-0"])
def test_what_nobody_saw_is_refused(target: str, store: ModelStore) -> None:
    ended = lineage(store, target)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"fix your input: '{target}' is no version of model '{NAME}'")
    assert "(they saw spans 2025-01 to 2025-03)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_store_it_asks_for_one() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "lineage"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr.startswith("fix your input: which store?")) == (2, True)


def test_a_cluster_that_does_not_answer_is_said_and_the_rest_goes_on(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "one",
                "clusters": [{"name": "one", "cluster": {"server": "http://127.0.0.1:9"}}],
                "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
                "users": [{"name": "one", "user": {}}],
            }
        )
    )
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "lineage", "--cluster", "--store", store.uri]
    ended = subprocess.run(
        [*command, "--name", NAME],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"KUBECONFIG": str(tmp_path / "config"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert ended.returncode == 0
    assert "the cluster does not say what it serves" in ended.stderr
    assert "served    production" in ended.stdout
